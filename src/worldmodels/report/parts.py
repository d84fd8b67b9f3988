"""The folded parts of the page: all that is known of one agent, and of one world model."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from worldmodels.params import flat
from worldmodels.report.figures import calibration_bars, loss_curve, return_strip, search_curve
from worldmodels.report.pictures import write_png
from worldmodels.storage.episodes import COLLECTED
from worldmodels.storage.files import read_curve, read_json, read_table
from worldmodels.storage.layout import AgentFiles, WorldModelFiles, require


def agent_part(files: AgentFiles, score: Mapping[str, Any], reports: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of an agent; its figures are written into ``reports``."""
    key, curve, returns = files.key, search_table(files), read_table(files.returns)
    entry, name = params["agents"][key], score["controller"]
    game = params[entry["env"]]
    controller = game["controllers"][name]
    settings = {"game": game["game"], f"controllers.{name}": controller, "evaluate": game["evaluate"]}
    return {
        "key": key,
        "score": score,
        "begin": entry["begin"],
        "learns": _learns(controller, curve),
        "film": AgentFiles(key).video.as_posix(),
        "filmstrip": require(files.filmstrip).read_bytes(),
        "temperatures": require(files.temperatures).read_bytes(),
        "returns": write_png(reports / f"returns-{key}.png", return_strip(returns)),
        "search": write_png(reports / f"controller-{key}.png", search_curve(curve)) if len(curve) else None,
        "params": _common(params) | flat(entry, f"agents.{key}") | flat(settings, f"{entry['env']}"),
        "hashes": _hashes(files.folder, *sorted(require(files.agent).iterdir()), files.returns),
    }


def world_model_part(
    files: WorldModelFiles, seen: AgentFiles | None, reports: Path, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the template shows of a world model; ``seen``: an agent that is based on it, in whose film V is shown."""
    key, entry = files.key, params["world_models"][files.key]
    vision, memory = (read_curve(path, ("update", "split", "loss")) for path in (files.vision_curve, files.memory_curve))
    blind = read_curve(files.calibration, ("policy", "real", "real_stderr", "dream", "dream_stderr"))
    losses = [
        (stage, write_png(reports / f"{stage}-{key}.png", loss_curve(title, unit, curve)))
        for stage, title, unit, curve in (
            ("vision", "V: loss of a frame", "squared error + KL", vision),
            ("memory", "M: loss of a step", "negative log-likelihood", memory),
        )
        if len(curve) > 1  # a V that stays has no curve, but its loss on new frames
    ]
    settings = {name: params[entry["env"]][name] for name in ("game", "collect", "vision", "memory", "calibrate")}
    return {
        "key": key,
        "entry": entry,
        "data": read_json(files.data, COLLECTED),
        "losses": losses,
        "calibration": write_png(reports / f"calibration-{key}.png", calibration_bars(blind)) if len(blind) else None,
        "seen_by": seen and seen.key,
        "seen": seen and require(seen.reconstructions).read_bytes(),
        "traversal": seen and require(seen.traversal).read_bytes(),
        "params": _common(params) | flat(entry, f"world_models.{key}") | flat(settings, f"{entry['env']}"),
        "hashes": _hashes(files.folder, files.data, files.vision, files.memory),
    }


def search_table(files: AgentFiles) -> pd.DataFrame:
    """Return the curve of an agent's search with all columns that pictures ask for; NaN if no phase has such a figure."""
    found = read_curve(files.curve, ("generation", "phase", "world", "steps"))
    return found.reindex(columns=found.columns.union(["mean", "std", "best", "reward", "stderr"], sort=False))


def _learns(controller: Mapping[str, Any], curve: pd.DataFrame) -> str:
    """Return the phases of a section of ``controllers`` in words; the curve says where each one learned.

    >>> curve = pd.DataFrame({"phase": ["a", "selection"], "world": ["game", ""]})
    >>> _learns({"order": ["a"], "phases": {"a": {"kind": "ppo"}}}, curve)
    'a (ppo in the game)'
    """
    worlds = dict(zip(curve["phase"], curve["world"], strict=True))
    kinds = {name: controller["phases"][name]["kind"] for name in controller["order"]}
    return ", then ".join(f"{name} ({kind} in the {worlds.get(name, '?')})" for name, kind in kinds.items())


def _hashes(folder: Path, *paths: Path) -> dict[str, str]:
    """Return the MD5 of files by their names from ``folder`` on."""
    found = {path.relative_to(folder).as_posix(): require(path).read_bytes() for path in paths}
    return {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in found.items()}


def _common(params: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: params[name] for name in ("preset", "seed", "compute") if name in params})
