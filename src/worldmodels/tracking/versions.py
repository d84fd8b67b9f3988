"""A version in the registry for every agent of dvc.lock that is evaluated."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from worldmodels.storage.files import read_json
from worldmodels.storage.layout import AgentFiles, WorldModelFiles
from worldmodels.tracking.dvclock import DvcLock, Entry
from worldmodels.tracking.registry import find_version, model_name, register, set_aliases
from worldmodels.tracking.sync import LINEAGE, NO_STUDY


def register_agents(
    client: MlflowClient,
    known: DvcLock,
    parents: Mapping[str, str],
    on_disk: Callable[[str], Path | None],
    git: Mapping[str, str],
) -> tuple[int, list[str]]:
    """Make sure that every agent has its version, and that the aliases point at the versions of this dvc.lock.

    Args:
        client: of the registry.
        known: what dvc.lock says.
        parents: world model -> id of its iteration's run.
        on_disk: path in dvc.lock -> that file, if it is there.
        git: tags of the code.

    Returns:
        How many versions were added, and notes.
    """
    added, notes = 0, list[str]()
    chain: dict[str, dict[str, str]] = {}  # environment -> key -> version, without studies
    studies: dict[str, list[str]] = {}
    for world_model in known.world_models():
        for key in known.agents(world_model):
            evaluate = known.get("evaluate", key)
            about = {} if evaluate is None else known.about(evaluate)
            if evaluate is None or "env" not in about:
                continue
            environment = str(about["env"])
            lineage = _lineage(known, world_model, key)
            fingerprint = _fingerprint(lineage, evaluate)
            version, lost = find_version(client, model_name(environment), fingerprint)
            if version is None:
                version = _register(client, known, parents[world_model], evaluate, on_disk, {**lineage, **git}, fingerprint)
                added += version is not None
            notes += [
                f"the files of {model_name(environment)}/{each} ({key}) are gone"
                + (f": it is registered again as version {version}" if version else "")
                for each in lost
            ]
            if about.get("study") != NO_STUDY:
                studies.setdefault(environment, []).append(key)
            elif version is not None:
                chain.setdefault(environment, {})[key] = version
    for environment in chain.keys() | studies.keys():
        set_aliases(client, environment, chain.get(environment, {}), studies.get(environment, []))
    return added, notes


def _register(
    client: MlflowClient,
    known: DvcLock,
    run_id: str,
    evaluate: Entry,
    on_disk: Callable[[str], Path | None],
    lineage: Mapping[str, str],
    fingerprint: str,
) -> str | None:
    files, film = AgentFiles(evaluate.key), known.get("film", evaluate.key)
    scores, agent, returns = (on_disk(path.as_posix()) for path in (files.scores, files.agent, files.returns))
    if scores is None or agent is None or returns is None:
        return None
    parts = {"agent": agent, "returns": returns}
    drawn = on_disk(film.primary) if film is not None else None
    if drawn is not None and (drawn / files.filmstrip.name).is_file():
        parts["picture"] = drawn / files.filmstrip.name
    told = read_json(scores)
    return register(client, run_id, parts, told, version_tags(told) | dict(lineage) | {"wm.fingerprint": fingerprint})


def version_tags(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return what a version's tags say of an agent: what it is, where it was tested, its scores."""
    names = ("key", "world_model", "controller", "study", "preset", "seed", "controller_seed", "rules", "backend", "block")
    tags = {f"wm.{name}": str(scores[name]) for name in names}
    for world in ("real", "dream", "random"):
        tags |= {f"{world}.{name}": f"{scores[world][name]:g}" for name in ("mean", "stderr", "n") if scores[world]}
    return tags


def _lineage(known: DvcLock, world_model: str, key: str) -> dict[str, str]:
    """Return the hashes of what an agent is made of, and its own."""
    folder = WorldModelFiles(world_model).folder.as_posix()
    hashes = {f"wm.{name}": known.hashes[f"{folder}/{file}"] for name, file in LINEAGE.items()}
    return hashes | {"wm.agent": known.hashes[AgentFiles(key).agent.as_posix()]}


def _fingerprint(lineage: Mapping[str, str], evaluate: Entry) -> str:
    told = [sorted(lineage.items()), sorted(evaluate.outs.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
