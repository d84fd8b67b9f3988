"""``wm show``: agents and their scores, the artifacts of world models and agents, what is missing."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from worldmodels.cli.agents import agent_keys
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import ARTIFACTS, KEY, REPORTS, STAGES, AgentFiles, command_for, primary_out

LOCK = "dvc.lock"
MISSING_SHOWN = 8


def overview(root: Path) -> dict[str, Any]:
    """Return what exists, as plain data.

    Keys: ``agents`` and ``world_models``, lists of entries: key, environment, stages (stage -> made, path, md5, made_by).
    An agent has also study, scores (or None), and changed: whether its scores are others than dvc.lock says. ``missing``:
    commands that make what params.yaml names and is not there. ``report``: the path of the page, or None.
    """
    written = load_yaml(root / PARAMS_FILE) if (root / PARAMS_FILE).is_file() else {}
    locked = _locked_hashes(root)
    models = [
        _entry(root, key, line, "world_models", locked)
        for key, line in (_lines(written, "world_models") | _made(root)).items()
        if not key.endswith("-0")
    ]
    lines = {key: _lines(written, "agents").get(key, {}) for key in agent_keys(root) if re.fullmatch(KEY, key)}
    own = [_entry(root, key, line, "agents", locked) for key, line in lines.items()]
    environments = dict.fromkeys(entry["environment"] for entry in [*models, *own])
    random = [_entry(root, f"{name}-0", {"env": name}, "environments", locked) for name in environments]
    agents = [_scored(root, entry, lines.get(entry["key"], {}), locked) for entry in [*random, *own]]
    stages = [stage for entry in [*random, *models, *own] for stage in entry["stages"].values()]
    page = root / REPORTS / "index.html"
    return {
        "agents": agents,
        "world_models": models,
        "missing": list(dict.fromkeys(stage["made_by"] for stage in stages if not stage["made"])),
        "report": str(page) if page.is_file() else None,
    }


def overview_text(found: Mapping[str, Any]) -> str:
    """Return ``overview`` as text: scores, hashes of every stage, what is missing."""
    if not found["agents"]:
        return "Nothing here: no agents in params.yaml, no artifacts. `wm preset quick` writes params, `make repro` runs."
    from worldmodels.report.table import render

    scored = [entry["scores"] for entry in found["agents"] if entry["scores"] and "evaluate" in entry["stages"]]
    parts = [render(scored)] if scored else []
    parts += [_stages(found["world_models"], "world model", "world_models")] if found["world_models"] else []
    parts.append(_stages(found["agents"], "agent", "environments", "agents") + "\n(md5 in dvc.lock; -: not made)")
    changed = [entry["key"] for entry in found["agents"] if entry["changed"]]
    if changed:
        named = ", ".join(changed)
        parts.append(f"CHANGED since they were made, so do not trust the scores above: {named}. `dvc repro` makes them again.")
    if found["missing"]:
        shown = "\n".join(f"  {command}" for command in found["missing"][:MISSING_SHOWN])
        more = len(found["missing"]) - MISSING_SHOWN
        parts.append(f"missing (`make repro` makes all):\n{shown}" + (f"\n  and {more} more" if more > 0 else ""))
    else:
        parts.append("Nothing is missing.")
    return "\n\n".join(parts)


def next_steps_text(found: Mapping[str, Any]) -> str:
    """Return where to look after a run."""
    done = [entry for entry in found["agents"] if entry["scores"] and "evaluate" in entry["stages"]]
    chain = [entry["key"] for entry in done if entry["study"] is None] or [entry["key"] for entry in done]
    if not chain:
        return "Next: `make repro` runs the pipeline; `wm doctor` checks this machine."
    last = chain[-1]
    page = "figures, dreams and scores on one page"
    steps = [
        (found["report"], page) if found["report"] else ("dvc repro report", f"makes {REPORTS / 'index.html'}: {page}"),
        (f"wm evaluate {last} --episodes 10 --video {last}.mp4", "watch the agent play the real game"),
        (f"wm dream {last} --out dream.mp4", "watch what it dreams"),
        ("make ui", "MLflow: runs, curves, registered agents"),
    ]
    width = max(len(command) for command, _ in steps)
    return "Where to look next:\n" + "\n".join(f"  {command.ljust(width)}  {why}" for command, why in steps)


def _lines(written: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    """Return the lines of ``world_models`` or ``agents`` that are some, by key; params need not be valid to be shown."""
    lines = written.get(section)
    if not isinstance(lines, dict):
        return {}
    return {
        key: line for key, line in lines.items() if isinstance(key, str) and re.fullmatch(KEY, key) and isinstance(line, dict)
    }


def _made(root: Path) -> dict[str, Mapping[str, Any]]:
    """Return the world models that were made, by key."""
    return {folder.parent.name: {} for folder in sorted((root / ARTIFACTS / "world_models").glob("*/data.json"))}


def _entry(root: Path, key: str, line: Mapping[str, Any], kind: str, locked: Mapping[str, str]) -> dict[str, Any]:
    named = line.get("env")
    stages = [stage for stage, section in STAGES.items() if section == kind]
    return {
        "key": key,
        "environment": named if isinstance(named, str) and re.fullmatch(KEY, named) else key.partition("-")[0],
        "stages": {stage: _stage(root, primary_out(stage, key), locked) for stage in stages},
    }


def _stage(root: Path, path: Path, locked: Mapping[str, str]) -> dict[str, Any]:
    return {
        "made": (root / path).exists(),
        "path": path.as_posix(),
        "md5": locked.get(path.as_posix()),
        "made_by": command_for(path),
    }


def _scored(root: Path, entry: dict[str, Any], line: Mapping[str, Any], locked: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry of an agent, or of a random policy, with its scores."""
    from worldmodels.report.table import read_scores
    from worldmodels.storage.files import read_json

    files = AgentFiles(entry["key"], root)
    read = read_scores if "evaluate" in entry["stages"] else lambda files: read_json(files.scores)
    scores = read(files) if files.scores.is_file() else None
    known = locked.get(files.scores.relative_to(root).as_posix())
    study = (scores or line).get("study")
    changed = scores is not None and known is not None and _md5(files.scores) != known
    return entry | {"study": None if study in (None, "none") else str(study), "scores": scores, "changed": changed}


def _stages(entries: Iterable[Mapping[str, Any]], title: str, *kinds: str) -> str:
    from worldmodels.report.table import align

    stages = [stage for stage, section in STAGES.items() if section in kinds]
    return align([(title, *stages), *((entry["key"], *(_cell(entry, stage) for stage in stages)) for entry in entries)])


def _cell(entry: Mapping[str, Any], name: str) -> str:
    stage = entry["stages"].get(name)
    if stage is None:
        return ""  # the random policy has no C; later agents are not initialised
    if not stage["made"]:
        return "-"
    if entry.get("changed") and name in ("initialise", "evaluate"):
        return "CHANGED"
    return str(stage["md5"])[:7] if stage["md5"] else "no lock"


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _locked_hashes(root: Path) -> dict[str, str]:
    """Return path -> md5 of every output in dvc.lock."""
    from worldmodels.tracking.dvclock import read_lock

    if not (root / LOCK).exists():
        return {}
    return {path: md5 for entry in read_lock(root / LOCK) for path, md5 in entry.outs.items()}
