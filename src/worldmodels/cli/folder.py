"""The project's folder, and the names in it."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from worldmodels.errors import ParamsError

MARKS = ("params.yaml", "dvc.yaml")
"""A folder that holds one of these is a project's."""
REPLICAS = Path("replicas")
"""The folder of what ``wm replicate`` computes: in it a folder a preset, with a page and the projects of its seeds."""
REPLICAS_PAGE = "index.html"


def find_root() -> Path:
    """Return the project's folder, the nearest one from here up; else this folder.

    The path is relative to the current folder, so that messages stay short.
    """
    here = Path.cwd()
    for depth, folder in enumerate((here, *here.parents)):
        if _is_project(folder):
            return Path(*[".."] * depth)
    return Path()


def project_folder() -> Path:
    """Return the project's folder.

    Raises:
        ParamsError: there is no project here.
    """
    root = find_root()
    if not _is_project(root):
        raise ParamsError(f"there is no {' and no '.join(MARKS)} here or above: run `wm` inside a clone of the project.")
    return root


def _is_project(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence about the known names near ``name``, to be put behind a message."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return " Did you mean " + " or ".join(f"`{match}`" for match in near) + "?"
    return f" Known: {', '.join(known)}." if known else ""
