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
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, Metric
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.logging_utils import suppress_logs_in_thread
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

import worldmodels
from worldmodels.report.table import markdown, paper, read_scores, score_text
from worldmodels.report.verdict import headline
from worldmodels.storage.layout import NO_STUDY, AgentFiles
from worldmodels.tracking.dvclock import Entry
from worldmodels.tracking.points import TEST
from worldmodels.tracking.runs import EVALUATION, NOTE, data_set
from worldmodels.tracking.store import PREFIX

if TYPE_CHECKING:
    from worldmodels.tracking.sync import Mirror

PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases of the last agent that may be released, and of the version that passed the gate (``tracking/release.py``)."""
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


def bar_of(version: ModelVersion) -> str:
    """Return why a version is compared only, and never has an alias; nothing if it may be released."""
    study, block = version.tags.get("wm.study", NO_STUDY), version.tags.get("wm.block", TEST)
    if study != NO_STUDY:
        how = "Name its recipe by an agent with `study: none` to release it."
        return f"belongs to the study `{study}`, which only compares. {how}"
    if block != TEST:
        return f"played {block} episodes, which only compare recipes. Evaluate it with `block: {TEST}` to release it."
    return ""


def register_agents(mirror: "Mirror") -> None:
    """Make sure that every agent of a game has its version, and that the aliases point at the versions of this dvc.lock."""
    client, known = mirror.runs.client, mirror.known
    found: dict[str, ModelVersion] = {}
    environment = ""
    for world_model in known.world_models():
        for key in known.agents(world_model):
            evaluate = known.get("evaluate", key)
            if evaluate is None:
                continue
            environment = evaluate.env
            lineage = known.lineage(world_model) | {"wm.agent": known.hashes[AgentFiles(key).agent.as_posix()]}
            told = json.dumps([sorted(lineage.items()), sorted(evaluate.outs.items())])
            lineage["wm.fingerprint"] = hashlib.sha256(told.encode()).hexdigest()
            version, lost = _find_version(client, PREFIX + environment, lineage["wm.fingerprint"])
            if version is None:
                version = _register(mirror, mirror.parents[world_model], evaluate, lineage)
                mirror.report.versions_added += version is not None
            for each in lost:
                again = f": it is registered again as version {version.version}" if version else ""
                mirror.report.notes.append(f"the files of {PREFIX}{environment}/{each} ({key}) are gone{again}")
            if version is not None:
                found[key] = version
    if found:
        chain = {key: str(version.version) for key, version in found.items() if not bar_of(version)}
        set_aliases(client, environment, chain, found.keys() - chain.keys())
        gone = lost_champion(client.get_registered_model(PREFIX + environment))
        mirror.report.notes += [gone] if gone else []


def lost_champion(model: RegisteredModel) -> str:
    """Return a sentence on the champion of a model if its files are gone, with what to do; nothing if they are there."""
    champion = model.aliases.get(CHAMPION)
    if not champion or _has_files(model.name, str(champion)):
        return ""
    way = f"`wm registry rollback {model.name.removeprefix(PREFIX)}` goes back to the one before, or, with --retire, to none"
    return f"the files of {model.name}/{champion}, the champion, are gone: {way}"


def _find_version(client: MlflowClient, name: str, fingerprint: str) -> tuple[ModelVersion | None, list[str]]:
    """Return the version of the agent with this fingerprint whose files are there, and those whose files are gone."""
    lost = []
    for found in sorted(client.search_model_versions(f"name='{name}'"), key=lambda each: -int(each.version)):
        if found.tags.get("wm.fingerprint") == fingerprint:
            if _has_files(name, str(found.version)):
                return found, []
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


def _register(mirror: "Mirror", run_id: str, evaluate: Entry, lineage: Mapping[str, str]) -> ModelVersion | None:
    """Register an agent if its files are as dvc.lock says; return the version."""
    files, film = AgentFiles(evaluate.key), mirror.known.get("film", evaluate.key)
    scores, agent, returns = (mirror.on_disk(path.as_posix()) for path in (files.scores, files.agent, files.returns))
    if scores is None or agent is None or returns is None:
        return None
    parts = {"agent": agent, "returns": returns}
    drawn = mirror.on_disk(film.primary) if film is not None else None
    if drawn is not None and (drawn / files.filmstrip.name).is_file():
        parts["picture"] = drawn / files.filmstrip.name
    return register(
        mirror.runs.client, run_id, parts, read_scores(scores), {**lineage, **mirror.git}, mirror.tests[evaluate.key]
    )


def register(
    client: MlflowClient,
    run_id: str,
    parts: Mapping[str, Path],
    scores: Mapping[str, Any],
    lineage: Mapping[str, str],
    tested: str,
) -> ModelVersion:
    """Log an agent as a model of a run and register it; return the version.

    Args:
        client: of the registry.
        run_id: its iteration's run.
        parts: ``agent`` (a folder), ``returns`` (the table of its test episodes), ``picture`` (if there is one).
        scores: what metrics/<key>.json holds.
        lineage: tags that say what it is made of.
        tested: the run in which it was evaluated, whose metrics become the model's.
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
            name=scores["key"],
            step=1,  # not 0, at which the run has the scores of its last agent: MLflow would take them for this model's
            python_model=str(Path(__file__).with_name("agent_model.py")),
            artifacts={label: str(_plain(path, Path(place) / "parts")) for label, path in parts.items()},
            code_paths=[str(_acting_code(Path(place)))],
            signature=_signature(parts["agent"]),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in PACKAGES],
        )
    shown = {"score": scores["real"], "dream": scores["dream"], "blind": scores["blind"], "paper": paper(scores)}
    tags = {told: score_text(summary) for told, summary in shown.items()}
    tags |= {f"real.{told}": f"{scores['real'][told]:g}" for told in ("mean", "stderr", "n")}
    tags |= {f"wm.{told}": str(scores[told]) for told in TOLD} | dict(lineage)
    made = client.create_model_version(name, logged.model_uri, run_id, tags, model_id=logged.model_id)
    card = model_card(scores, str(made.version), drawn="picture" in parts)
    client.update_model_version(name, made.version, card)  # afterwards, as it holds the version
    _link(client, logged.model_id, tested, scores)
    versions = json.dumps([{"name": name, "version": str(made.version)}])  # MLflow's server says so, and its client does not
    client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: versions, NOTE: headline(scores)})
    return client.get_model_version(name, made.version)


def _link(client: MlflowClient, model: str, tested: str, scores: Mapping[str, Any]) -> None:
    """Make the metrics of an agent's test those of its model, by the episodes that were played."""
    first, last = scores["real"]["seeds"]
    rules = f"{scores['rules']} on {scores['backend']}, {scores['real']['n']} {scores['block']} episodes"
    source = {"rules": scores["rules"], "backend": scores["backend"], "seeds": [first, last]}
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:8]
    played = data_set(rules, digest, "episodes", source, EVALUATION)
    client.log_inputs(tested, [played], [LoggedModelInput(model)])
    names = [name for name in client.get_run(tested).data.metrics if not name.startswith("system/")]
    points = [client.get_metric_history(tested, name)[-1] for name in names]
    client.log_batch(
        tested, [Metric(each.key, each.value, each.timestamp, each.step, model, rules, digest, tested) for each in points]
    )


def set_aliases(client: MlflowClient, environment: str, versions: Mapping[str, str], others: Iterable[str] = ()) -> None:
    """Point the alias of each agent at its version, and ``candidate`` at the last; ``others`` have none."""
    name = PREFIX + environment
    wanted = {alias_of(key): each for key, each in versions.items()}
    if versions:
        wanted[CANDIDATE] = list(versions.values())[-1]
    present: Mapping[str, str] = next((model.aliases for model in client.search_registered_models(f"name='{name}'")), {})
    for alias, each in wanted.items():
        if str(present.get(alias)) != each:
            client.set_registered_model_alias(name, alias, each)
    for alias in {alias_of(key) for key in others} & set(present):
        client.delete_registered_model_alias(name, alias)


def model_card(scores: Mapping[str, Any], version: str, *, drawn: bool) -> str:
    """Return a version's description in Markdown: what it is, how good, a picture, how to load it.

    The picture's address is relative to MLflow's pages, which serve it.
    """

    def line(label: str, world: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
        return [(label, f"{world['mean']:.1f} ± {world['stderr']:.1f}", str(world["n"]))] if world else []

    name, blind, dream = PREFIX + scores["environment"], scores["blind"], scores["dream"]
    temperature = f"temperature {dream['temperature']:g}" if dream else ""
    episodes = f"{scores['block']} seeds"
    study = "" if scores["study"] == NO_STUDY else f" It belongs to the study `{scores['study']}`."
    lines = [
        ("episodes", "mean return ± standard error", "n"),
        *line(f"real, {episodes}", scores["real"]),
        *line(f"dream, {temperature}", dream),
        *line(f"random policy, {episodes}", scores["random"]),
        *(line(f"best policy that does not look ({blind['policy']}), {episodes}", blind) if blind else []),
    ]
    address = f"model-versions/get-artifact?path={PICTURE}&name={name}&version={version}"
    return (
        f"{headline(scores)}\n\nMean return of {scores['real']['n']} {scores['block']} episodes, which nothing was trained on. "
        f"World model `{scores['world_model']}`, controller `{scores['controller']}`.{study} "
        f"Trained with preset `{scores['preset']}`; tested under `{scores['rules']}` on {scores['backend']}.\n\n"
        f"{markdown(lines)}\n"
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
