"""The state of the code: git's commit."""

import subprocess
from pathlib import Path


def git(root: Path, *arguments: str) -> str | None:
    """Return what a git command says; None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_tags(root: Path) -> dict[str, str]:
    """Return the commit, and whether tracked files differ from it; nothing outside a git checkout.

    dvc.lock does not count: every run writes it.
    """
    commit = git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return {"git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def lock_tags(root: Path) -> dict[str, str]:
    """Return the tags of ``git_tags`` for the state that dvc.lock stands for: the commit that recorded it, if one did."""
    recorded = git(root, "log", "-1", "--format=%H", "--", "dvc.lock")
    if recorded and git(root, "status", "--porcelain", "--", "dvc.lock") == "":
        return {"git.commit": recorded, "git.dirty": "false"}
    return git_tags(root)
