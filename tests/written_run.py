"""A run as it lies on disk when it is done: the files of agents and world models, made up, in the shapes of real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from worldmodels.report import pictures
from worldmodels.report.video import side_by_side, write_video
from worldmodels.rollout.scores import episodes_table, summarise
from worldmodels.shapes import Returns
from worldmodels.storage.layout import AgentFiles, WorldModelFiles

_GAMES: dict[str, dict[str, Any]] = {
    "doom": {"kind": "vizdoom", "scenario": "take_cover", "frame_skip": 4},
    "carracing": {"kind": "carracing"},
}
_RULES = {"doom": "takecover-skill4-limit2100", "carracing": "carracing-v3-limit1000"}
_BACKENDS = {"doom": "vizdoom-1.3.2", "carracing": "gymnasium-1.4.0"}
_RANDOM = {"doom": 210, "carracing": -32}
BLIND = {"policy": "sweep 70", "mean": 636.0, "std": 180.0, "stderr": 40.0, "n": 20}


def written_params() -> dict[str, Any]:
    """Return the params of the run: four agents of Take Cover, one of them of a study, and one of CarRacing."""
    search = {"kind": "cmaes", "generations": 10}
    dream = {"model": {"features": "zch"}, "order": ["search"], "phases": {"search": search}}
    safe = {"kind": "value_gradient", "world": "game", "updates": 5}
    phases = {"fast": {**search, "world": "game"}, "dreams": search | {"world": "dream"}, "safe": safe}
    game = {"model": {"features": "zch"}, "order": list(phases), "phases": phases}
    stages: dict[str, Any] = {
        "collect": {"note": "<b>skill</b> & 4"},
        "vision": {},
        "memory": {},
        "calibrate": {},
        "evaluate": {},
    }
    sections = {
        name: {"game": game_of, **stages, "controllers": {"dream": dream, "game": game}} for name, game_of in _GAMES.items()
    }

    def agent(env: str, world_model: str, begin: str, controller: str = "dream", seed: int = 0, study: str = "none") -> dict:
        shown = {"env": env, "world_model": world_model, "begin": begin}
        return {**shown, "controller": controller, "seed": seed, "study": study}

    return {
        "preset": "quick",
        "seed": 0,
        "compute": {"threads": 2},
        "environments": ["doom", "carracing"],
        "world_models": {
            "doom-1": {"env": "doom", "after": "doom-0", "player": "doom-0", "explorer": "doom-0"},
            "doom-2": {"env": "doom", "after": "doom-1", "player": "doom-1", "explorer": "doom-1"},
            "carracing-1": {"env": "carracing", "after": "carracing-0", "player": "carracing-0", "explorer": "carracing-0"},
        },
        "agents": {
            "doom-1": agent("doom", "doom-1", "doom-0"),
            "carracing-1": agent("carracing", "carracing-1", "carracing-0"),
            "doom-2": agent("doom", "doom-2", "doom-1"),
            "doom-2-game": agent("doom", "doom-2", "doom-2", "game"),
            "doom-2-seed": agent("doom", "doom-2", "doom-0", "game", 1, "seeds"),
        },
        **sections,
    }


def write_run(root: Path) -> dict[str, Any]:
    """Write ``artifacts/`` and ``metrics/`` of the run; return its params."""
    params = written_params()
    means = {"doom-1": (500, 1300), "doom-2": (800, 1300), "doom-2-game": (1190, 1250), "doom-2-seed": (1400, 1300)}
    for key, entry in params["agents"].items():
        write_agent(root, key, entry, *means.get(key, (300, None)))
    for key, entry in params["world_models"].items():
        write_world_model(root, key, entry)
    return params


def episode(steps: int, seed: int = 0) -> np.ndarray:
    """Return frames (steps, 64, 64, 3) of a bright square that moves over noise."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 90, (steps, 64, 64, 3), dtype=np.uint8)
    for step in range(steps):
        frames[step, 20:30, step % 50 : step % 50 + 10] = (250, 200, 40)
    return frames


def returns(mean: float, episodes: int, seed: int) -> Returns:
    """Return made-up returns of one candidate, of about this mean."""
    random = np.random.default_rng(seed)
    total = np.sign(mean) * random.gamma(4, abs(mean) / 4, (1, episodes))
    length = np.maximum(1, np.abs(total)).astype(np.int64)
    return Returns(total, length, np.ones((1, episodes), bool), np.arange(episodes))


def score_of(key: str, entry: dict[str, Any], real: float, dream: float | None = None) -> dict[str, Any]:
    """Return what ``metrics/<key>.json`` holds of an agent."""
    played = {"real": returns(real, 20, 1), "random": returns(_RANDOM[entry["env"]], 20, 2)}
    dreamt = None if dream is None else {"temperature": 1.15, **summarise(returns(dream, 30, 3))}
    summary = {world: summarise(outcome) for world, outcome in played.items()}
    return {
        "key": key,
        "environment": entry["env"],
        **{name: entry[name] for name in ("world_model", "controller", "study")},
        "preset": "quick",
        "seed": 0,
        "controller_seed": entry["seed"],
        "rules": _RULES[entry["env"]],
        "backend": _BACKENDS[entry["env"]],
        "block": "test",
        "parameters": 867,
        "steps": {"dream": 120_000, "game": 0},
        "real": summary["real"],
        "selection": {"mean": real + 40.0, "stderr": 9.0, "n": 24, "contestants": 3},
        "dream": dreamt,
        "random": summary["random"],
        "blind": BLIND if entry["env"] == "doom" else None,
        "gap": dreamt["mean"] - summary["real"]["mean"] if dreamt else None,
    }


def doom_score(real: float, error: float = 10.0, **changes: Any) -> dict[str, Any]:
    """Return the scores of an agent ``doom-9`` of Take Cover with this mean and standard error."""
    plain = score_of("doom-9", written_params()["agents"]["doom-1"], 500)
    return plain | {"real": plain["real"] | {"mean": real, "stderr": error}} | changes


def curve_of(entry: dict[str, Any]) -> pd.DataFrame:
    """Return the curve of a search: of one phase in the dream, or of three, the last of which has no returns."""
    rows: list[dict[str, Any]] = []

    def learned(phase: str, world: str, count: int, **figures: float) -> None:
        for _ in range(count):
            number = len(rows)
            summary = {} if figures else {"best": 20.0 * number, "mean": 12.0 * number, "std": 3.0}
            rows.append({"generation": number, "phase": phase, "world": world, **summary, **figures, "steps": 100})

    if entry["controller"] == "dream":
        learned("search", "dream", 10)
    else:
        learned("fast", "game", 4)
        learned("dreams", "dream", 6)
        learned("safe", "game", 5, reward=-0.1)
    count = len(rows)
    for number in (-1, 4, count - 1):
        rows.append({"generation": number, "phase": "selection", "world": "", "mean": 7.0 * number, "std": 9, "stderr": 5.0})
    columns = ["generation", "phase", "world", "best", "mean", "std", "reward", "steps", "stderr"]
    return pd.DataFrame(rows).reindex(columns=columns)


def write_agent(root: Path, key: str, entry: dict[str, Any], real: float, dream: float | None) -> None:
    """Write the files of one agent."""
    files = AgentFiles(key, root)
    files.agent.mkdir(parents=True)
    (files.agent / "agent.json").write_text("{}")
    for name in ("vision", "memory", "controller"):
        (files.agent / f"{name}.safetensors").write_bytes(f"{key} {name}".encode())
    score = score_of(key, entry, real, dream)
    files.scores.parent.mkdir(exist_ok=True)
    files.scores.write_text(json.dumps(score))
    played = {"real": returns(real, 20, 1), "random": returns(_RANDOM[entry["env"]], 20, 2)}
    played |= {} if dream is None else {"dream": returns(dream, 30, 3)}
    pd.concat([episodes_table(each, world) for world, each in played.items()], ignore_index=True).to_parquet(files.returns)
    curve_of(entry).to_csv(files.curve, index=False)
    pictures.write_png(files.reconstructions, pictures.filmstrip({"real": episode(6), "real through V": episode(6, 1)}))
    pictures.write_png(files.traversal, pictures.filmstrip({"z3": episode(9)}, corner="std"))
    pictures.write_png(files.temperatures, pictures.filmstrip({"dream, tau 1": episode(30)}, every=5))
    pictures.write_png(files.filmstrip, pictures.filmstrip({"reality": episode(30), "dream": episode(20)}, every=5))
    views = {"real": episode(6), "real through V": episode(6, 1), "dream": episode(4)}
    write_video(files.video, side_by_side(views), 35, scale=1)


def write_world_model(root: Path, key: str, entry: dict[str, Any]) -> None:
    """Write the files of one world model."""
    files = WorldModelFiles(key, root)
    files.folder.mkdir(parents=True)
    for name in ("vision", "memory"):
        (files.folder / f"{name}.safetensors").write_bytes(f"{key} {name}".encode())
    updates = np.arange(0, 200, 10)
    points = [(u, split, 40 + 900 * np.exp(-u / 20)) for u in updates for split in ("train", "validation")]
    losses = pd.DataFrame(points, columns=["update", "split", "loss"])
    losses.to_csv(files.vision_curve, index=False)
    ahead = {f"open_loop_{k}": np.where(losses["split"] == "validation", k / 40, np.nan) for k in (1, 10, 30)}
    losses.assign(**ahead).to_csv(files.memory_curve, index=False)
    first = entry["player"].endswith("-0")
    who = ["random, walk 0", "random, walk 0.9"] if first else [f"{entry['player']}, strength {s}" for s in (0, 0.5)]
    paid_by_step = {True: lambda place: 4 - 0.01 * place, False: lambda place: 0.25 * place}[entry["env"] == "doom"]
    policies = {
        name: {"episodes": 10, "mean_return": 100.0 * place, "reward_per_step": paid_by_step(place)}
        for place, name in enumerate(who, start=1)
    }
    data = {
        "episodes": 20,
        "frames": 4000,
        "all_frames": 9000,
        "mean_return": 150.0,
        "policies": policies,
        "choices": [],
        "shards": [],
    }
    files.data.write_text(json.dumps(data))
    real = {"policy": ["random", "sweep 70"], "real": [210, 636], "real_stderr": [9, 40]}
    pd.DataFrame(real | {"dream": [280, 1150], "dream_stderr": [9, 70]}).to_csv(files.calibration, index=False)
