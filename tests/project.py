"""A project in a folder of its own, for tests that run its real commands."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tiny import ROOT, tiny_params


def copy_project(target: Path, params: dict[str, Any] | None = None) -> Path:
    """Make a project with the sources of this one and tiny params, or these, under git and DVC."""
    target.mkdir()
    for name in ("pipeline", "src", "presets"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, target)
    (target / "params.yaml").write_text(yaml.safe_dump(params or tiny_params(), sort_keys=False))
    run(target, "git", "init", "-q")
    run(target, "dvc", "init", "-q")
    return target


def environment(folder: Path) -> dict[str, str]:
    """Return all that a command's environment holds."""
    binaries = str(Path(sys.executable).parent)
    return {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": f"{folder / 'src'}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }


def run(folder: Path, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command there, to its end."""
    everything = environment(folder) | variables
    done = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done
