"""Where tracking goes: ``MLFLOW_TRACKING_URI``, or a database in the project's folder."""

import logging
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from worldmodels.errors import ArtifactError, WorldModelsError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "worldmodels-"
"""Beginning of the name of a game's experiment and registered model; the environment's name follows."""
FILES = "mlartifacts"
"""The folder of files beside a database."""
TIMEOUT = 3
"""Seconds that an MLflow server has to give a sign of life."""
TALKATIVE = ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow.system_metrics", "mlflow.store.model_registry")
ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Table -> columns in which MLflow writes down, in full, where files are."""


class StoreError(WorldModelsError):
    """An MLflow store that cannot be used."""


def tracking_uri(root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').resolve()}"


def is_off() -> bool:
    """Return whether WM_TRACKING says that nothing is tracked."""
    return os.environ.get("WM_TRACKING", "").lower() in ("off", "0", "false")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def lock(root: Path) -> FileLock:
    """Return the lock of this project's tracking: one process at a time makes a store, or mirrors dvc.lock into it."""
    return FileLock(root / ".mlflow.lock", timeout=120)


def reason_of(error: Exception) -> str:
    """Return what an error says, on one line, without passwords and without the SQL that it stopped at."""
    return redact(" ".join(str(error).partition("\n[SQL:")[0].split()) or type(error).__name__)


def redact(text: str) -> str:
    """Return a text without the names and passwords of the URIs in it.

    >>> redact("cannot open postgresql://wm:s/cr@t@db:5432/mlflow")
    'cannot open postgresql://***@db:5432/mlflow'
    """
    return re.sub(r"://\S*@", "://***@", text)


@contextmanager
def opened(root: Path, *, make: bool = True) -> "Iterator[MlflowClient]":
    """Open the store for a command. ``make``: a local store that does not exist.

    Raises:
        ArtifactError: it does not exist, and is not to be made.
        StoreError: one message if it cannot be used, or fails while the block runs.
    """
    uri = tracking_uri(root)
    file = sqlite_file(uri)
    if file is not None and not make and not file.exists():
        raise ArtifactError(f"{file.name} does not exist. `make repro` trains and registers; `wm track sync` rebuilds it.")
    try:
        store = open_store(root)
    except StoreError as error:
        advice = "Start its server, or unset MLFLOW_TRACKING_URI, and try again."
        if file is not None:
            advice = "If the file is damaged, restore it from a backup; or move it away: `wm track sync` makes a new "
            advice += f"{file.name} of dvc.lock, without a champion."
        raise StoreError(f"{error} {advice}") from None
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield store
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(f"MLflow at {redact(uri)} refused or failed: {reason_of(error)}") from None


def open_store(root: Path) -> "MlflowClient":
    """Return a client.

    Several processes that touch a fresh database at once would corrupt it: it is made under a lock. If the project's folder
    was moved, the addresses in its database are mended.

    Raises:
        StoreError: the store cannot be used.
    """
    uri = tracking_uri(root)
    try:
        return _open(root, uri)
    except Exception as error:  # whatever a store raises, a stage must not fail because of it
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise StoreError(f"MLflow at {redact(uri)} cannot be used ({reason}).") from None


def game_experiment(client: "MlflowClient", root: Path, environment: str) -> str:
    """Return the id of a game's experiment, made if there is none; restored if it was deleted in MLflow.

    Whoever calls it holds the project's ``lock``.
    """
    from worldmodels.tracking.pages import furnish

    name, file = PREFIX + environment, sqlite_file(str(client.tracking_uri))
    found = client.get_experiment_by_name(name)
    if found is None:
        place = (root / FILES).resolve().as_uri() if file is not None else None
        made = client.create_experiment(name, artifact_location=place)
        furnish(client, made, environment)
        return made
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
        print(f"note: the experiment `{name}` was deleted in MLflow: it is restored.", file=sys.stderr)
    return found.experiment_id


def _open(root: Path, uri: str) -> "MlflowClient":
    import mlflow
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith(("http://", "https://")):  # a knock, whatever is answered: MLflow's own requests would wait longer
        http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=TIMEOUT, raise_on_status=False)
    file = sqlite_file(uri)
    with lock(root):
        if file is not None and not file.exists():
            # Made under another name: a process that ends on the way would leave tables that MLflow cannot go on from.
            partial = file.with_name(f"{file.name}.partial")
            for leftover in file.parent.glob(f"{partial.name}*"):
                leftover.unlink()
            mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
            partial.replace(file)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        games = client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", view_type=mlflow.entities.ViewType.ALL)
        # A database elsewhere may be shared by several projects: its files are where the first one put them.
        if file is not None and file.parent.resolve() == root.resolve():
            here = (file.parent / FILES).resolve().as_uri()
            for before in {game.artifact_location for game in games} - {here}:
                if before.startswith("file:") and before.endswith(f"/{FILES}"):
                    _mend(file, before, here)
                    print(
                        f"note: the project was moved: MLflow's files are those in {file.parent / FILES} now.", file=sys.stderr
                    )
    return client


def _mend(database: Path, before: str, after: str) -> None:
    """Replace the beginning ``before`` of the addresses in a database by ``after``."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, columns in ADDRESSES.items():
            known = {row[1] for row in connection.execute(f"pragma table_info({table})")}
            for column in known & set(columns):
                size = len(before) + 1
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) where substr({column} || '/', 1, ?) = ?",
                    (after, size, size, f"{before}/"),
                )
