"""Where the artifacts of an iteration are, and which command makes each."""

import re
from dataclasses import dataclass
from pathlib import Path

from worldmodels.errors import ArtifactError, ParamsError

ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")
TRIALS = "trials"
STATE = Path(".state")
"""Checkpoints of stages that are under way."""


PRIMARY = {
    "initialise": "baseline.json",
    "collect": "data.json",
    "vision": "vision.safetensors",
    "encode": "latents.safetensors",
    "memory": "memory.safetensors",
    "calibrate": "calibration.csv",
    "controller": "controller.safetensors",
    "evaluate": "scores.json",
    "trial": "trial.json",
    "report": "reports",
}
"""Stage -> the out that stands for it, in the order in which they run."""

ALONE = ("trial", "report")
"""Stages that belong to no single iteration."""


@dataclass(frozen=True)
class Iteration:
    """The files of one iteration, by chain key (``doom-2``). Key ``<environment>-0`` is the random policy.

    Raises:
        ParamsError: where the key would lead out of the folder of artifacts.
    """

    key: str
    root: Path = Path()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.key):
            raise ParamsError(f"chain: {self.key!r} cannot be a key: letters, digits, `_` and `-`, such as `doom-1`.")

    @property
    def folder(self) -> Path:
        return self.root / ARTIFACTS / self.key

    @property
    def data(self) -> Path:
        """Manifest of the episodes of this and all earlier iterations."""
        return self.folder / "data.json"

    @property
    def episodes(self) -> Path:
        """Shards of frames and the table of episodes."""
        return self.folder / "episodes"

    @property
    def vision(self) -> Path:
        return self.folder / "vision.safetensors"

    @property
    def vision_curve(self) -> Path:
        return self.folder / "vision.csv"

    @property
    def latents(self) -> Path:
        return self.folder / "latents.safetensors"

    @property
    def memory(self) -> Path:
        return self.folder / "memory.safetensors"

    @property
    def memory_curve(self) -> Path:
        return self.folder / "memory.csv"

    @property
    def controller(self) -> Path:
        return self.folder / "controller.safetensors"

    @property
    def controller_curve(self) -> Path:
        return self.folder / "controller.csv"

    @property
    def agent(self) -> Path:
        """The deployable agent: V, M, C and a card."""
        return self.folder / "agent"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def returns(self) -> Path:
        return self.folder / "returns.parquet"

    @property
    def reconstructions(self) -> Path:
        return self.folder / "vision.png"

    @property
    def filmstrip(self) -> Path:
        return self.folder / "dream.png"

    @property
    def traversal(self) -> Path:
        """What single dimensions of z stand for."""
        return self.folder / "traversal.png"

    @property
    def temperatures(self) -> Path:
        """Dreams at several temperatures."""
        return self.folder / "temperatures.png"

    @property
    def film(self) -> Path:
        """A test-like episode: real, through V, dreamt on the same actions."""
        return self.folder / "agent.mp4"

    @property
    def baseline(self) -> Path:
        """Summary of the random policy on the test seeds; only in ``<environment>-0``."""
        return self.folder / "baseline.json"

    @property
    def baseline_returns(self) -> Path:
        return self.folder / "baseline.parquet"

    @property
    def blind(self) -> Path:
        """Scores of all blind policies on the test seeds; only in ``<environment>-0``."""
        return self.folder / "blind.csv"

    @property
    def calibration(self) -> Path:
        """Blind policies, dreamt and real."""
        return self.folder / "calibration.csv"

    @property
    def calibration_figure(self) -> Path:
        return self.folder / "calibration.png"


class Trial(Iteration):
    """The files of a trial, by its key in ``trials``: ``agent``, ``controller_curve``, ``returns``, ``scores``."""

    @property
    def folder(self) -> Path:
        return self.root / ARTIFACTS / TRIALS / self.key

    @property
    def scores(self) -> Path:
        return self.folder / "trial.json"


def artifacts_of(name: str) -> Iteration:
    """Return the files of an iteration, or of a trial that is called as its folder is.

    >>> artifacts_of("doom-4").agent.as_posix(), artifacts_of("trials/runs-0").agent.as_posix()
    ('artifacts/doom-4/agent', 'artifacts/trials/runs-0/agent')
    """
    place, _, key = name.rpartition("/")
    return Trial(key) if place == TRIALS else Iteration(name)


MAKERS = {
    "data.json": "collect",
    "episodes": "collect",
    "vision.safetensors": "vision",
    "vision.csv": "vision",
    "latents.safetensors": "encode",
    "memory.safetensors": "memory",
    "memory.csv": "memory",
    "controller.safetensors": "controller",
    "controller.csv": "controller",
    "agent": "controller",
    "scores.json": "evaluate",
    "returns.parquet": "evaluate",
    "vision.png": "evaluate",
    "dream.png": "evaluate",
    "traversal.png": "evaluate",
    "temperatures.png": "evaluate",
    "agent.mp4": "evaluate",
    "baseline.json": "initialise",
    "baseline.parquet": "initialise",
    "blind.csv": "initialise",
    "calibration.csv": "calibrate",
    "calibration.png": "calibrate",
}


def command_for(path: Path) -> str:
    """Return the command that makes an artifact.

    >>> command_for(Path("artifacts/doom-2/agent/agent.json"))
    'dvc repro controller@doom-2'
    """
    parts = path.parts
    if "artifacts" not in parts[:-2]:
        return "make repro"
    key, name = parts[parts.index("artifacts") + 1 :][:2]
    if key == TRIALS:
        return f"dvc repro trial@{name}"
    environment, _, number = key.rpartition("-")
    if number == "0":
        return f"dvc repro initialise@{environment}"
    return f"dvc repro {MAKERS.get(name, 'evaluate')}@{key}"


def require(path: Path) -> Path:
    """Return ``path`` if it exists.

    Raises:
        ArtifactError: naming the command that makes it.
    """
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. `{command_for(path)}` makes it; `dvc pull` fetches it from a remote.")
    return path


def damaged(path: Path, reason: object) -> ArtifactError:
    """Return the error for a file that cannot be read: what, why, and how to make it again."""
    return ArtifactError(f"{path} is damaged ({reason}). Delete it; `{command_for(path)}` makes it again.")
