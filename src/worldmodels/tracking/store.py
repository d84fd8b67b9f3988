"""Where tracking goes: ``MLFLOW_TRACKING_URI``, or a database in the project's folder."""

import http.client
import logging
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.tracking.places import FILES, files_of, mend

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "worldmodels"
TIMEOUT = 3.0
"""Seconds that an MLflow server has to give a sign of life."""


class StoreError(WorldModelsError):
    """An MLflow store that cannot be used."""


def project_root() -> Path:
    """Return the project's folder: ``DVC_ROOT`` (set inside stages), else the nearest parent that holds dvc.yaml."""
    given = os.environ.get("DVC_ROOT")
    if given:
        return Path(given)
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here)


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def reason_of(error: Exception) -> str:
    """Return what an error says, on one line, without passwords and without the SQL that it stopped at."""
    told = " ".join(str(error).partition("\n[SQL:")[0].split())
    return redact(told or type(error).__name__)


def redact(text: str) -> str:
    """Return a text without the names and passwords of the URIs in it.

    >>> redact("cannot open postgresql://wm:s/cr@t@db:5432/mlflow")
    'cannot open postgresql://***@db:5432/mlflow'
    """
    return re.sub(r"://\S*@", "://***@", text)


def connect(root: Path) -> "tuple[MlflowClient, str] | None":
    """Return what ``open_store`` does; None, and one warning on stderr, if the store cannot be used."""
    try:
        return open_store(root)
    except StoreError as error:
        print(f"warning: {error} The results do not need it: `wm track sync` delivers this run later.", file=sys.stderr)
        return None


def open_store(root: Path) -> "tuple[MlflowClient, str]":
    """Return a client and the experiment's id.

    Several processes that touch a fresh database at once would corrupt it: it is made under a lock. If the project's folder
    was moved, the addresses in its database are mended; if the experiment was deleted in MLflow, it is restored.

    Raises:
        StoreError: the store cannot be used.
    """
    uri = tracking_uri(root)
    problem = _unreachable(uri)
    if problem is None:
        try:
            return _open(root, uri)
        except Exception as error:  # whatever a store raises, a stage must not fail because of it
            problem = f"{type(error).__name__}: {reason_of(error)}"
    raise StoreError(f"MLflow at {redact(uri)} cannot be used ({redact(problem)}).")


@contextmanager
def opened(root: Path) -> "Iterator[tuple[MlflowClient, str]]":
    """Open the store for a command.

    Raises:
        StoreError: one message if it cannot be used, or fails while the block runs.
    """
    try:
        client, experiment = open_store(root)
    except StoreError as error:
        raise StoreError(f"{error} {_advice(root)}") from None
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield client, experiment
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(f"MLflow at {redact(tracking_uri(root))} refused or failed: {reason_of(error)}") from None


def require_store(root: Path) -> None:
    """Check that a local store exists: to open one that does not would make it.

    Raises:
        ArtifactError: it does not exist.
    """
    file = sqlite_file(tracking_uri(root))
    if file is not None and not file.exists():
        raise ArtifactError(f"{file.name} does not exist. `make repro` trains and registers; `wm track sync` rebuilds it.")


def _advice(root: Path) -> str:
    file = sqlite_file(tracking_uri(root))
    if file is None:
        return "Start its server, or unset MLFLOW_TRACKING_URI, and try again."
    return (
        f"If the file is damaged, restore it from a backup; or move it away: `wm track sync` makes a new {file.name} "
        "of dvc.lock, without a champion."
    )


def _open(root: Path, uri: str) -> "tuple[MlflowClient, str]":
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Else a server that dies in the middle of a run holds the stage for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow.system_metrics", "mlflow.store.model_registry"):
        logging.getLogger(name).setLevel(logging.WARNING)
    file = sqlite_file(uri)
    with lock(root):
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            place = (root / FILES).resolve().as_uri() if file is not None else None
            return client, client.create_experiment(EXPERIMENT, artifact_location=place)
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
            print(f"note: the experiment `{EXPERIMENT}` was deleted in MLflow: it is restored.", file=sys.stderr)
        # A database elsewhere may be shared by several projects: its files are where the first one put them.
        own = file is not None and file.parent.resolve() == root.resolve()
        if own and file is not None and _moved(found.artifact_location, files_of(file)):
            mend(file, found.artifact_location)
            print(f"note: the project was moved: MLflow's files are those in {file.parent / FILES} now.", file=sys.stderr)
    return client, found.experiment_id


def _moved(place: str, here: str) -> bool:
    """Return whether files of an experiment are in a folder of this project's kind that is not this one."""
    return place.startswith("file:") and place.endswith(f"/{FILES}") and place != here


def lock(root: Path) -> FileLock:
    """Return the lock of this project's tracking: one process at a time makes a store, or mirrors dvc.lock into it."""
    return FileLock(root / ".mlflow.lock", timeout=120)


def _unreachable(uri: str) -> str | None:
    """Return why a server does not answer within ``TIMEOUT`` seconds; None if it does, and for databases.

    MLflow itself would try for minutes.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a knock: nothing is sent, nothing is believed
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health").geturl()
    try:
        urllib.request.urlopen(address, timeout=TIMEOUT, context=context).close()
    except urllib.error.HTTPError:
        return None  # it answers; whether it lets us in is between it and MLflow
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error)
    return None
