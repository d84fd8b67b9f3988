"""The registry: a version of ``worldmodels-<environment>`` for every agent of dvc.lock that is evaluated, with its lineage.

A version is complete in itself: the agent, the returns of its test episodes (``returns.parquet``, so that the registry alone
suffices to compare two versions) and, if it was filmed, a picture for its description.
"""

import hashlib
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.logging_utils import suppress_logs_in_thread

import worldmodels
from worldmodels.report.table import read_scores
from worldmodels.storage.layout import AgentFiles
from worldmodels.tracking.dvclock import NO_STUDY, Entry
from worldmodels.tracking.store import PREFIX

if TYPE_CHECKING:
    from worldmodels.tracking.sync import Mirror

PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases of the last agent without a study, and of the version that passed the gate (``tracking/release.py``)."""
FILES = "artifacts"
RETURNS, PICTURE = f"{FILES}/returns.parquet", f"{FILES}/dream.png"
"""Where a version's files lie in its model."""
TOLD = ("key", "world_model", "controller", "study", "preset", "seed", "controller_seed", "rules", "backend", "block")
"""What of metrics/<key>.json is a tag of the version."""


def alias_of(key: str) -> str:
    """Return the alias of an agent: its key, unless MLflow or the gate has that name for something else.

    >>> alias_of("doom-2-game"), alias_of("v2"), alias_of("champion")
    ('doom-2-game', 'agent-v2', 'agent-champion')
    """
    taken = re.fullmatch(rf"latest|[vV]\d+|{CANDIDATE}|{CHAMPION}", key, re.IGNORECASE)
    return f"agent-{key}" if taken else key


def register_agents(mirror: "Mirror") -> None:
    """Make sure that every agent has its version, and that the aliases point at the versions of this dvc.lock."""
    client, known = mirror.runs.client, mirror.known
    chain: dict[str, dict[str, str]] = {}  # environment -> key -> version, without studies
    studies: dict[str, list[str]] = {}
    for world_model in known.world_models():
        for key in known.agents(world_model):
            evaluate = known.get("evaluate", key)
            if evaluate is None or "env" not in evaluate.about:
                continue
            environment = str(evaluate.about["env"])
            lineage = known.lineage(world_model) | {"wm.agent": known.hashes[AgentFiles(key).agent.as_posix()]}
            told = json.dumps([sorted(lineage.items()), sorted(evaluate.outs.items())])
            lineage["wm.fingerprint"] = hashlib.sha256(told.encode()).hexdigest()
            number, lost = _find_version(client, PREFIX + environment, lineage["wm.fingerprint"])
            if number is None:
                number = _register(mirror, mirror.parents[world_model], evaluate, lineage)
                mirror.report.versions_added += number is not None
            for each in lost:
                again = f": it is registered again as version {number}" if number else ""
                mirror.report.notes.append(f"the files of {PREFIX}{environment}/{each} ({key}) are gone{again}")
            if evaluate.about.get("study") != NO_STUDY:
                studies.setdefault(environment, []).append(key)
            elif number is not None:
                chain.setdefault(environment, {})[key] = number
    for environment in chain.keys() | studies.keys():
        set_aliases(client, environment, chain.get(environment, {}), studies.get(environment, []))
        name = PREFIX + environment
        champion = next((model.aliases.get(CHAMPION) for model in client.search_registered_models(f"name='{name}'")), None)
        if champion and not _has_files(name, str(champion)):
            way = f"`wm registry rollback {environment}` goes back to the one before, or, with --retire, to none"
            mirror.report.notes.append(f"the files of {name}/{champion}, the champion, are gone: {way}")


def _find_version(client: MlflowClient, name: str, fingerprint: str) -> tuple[str | None, list[str]]:
    """Return the version of the agent with this fingerprint whose files are there, and those whose files are gone."""
    lost = []
    for found in sorted(client.search_model_versions(f"name='{name}'"), key=lambda each: -int(each.version)):
        if found.tags.get("wm.fingerprint") == fingerprint:
            if _has_files(name, str(found.version)):
                return str(found.version), []
            lost.append(str(found.version))
    return None, lost


def _has_files(name: str, version: str) -> bool:
    try:
        there = mlflow.artifacts.list_artifacts(f"models:/{name}/{version}/{FILES}")
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        return False
    return RETURNS in {file.path for file in there}


def _register(mirror: "Mirror", run_id: str, evaluate: Entry, lineage: Mapping[str, str]) -> str | None:
    """Register an agent if its files are as dvc.lock says; return the version."""
    files, film = AgentFiles(evaluate.key), mirror.known.get("film", evaluate.key)
    scores, agent, returns = (mirror.on_disk(path.as_posix()) for path in (files.scores, files.agent, files.returns))
    if scores is None or agent is None or returns is None:
        return None
    parts = {"agent": agent, "returns": returns}
    drawn = mirror.on_disk(film.primary) if film is not None else None
    if drawn is not None and (drawn / files.filmstrip.name).is_file():
        parts["picture"] = drawn / files.filmstrip.name
    return register(mirror.runs.client, run_id, parts, read_scores(scores), {**lineage, **mirror.git})


def register(
    client: MlflowClient, run_id: str, parts: Mapping[str, Path], scores: Mapping[str, Any], lineage: Mapping[str, str]
) -> str:
    """Log an agent as a model of a run and register it; return the version.

    Args:
        client: of the registry.
        run_id: its iteration's run.
        parts: ``agent`` (a folder), ``returns`` (the table of its test episodes), ``picture`` (if there is one).
        scores: what metrics/<key>.json holds.
        lineage: tags that say what it is made of.
    """
    name = PREFIX + scores["environment"]
    try:
        client.create_registered_model(name, description=f"V, M and C for {scores['environment']}: a version for every agent.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with (
        suppress_logs_in_thread(),  # what is deliberate: no input example, no type hints, requirements given by hand
        warnings.catch_warnings(record=True),  # recorded, because MLflow sets filters of its own
        tempfile.TemporaryDirectory() as place,
        mlflow.start_run(run_id=run_id, nested=True),
    ):
        logged = mlflow.pyfunc.log_model(
            name="agent",
            python_model=str(Path(__file__).with_name("agent_model.py")),
            artifacts={label: str(_plain(path, Path(place) / "parts")) for label, path in parts.items()},
            code_paths=[str(_acting_code(Path(place)))],
            signature=_signature(parts["agent"]),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in PACKAGES],
        )
    tags = {f"wm.{told}": str(scores[told]) for told in TOLD} | dict(lineage)
    for world in ("real", "dream", "random"):
        tags |= {f"{world}.{told}": f"{scores[world][told]:g}" for told in ("mean", "stderr", "n") if scores[world]}
    made = client.create_model_version(name, logged.model_uri, run_id, tags, model_id=logged.model_id)
    card = model_card(scores, str(made.version), drawn="picture" in parts)
    client.update_model_version(name, made.version, card)  # afterwards, as it holds the version
    return str(made.version)


def set_aliases(client: MlflowClient, environment: str, versions: Mapping[str, str], studies: Sequence[str] = ()) -> None:
    """Point the alias of each agent at its version, and ``candidate`` at the last; agents of studies have no alias."""
    name = PREFIX + environment
    wanted = {alias_of(key): each for key, each in versions.items()}
    if versions:
        wanted[CANDIDATE] = list(versions.values())[-1]
    present: Mapping[str, str] = next((model.aliases for model in client.search_registered_models(f"name='{name}'")), {})
    for alias, each in wanted.items():
        if str(present.get(alias)) != each:
            client.set_registered_model_alias(name, alias, each)
    for alias in {alias_of(key) for key in studies} & set(present):
        client.delete_registered_model_alias(name, alias)


def model_card(scores: Mapping[str, Any], version: str, *, drawn: bool) -> str:
    """Return a version's description in Markdown: what it is, how good, a picture, how to load it.

    The picture's address is relative to MLflow's pages, which serve it.
    """

    def line(label: str, world: Mapping[str, Any] | None) -> str:
        return f"| {label} | {world['mean']:.1f} ± {world['stderr']:.1f} | {world['n']} |\n" if world else ""

    name, blind, dream = PREFIX + scores["environment"], scores["blind"], scores["dream"]
    temperature = f"temperature {dream['temperature']:g}" if dream else ""
    episodes = f"{scores['block']} seeds"
    study = "" if scores["study"] == "none" else f" It belongs to the study `{scores['study']}`."
    address = f"model-versions/get-artifact?path={PICTURE}&name={name}&version={version}"
    return (
        f"# {scores['key']}, an agent for {scores['environment']}\n\n"
        f"World model `{scores['world_model']}`, controller `{scores['controller']}`.{study} "
        f"Trained with preset `{scores['preset']}`; tested under `{scores['rules']}` on {scores['backend']}.\n\n"
        "| episodes | mean return ± standard error | n |\n|---|---|---|\n"
        + line(f"real, {episodes}", scores["real"])
        + line(f"dream, {temperature}", dream)
        + line(f"random policy, {episodes}", scores["random"])
        + (line(f"best policy that does not look ({blind['policy']}), {episodes}", blind) if blind else "")
        + (f"\n![What it sees and what it dreams]({address})\n\nAn episode, the same through V, and dreams.\n" if drawn else "")
        + f"\n```sh\nwm evaluate models:/{name}/{version}\n"
        f"mlflow models serve -m models:/{name}/{version} --env-manager local --port 5001\n```\n\n"
        f'```python\nagent = mlflow.pyfunc.load_model("models:/{name}/{version}")\n'
        'out = agent.predict({"frame": frames, "memory": memory})  # memory: zeros at first, then out["memory"]\n```\n'
    )


def _signature(folder: Path) -> ModelSignature:
    from worldmodels.agent.agent import load_agent  # here: `wm registry` does not wait for torch

    agent = load_agent(folder)
    memory = TensorSpec(np.dtype(np.float32), (-1, agent.memory.state_size), "memory")
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 64, 64, 3), "frame"), memory]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, agent.memory.action), "action"), memory]),
    )


def _plain(path: Path, place: Path) -> Path:
    """Return a copy of a file or folder without links, of its name: MLflow takes no links into DVC's cache."""
    copy = place / path.name
    copy.parent.mkdir(exist_ok=True)
    return Path(shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy))


def _acting_code(place: Path) -> Path:
    """Copy the package without what only watches."""
    source = Path(str(worldmodels.__file__)).parent
    unused = shutil.ignore_patterns("__pycache__", "tracking", "report", "cli", "play")
    return Path(shutil.copytree(source, place / "worldmodels", ignore=unused))
