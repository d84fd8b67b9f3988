"""The registry: a version of ``worldmodels-<environment>`` for every iteration, with its lineage.

A version is complete in itself: the agent, the returns of its test episodes (``returns.parquet``, so that the registry alone
suffices to compare two versions) and a picture for its description.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

import worldmodels

PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases: of the last iteration, and of the version that passed the gate (``tracking/release.py``)."""
RETURNS, PICTURE = "artifacts/returns.parquet", "artifacts/dream.png"
"""Where a version's files lie in its model."""


def model_name(environment: str) -> str:
    """Return the name of an environment's registered model."""
    return f"worldmodels-{environment}"


def find_version(client: MlflowClient, name: str, fingerprint: str) -> str | None:
    """Return the version that was made of the iteration with this fingerprint."""
    for found in client.search_model_versions(f"name='{name}'"):
        if found.tags.get("wm.fingerprint") == fingerprint:
            return str(found.version)
    return None


def register(
    client: MlflowClient, run_id: str, parts: Mapping[str, Path], scores: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Log an iteration as a model of a run and register it; return the version.

    Args:
        client: of the registry.
        run_id: the iteration's run.
        parts: ``agent`` (a folder), ``returns`` (the table of its test episodes), ``picture``.
        scores: what scores.json holds.
        tags: its lineage.
    """
    name = model_name(scores["environment"])
    try:
        client.create_registered_model(name, description=f"V, M and C for {scores['environment']}: one version an iteration.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with _quiet(), tempfile.TemporaryDirectory() as place, mlflow.start_run(run_id=run_id, nested=True):
        logged = mlflow.pyfunc.log_model(
            name="agent",
            python_model=str(Path(__file__).with_name("agent_model.py")),
            artifacts={label: str(path) for label, path in parts.items()},
            code_paths=[str(_acting_code(Path(place)))],
            signature=_signature(parts["agent"]),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in PACKAGES],
        )
    made = client.create_model_version(name, logged.model_uri, run_id, dict(tags), model_id=logged.model_id)
    client.update_model_version(name, made.version, model_card(scores, str(made.version)))  # which holds the version
    return str(made.version)


def set_aliases(client: MlflowClient, environment: str, versions: Mapping[int, str]) -> None:
    """Point ``iteration-<k>`` at each iteration's version, and ``candidate`` at the last."""
    name = model_name(environment)
    wanted = {f"iteration-{number}": each for number, each in versions.items()}
    wanted[CANDIDATE] = versions[max(versions)]
    present = client.get_registered_model(name).aliases
    for alias, each in wanted.items():
        if str(present.get(alias)) != each:
            client.set_registered_model_alias(name, alias, each)


def model_card(scores: Mapping[str, Any], version: str) -> str:
    """Return a version's description in Markdown: what it is, how good, a picture, how to load it.

    The picture's address is relative to MLflow's pages, which serve it.
    """

    def line(label: str, world: Mapping[str, Any] | None) -> str:
        return f"| {label} | {world['mean']:.1f} ± {world['stderr']:.1f} | {world['n']} |\n" if world else ""

    name, blind = model_name(scores["environment"]), scores.get("blind")
    temperature = f"temperature {scores['temperature']:g}"
    return (
        f"# {scores['environment']}, iteration {scores['iteration']}\n\n"
        f"Trained with preset `{scores['preset']}`; tested under `{scores['rules']}` on {scores['backend']}.\n\n"
        "| episodes | mean return ± standard error | n |\n|---|---|---|\n"
        + line("real, test seeds", scores["real"])
        + line(f"dream, {temperature}", scores["dream"])
        + line("random policy, test seeds", scores["baseline"])
        + (line(f"best policy that does not look ({blind['policy']}), test seeds", blind) if blind else "")
        + f"\n![What it sees and what it dreams](model-versions/get-artifact?path={PICTURE}&name={name}&version={version})\n\n"
        f"A test episode, the same through V, and dreams at {temperature}.\n\n"
        f"```sh\nwm evaluate models:/{name}/{version}\n"
        f"mlflow models serve -m models:/{name}/{version} --env-manager local --port 5001\n```\n\n"
        f'```python\nagent = mlflow.pyfunc.load_model("models:/{name}/{version}")\n'
        'out = agent.predict({"frame": frames, "memory": memory})  # memory: zeros at first, then out["memory"]\n```\n'
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice on what is deliberate here: no input example, no type hints, requirements given by hand."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True):  # recorded, because MLflow sets filters of its own
            yield
    finally:
        logger.setLevel(level)


def _signature(folder: Path) -> ModelSignature:
    from worldmodels.agent.agent import load_agent  # here: `wm registry` does not wait for torch

    agent = load_agent(folder)
    memory = TensorSpec(np.dtype(np.float32), (-1, agent.memory.state_size), "memory")
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 64, 64, 3), "frame"), memory]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, agent.memory.action), "action"), memory]),
    )


def _acting_code(place: Path) -> Path:
    """Copy the package without what only watches."""
    source = Path(str(worldmodels.__file__)).parent
    unused = shutil.ignore_patterns("__pycache__", "tracking", "report", "cli*.py", "doctor.py", "project.py")
    return Path(shutil.copytree(source, place / "worldmodels", ignore=unused))
