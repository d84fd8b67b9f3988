"""A small project in a folder of its own, and servers on loopback: for the tests that run the real tools."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tiny import ROOT, tiny_params

WAIT = 600.0
"""Seconds that a busy machine may take for anything."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds; return what it gave."""
    end = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {WAIT:g} s in vain: {what}"
        time.sleep(0.05)
    return found


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which a project's commands run: its own code, and nothing of the caller's settings."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder.parent),
        "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "120",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "WM_TRACKING": "off",
        **{f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


def run(folder, *command, check=True, **variables):
    """Run a command in a project; return what it said."""
    own = environment(folder) | variables
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0 or not check, f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def make_project(folder: Path, params: dict[str, Any]) -> Path:
    """Copy the project, with these params; commit it."""
    folder.mkdir(parents=True)
    for name in ("pipeline", "src", "presets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "results").mkdir()
    shutil.copy(ROOT / "results/rates.csv", folder / "results")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    wait_longer(folder / "src/worldmodels/tracking")
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    commit(folder, "The project")
    return folder


def wait_longer(tracking: Path) -> None:
    """Let a copy's stages wait for MLflow as long as a busy machine needs; what they compute does not depend on this code."""
    for name, soon, late in (("live.py", "60.0, 5.0", "600.0, 120.0"), ("store.py", "TIMEOUT = 3\n", "TIMEOUT = 60\n")):
        code = (tracking / name).read_text()
        assert code.count(soon) == 1, name
        (tracking / name).write_text(code.replace(soon, late))


def one_iteration() -> dict[str, Any]:
    """Return params so small that one iteration of Take Cover takes half a minute."""
    params = tiny_params()
    for section in ("world_models", "agents"):
        params[section] = {"doom-1": params[section]["doom-1"]}
    params["environments"] = ["doom"]
    del params["carracing"]
    return params


def commit(folder: Path, message: str) -> None:
    """Commit everything that git does not ignore."""
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", message)


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(command: list[str], ready, log: Path, **options) -> Iterator[subprocess.Popen]:
    """Run a server while the block runs; ``ready`` says whether it answers."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + 240
        while not ready():
            assert process.poll() is None, f"{command} ended:\n{log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"{command} does not answer:\n{log.read_text()[-4000:]}"
            time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def answers(address: str) -> bool:
    """Return whether an HTTP server answers, whatever it says."""
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def page_at(browser, address, **options):
    """Show a page while the block runs; it may report no error."""
    page = browser.new_page(**options)
    page.set_default_timeout(120_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    yield page
    assert not said, said
    page.close()
