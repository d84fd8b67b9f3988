"""What names an artifact and the state of the code: DVC's hashes, git's commit."""

import hashlib
import json
import subprocess
from pathlib import Path


def artifact_hash(path: Path) -> str:
    """Return the hash that dvc.lock has for a file (MD5) or a folder (MD5 of its sorted list of files, with ``.dir``)."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = [file for file in path.rglob("*") if file.is_file()]
    listing = [{"md5": artifact_hash(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    listing.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def git_tags(root: Path) -> dict[str, str]:
    """Return the commit, and whether tracked files differ from it; nothing outside a git checkout.

    dvc.lock does not count: every run writes it.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")
    return {"git.commit": commit, "git.dirty": str(bool(dirty)).lower()}


def lock_tags(root: Path) -> dict[str, str]:
    """Return the tags of ``git_tags`` for the state that dvc.lock stands for: the commit that recorded it, where one did."""
    recorded = _git(root, "log", "-1", "--format=%H", "--", "dvc.lock")
    if recorded and _git(root, "status", "--porcelain", "--", "dvc.lock") == "":
        return {"git.commit": recorded, "git.dirty": "false"}
    return git_tags(root)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
