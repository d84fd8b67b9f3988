"""The registry: a version of ``worldmodels-<environment>`` for every iteration, with its lineage."""

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
from worldmodels.engine.agent import load_agent

PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")


def model_name(environment: str) -> str:
    """Return the name of an environment's registered model."""
    return f"worldmodels-{environment}"


def find_version(client: MlflowClient, name: str, fingerprint: str) -> str | None:
    """Return the version that was made of the iteration with this fingerprint."""
    for found in client.search_model_versions(f"name='{name}'"):
        if found.tags.get("wm.fingerprint") == fingerprint:
            return str(found.version)
    return None


def register(client: MlflowClient, run_id: str, folder: Path, scores: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Log an agent's folder as a model of a run and register it; return the version."""
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
            artifacts={"agent": str(folder)},
            code_paths=[str(_acting_code(Path(place)))],
            signature=_signature(folder),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in PACKAGES],
        )
    made = client.create_model_version(
        name, logged.model_uri, run_id, dict(tags), description=model_card(scores), model_id=logged.model_id
    )
    return str(made.version)


def set_aliases(client: MlflowClient, environment: str, versions: Mapping[int, str]) -> None:
    """Point ``iteration-<k>`` at each iteration's version, and ``candidate`` at the last."""
    name = model_name(environment)
    wanted = {f"iteration-{number}": each for number, each in versions.items()}
    wanted["candidate"] = versions[max(versions)]
    present = client.get_registered_model(name).aliases
    for alias, each in wanted.items():
        if str(present.get(alias)) != each:
            client.set_registered_model_alias(name, alias, each)


def model_card(scores: Mapping[str, Any]) -> str:
    """Return a version's description: what it is, how good, how to load it."""

    def line(label: str, world: Mapping[str, Any] | None) -> str:
        return f"| {label} | {world['mean']:.1f} ± {world['stderr']:.1f} | {world['n']} |\n" if world else ""

    name, number = model_name(scores["environment"]), scores["iteration"]
    return (
        f"# {scores['environment']}, iteration {number}\n\n"
        f"Trained with preset `{scores['preset']}`; tested under `{scores['rules']}` on {scores['backend']}.\n\n"
        "| episodes | mean return ± standard error | n |\n|---|---|---|\n"
        + line("real, test seeds", scores["real"])
        + line(f"dream, temperature {scores['temperature']:g}", scores["dream"])
        + line("random policy, test seeds", scores["baseline"])
        + f'\n```python\nagent = mlflow.pyfunc.load_model("models:/{name}@iteration-{number}")\n'
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
    agent = load_agent(folder)
    memory = TensorSpec(np.dtype(np.float32), (-1, 2 * agent.memory.config.hidden), "memory")
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 64, 64, 3), "frame"), memory]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, agent.memory.action), "action"), memory]),
    )


def _acting_code(place: Path) -> Path:
    """Copy the package without what only watches."""
    source = Path(str(worldmodels.__file__)).parent
    unused = shutil.ignore_patterns("__pycache__", "tracking", "report", "cli*.py", "doctor.py", "project.py")
    return Path(shutil.copytree(source, place / "worldmodels", ignore=unused))
