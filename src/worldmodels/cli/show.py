"""``wm show``: agents and their scores, the artifacts of world models and agents, what is missing."""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from worldmodels.cli.agents import agent_keys, written_params
from worldmodels.cli.folder import REPLICAS, REPLICAS_PAGE
from worldmodels.report.table import align, by_game, read_scores, render, title
from worldmodels.report.verdict import best_agent, headline
from worldmodels.storage.layout import ARTIFACTS, KEY, NO_STUDY, RECORDED, REPORTS, STAGES, AgentFiles, command_for, primary_out
from worldmodels.tracking.dvclock import artifact_hash, read_lock

LOCK = "dvc.lock"
MISSING_SHOWN = 8


def overview(root: Path) -> dict[str, Any]:
    """Return what exists, as plain data.

    Keys: ``agents``, ``world_models`` and ``recordings``, lists of entries: key, environment, stages (stage -> made, path,
    md5, made_by).
    An agent has also study, scores (or None), and changed: whether its scores are others than dvc.lock says. ``missing``:
    commands that make what params.yaml names and is not there. ``report``: the path of the page, or None. ``several``: the
    paths of the pages of ``wm replicate``.
    """
    written = written_params(root)
    lines = _lines(written, "agents")
    locked = (
        {path: md5 for entry in read_lock(root / LOCK) for path, md5 in entry.outs.items()} if (root / LOCK).exists() else {}
    )
    written_models = _lines(written, "world_models")
    made = sorted(manifest.parent.name for manifest in (root / ARTIFACTS / "world_models").glob("*/data.json"))
    keys = [key for key in dict.fromkeys([*written_models, *made]) if not key.endswith(("-0", RECORDED))]
    recordings = [_entry(root, key, line, "recordings", locked) for key, line in _lines(written, "recordings").items()]
    models = [_entry(root, key, written_models.get(key, {}), "world_models", locked) for key in keys]
    agents = [_entry(root, key, lines.get(key, {}), "agents", locked) for key in agent_keys(root) if re.fullmatch(KEY, key)]
    environments = dict.fromkeys(entry["environment"] for entry in [*models, *agents])
    random = [_entry(root, f"{name}-0", {"env": name}, "environments", locked) for name in environments]
    stages = [stage for entry in [*random, *recordings, *models, *agents] for stage in entry["stages"].values()]
    page = root / REPORTS / "index.html"
    return {
        "agents": [entry | _scores(root, entry, lines, locked) for entry in [*random, *agents]],
        "recordings": recordings,
        "world_models": models,
        "missing": list(dict.fromkeys(stage["made_by"] for stage in stages if not stage["made"])),
        "report": str(page) if page.is_file() else None,
        "several": [str(page) for page in sorted((root / REPLICAS).glob(f"*/{REPLICAS_PAGE}"))],
    }


def overview_text(found: Mapping[str, Any]) -> str:
    """Return ``overview`` as text: scores and how they stand, hashes of every stage, what is missing."""
    if not found["agents"]:
        return "Nothing here: no agents in params.yaml, no artifacts. `wm preset quick` writes params, `make repro` runs."
    parts = _standing(found)
    parts += [_hashes(found["recordings"], "recording", "recordings")] if found["recordings"] else []
    parts += [_hashes(found["world_models"], "world model", "world_models")] if found["world_models"] else []
    parts.append(_hashes(found["agents"], "agent", "environments", "agents") + "\n(md5 in dvc.lock; -: not made)")
    parts += [f"Presets with several seeds: {', '.join(found['several'])}"] if found["several"] else []
    missing = [f"  {command}" for command in found["missing"]]
    if len(missing) > MISSING_SHOWN:
        missing[MISSING_SHOWN:] = [f"  and {len(missing) - MISSING_SHOWN} more"]
    parts.append("\n".join(["missing (`make repro` makes all):", *missing]) if missing else "Nothing is missing.")
    return "\n\n".join(parts)


def next_steps_text(found: Mapping[str, Any]) -> str:
    """Return how a run went, and three commands to try next, which a shell in this folder takes as they are."""
    games = by_game(_scored(found))
    if not games:
        return "Next: `make repro` runs the pipeline; `wm doctor` checks this machine."
    first, last = (best_agent(games[which])["key"] for which in (0, -1))
    page = f"open {found['report']} in a browser" if found["report"] else f"`dvc repro report` makes {REPORTS / 'index.html'}"
    wm = _wm()
    steps = [
        (f"{wm} play {first}", "play inside its dream, in a browser"),
        (f"{wm} evaluate {last} --episodes 10 --video {last}.mp4", "let it play the real game, and film it"),
        (f"{wm} track ui", "MLflow: compare runs, curves, registered agents"),
    ]
    width = max(len(command) for command, _ in steps)
    lines = [f"Films, figures and all agents on one page: {page}.", "Three commands to try next:"]
    lines += [f"  {command.ljust(width)}  # {why}" for command, why in steps]
    return "\n\n".join([*_standing(found), "\n".join(lines)])


def _wm() -> str:
    """Return how a shell calls this program: by its path, if it lies in a virtual environment that is not active."""
    own = Path(sys.prefix) / "bin" / "wm"
    if sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix or not own.is_file():
        return "wm"
    return shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))


def _standing(found: Mapping[str, Any]) -> list[str]:
    """Return the tables of scores, a sentence on the best agent of each game, and what is not to be trusted."""
    scored = _scored(found)
    parts = [render(scored)] if scored else []
    parts += ["\n".join(f"{title(own[0]['rules'])}: {headline(best_agent(own))}" for own in by_game(scored))] if scored else []
    changed = ", ".join(entry["key"] for entry in found["agents"] if entry["changed"])
    if changed:
        parts.append(
            f"CHANGED since they were made, so do not trust the scores above: {changed}. `dvc repro` makes them again."
        )
    return parts


def _scored(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry["scores"] for entry in found["agents"] if entry["scores"] and "evaluate" in entry["stages"]]


def _lines(written: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    """Return the lines of ``world_models`` or ``agents`` by key, if they are some: params need not be valid to be shown."""
    lines = written.get(section)
    usable = lines.items() if isinstance(lines, dict) else ()
    return {key: line for key, line in usable if isinstance(line, dict) and isinstance(key, str) and re.fullmatch(KEY, key)}


def _entry(root: Path, key: str, line: Mapping[str, Any], section: str, locked: Mapping[str, str]) -> dict[str, Any]:
    named, stages = line.get("env"), {}
    for stage in (stage for stage, own in STAGES.items() if own == section):
        path = primary_out(stage, key)
        about = {"path": path.as_posix(), "md5": locked.get(path.as_posix()), "made_by": command_for(path)}
        stages[stage] = {"made": (root / path).exists(), **about}
    environment = named if isinstance(named, str) and re.fullmatch(KEY, named) else key.partition("-")[0]
    return {"key": key, "environment": environment, "stages": stages}


def _scores(
    root: Path, entry: Mapping[str, Any], lines: Mapping[str, Mapping[str, Any]], locked: Mapping[str, str]
) -> dict[str, Any]:
    """Return study, scores and changed of an agent, or of a random policy."""
    path, scores, changed = AgentFiles(entry["key"], root).scores, None, False
    if path.is_file():
        scores = read_scores(path)
        md5 = artifact_hash(path)
        changed = locked.get(path.relative_to(root).as_posix(), md5) != md5
    study = (scores or lines.get(entry["key"], {})).get("study")
    return {"study": None if study in (None, NO_STUDY) else str(study), "scores": scores, "changed": changed}


def _hashes(entries: Iterable[Mapping[str, Any]], title: str, *sections: str) -> str:
    stages = [stage for stage, section in STAGES.items() if section in sections]
    return align([(title, *stages), *((entry["key"], *(_hash(entry, stage) for stage in stages)) for entry in entries)])


def _hash(entry: Mapping[str, Any], name: str) -> str:
    stage = entry["stages"].get(name)
    if stage is None:
        return ""  # the random policy has no C; later agents are not initialised
    if not stage["made"]:
        return "-"
    if entry.get("changed") and name in ("initialise", "evaluate"):
        return "CHANGED"
    return str(stage["md5"])[:7] if stage["md5"] else "no lock"
