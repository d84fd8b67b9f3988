"""One thread for each test process: the suite runs on all cores at once; what takes long is made once for all of them."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # a server beside a busy suite is slow, not dead
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would all that it starts
pytest_plugins = ["tracked"]


@pytest.fixture(autouse=True)
def same_draws():
    """What a test draws without a generator of its own is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def iteration(tmp_path_factory):
    """A project with one committed iteration of Take Cover, untracked; copy it.

    It was computed while its MLflow server could not be reached; the file ``said`` beside it holds what that said.
    """
    from lab import commit, free_port, make_project, one_iteration, run

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "iteration" / "project"
    with FileLock(f"{folder.parent}.lock"):
        if not (folder.parent / "said").exists():
            make_project(folder, one_iteration())
            nobody = f"http://someone:s3cret@127.0.0.1:{free_port()}"
            done = run(folder, "dvc", "repro", WM_TRACKING="on", MLFLOW_TRACKING_URI=nobody)
            commit(folder, "One iteration")
            (folder.parent / "said").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed. .ci/run installs it.")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
