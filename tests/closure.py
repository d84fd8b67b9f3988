"""Which source files a script imports, by reading them (nothing is run)."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OBSERVERS = ("worldmodels.tracking",)
"""What watches: it changes no output, and is outside the stages' dependencies."""


def closure(script: Path) -> set[str]:
    """Return the files of this project, relative to its root, that a script imports, directly or not, with itself."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path):
            if not name.startswith(OBSERVERS):
                todo += _files(name)
    found |= {beside for path in found for beside in path.parent.glob("*.sh") if beside.name in path.read_text()}
    return {path.relative_to(ROOT).as_posix() for path in found}


def outside(files: set[str], places: list[str]) -> set[str]:
    """Return those of the files that lie in none of some places, each a file or a folder."""
    return {file for file in files if not any(file == place or file.startswith(f"{place}/") for place in places)}


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _files(name: str) -> list[Path]:
    for base in (ROOT, ROOT / "src"):
        path = base.joinpath(*name.split(".")).with_suffix(".py")
        if path.exists():
            return [path]
    return []
