"""Where the files of a world model and of an agent are, and which command makes each."""

import re
from pathlib import Path

from worldmodels.errors import ArtifactError, ParamsError

ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")
REPORTS = Path("reports")
STATE = Path(".state")
"""Checkpoints of stages that are not finished."""
KEY = r"[A-Za-z0-9][A-Za-z0-9_-]*"
"""What a key may look like: DVC puts it into a shell command and into a path."""
RECORDED = "-recorded"
"""How the key of a recording ends, and no other key."""
NO_STUDY = "none"
"""``study`` of an agent that is part of the chain, and of no comparison."""
CARD = "agent.json"
"""What says of a folder that it is an agent."""

STAGES = {
    "initialise": "environments",
    "recording": "recordings",
    "collect": "world_models",
    "vision": "world_models",
    "encode": "world_models",
    "memory": "world_models",
    "calibrate": "world_models",
    "controller": "agents",
    "evaluate": "agents",
    "film": "agents",
    "report": "",
}
"""Stage -> the section of params.yaml that it expands over, in the order in which the stages run."""

_FOLDERS = {"recordings": "world_models"}
"""Section -> the folder of its artifacts, if it is not called as the section."""
_OUTS = {
    "recording": ("data.json", "episodes"),
    "collect": ("data.json", "episodes"),
    "vision": ("vision.safetensors", "vision.csv"),
    "encode": ("latents.safetensors",),
    "memory": ("memory.safetensors", "memory_before.safetensors", "memory.csv"),
    "calibrate": ("calibration.csv",),
    "controller": ("rejected.safetensors", "controller.csv", "agent"),
    "evaluate": ("returns.parquet",),
    "film": ("film",),
}
"""Stage -> what it puts into the folder of its world model or agent; the first one stands for the stage in most of them."""


def check_key(key: str) -> str:
    """Return a key of `world_models` or `agents`; ParamsError if it holds something else than letters, digits, `_` and `-`."""
    if not re.fullmatch(KEY, key):
        raise ParamsError(f"{key!r} cannot be a key: use letters, digits, `_` and `-`, such as `doom-1`.")
    return key


class WorldModelFiles:
    """The files of one world model: V, M and the data behind them. `<environment>-0` is empty, a recording has data alone.

    Raises:
        ParamsError: the key would lead out of the folder of artifacts.
    """

    def __init__(self, key: str, root: Path = Path()) -> None:
        self.key = check_key(key)
        self.folder = folder = root / ARTIFACTS / "world_models" / key
        self.data = folder / "data.json"  # manifest of the episodes of this world model and of all before it
        self.episodes = folder / "episodes"  # shards of frames, and the table of episodes
        self.vision = folder / "vision.safetensors"
        self.vision_curve = folder / "vision.csv"
        self.latents = folder / "latents.safetensors"
        self.memory = folder / "memory.safetensors"
        self.memory_before = folder / "memory_before.safetensors"  # M as it began: that of `after`, or untrained
        self.memory_curve = folder / "memory.csv"
        self.calibration = folder / "calibration.csv"  # blind policies, dreamt and real


class AgentFiles:
    """The files of one agent. `<environment>-0` is the random policy. ParamsError as in ``WorldModelFiles``."""

    def __init__(self, key: str, root: Path = Path()) -> None:
        self.key = check_key(key)
        self.folder = folder = root / ARTIFACTS / "agents" / key
        self.agent = folder / "agent"  # what is deployed: V, M, C and a card
        self.rejected = folder / "rejected.safetensors"  # contestants that the selection did not keep
        self.curve = folder / "controller.csv"  # of the search for C
        self.scores = root / METRICS / f"{key}.json"  # in the game and in the dream: DVC's metrics
        self.returns = folder / "returns.parquet"  # of single episodes; of `<environment>-0`: by all blind policies
        self.film = folder / "film"
        self.video = self.film / "agent.mp4"  # an episode: real, through V, dreamt on the same actions
        self.reconstructions = self.film / "vision.png"  # frames, and what V makes of them
        self.filmstrip = self.film / "dream.png"  # a dream beside reality, step by step
        self.traversal = self.film / "traversal.png"  # what single dimensions of z stand for
        self.temperatures = self.film / "temperatures.png"  # dreams at several temperatures


def primary_out(stage: str, key: str) -> Path:
    """Return the output that stands for a stage of a world model or an agent.

    >>> primary_out("vision", "doom-2").as_posix(), primary_out("evaluate", "doom-2").as_posix()
    ('artifacts/world_models/doom-2/vision.safetensors', 'metrics/doom-2.json')
    """
    if stage == "report":
        return REPORTS
    if stage in ("initialise", "evaluate"):
        return METRICS / f"{key}.json"
    return ARTIFACTS / _FOLDERS.get(STAGES[stage], STAGES[stage]) / check_key(key) / _OUTS[stage][0]


def command_for(path: Path) -> str:
    """Return the command that makes an artifact.

    >>> command_for(Path("artifacts/agents/doom-2/agent/agent.json"))
    'dvc repro controller@doom-2'
    >>> command_for(Path("metrics/doom-2.json"))
    'dvc repro evaluate@doom-2'
    >>> command_for(Path("artifacts/world_models/pong-recorded/data.json"))
    'dvc repro recording@pong-recorded'
    """
    parts = path.parts
    if len(parts) >= 2 and parts[-2] == METRICS.name and path.suffix == ".json":
        return _command("evaluate", path.stem)
    if ARTIFACTS.name not in parts[:-3]:
        return "make repro"
    kind, key, name = parts[parts.index(ARTIFACTS.name) + 1 :][:3]
    stage = next((stage for stage, names in _OUTS.items() if name in names and STAGES[stage] == kind), None)
    return _command(stage, key) if stage or key.endswith(("-0", RECORDED)) else "make repro"


def _command(stage: str | None, key: str) -> str:
    if key.endswith(RECORDED):
        return f"dvc repro recording@{key}"
    environment, _, number = key.rpartition("-")
    return f"dvc repro initialise@{environment}" if number == "0" else f"dvc repro {stage}@{key}"


def state_of(stage: str, key: str) -> Path:
    """Return where a stage keeps how far it is; there is none before its first checkpoint, nor when it is done."""
    return STATE / f"{stage}-{key}.safetensors"


def require(path: Path) -> Path:
    """Return ``path`` if it exists; else ArtifactError, which names the command that makes it."""
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. `{command_for(path)}` makes it; `dvc pull` fetches it from a remote.")
    return path


def damaged(path: Path, reason: object) -> ArtifactError:
    """Return the error for a file that cannot be read: what, why, and how to make it again."""
    return ArtifactError(f"{path} is damaged ({reason}). Delete it; `{command_for(path)}` makes it again.")
