"""The project's folder, and the names in it."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from worldmodels.errors import ParamsError
from worldmodels.params import PARAMS_FILE

PIPELINE = "dvc.yaml"


def find_root() -> Path:
    """Return the project's folder: the nearest one from here up that holds params.yaml or dvc.yaml; else this folder.

    The path is relative to the current folder, so that messages stay short.
    """
    return _project() or Path()


def project_folder() -> Path:
    """Return the project's folder, as ``find_root`` does.

    Raises:
        ParamsError: there is no project here.
    """
    found = _project()
    if found is None:
        raise ParamsError(f"there is no {PARAMS_FILE} and no {PIPELINE} here or above: run `wm` inside a clone of the project.")
    return found


def _project() -> Path | None:
    here = Path.cwd()
    for depth, folder in enumerate((here, *here.parents)):
        if (folder / PARAMS_FILE).is_file() or (folder / PIPELINE).is_file():
            return Path(*[".."] * depth)
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence about the known names near ``name``, to be put behind a message."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return " Did you mean " + " or ".join(f"`{match}`" for match in near) + "?"
    return f" Known: {', '.join(known)}." if known else ""
