"""``wm track``: rebuild MLflow from what DVC knows; serve its pages."""

import os
import sys
from pathlib import Path

from worldmodels.errors import ParamsError
from worldmodels.tracking.store import sqlite_file, tracking_uri


def sync_tracking(root: Path) -> str:
    """Rebuild MLflow from dvc.lock and DVC's experiments; return what was done."""
    from worldmodels.tracking.experiments import mirror_experiments
    from worldmodels.tracking.sync import sync

    said = f"MLflow holds what dvc.lock says: {sync(root)}"
    added = mirror_experiments(root)
    return said + (f"\n{added} experiments added." if added else "")


def serve_tracking(root: Path, port: int) -> None:
    """Become MLflow's server for this project's store.

    Raises:
        ParamsError: the store is a server already.
    """
    store = tracking_uri(root)
    if store.startswith(("http://", "https://")):
        raise ParamsError(f"MLFLOW_TRACKING_URI is a server already: open {store} in a browser.")
    if sqlite_file(store) is not None and not (root / "dvc.lock").is_file():
        print("Nothing was run yet: the pages will be empty. `make repro` runs the pipeline.", file=sys.stderr)
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    # One worker and no job runner: 0.5 GB and 8 s to start, instead of 2.1 GB and 23 s.
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    os.execve(command[0], command + address, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
