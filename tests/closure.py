"""Which source files a script imports, by reading them (nothing is run). As a script: brings dvc.yaml up to date."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OBSERVERS = ("worldmodels.tracking", "worldmodels.compute.cluster")
"""What watches, or computes the same elsewhere: it changes no output, and is outside the stages' dependencies."""


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


def with_closures(dag: str) -> str:
    """Return the text of dvc.yaml with each stage's source files as they are now."""
    lines: list[str] = []
    listed = ""
    for line in dag.splitlines(keepends=True):
        if named := re.match(r"  (\w+):", line):
            stage = named[1]
        source = re.match(r"( +- )(src|pipeline)/", line)
        if source is None:
            lines.append(line)
        elif listed != stage:
            lines += [f"{source[1]}{path}\n" for path in sorted(closure(ROOT / "pipeline" / f"{stage}.py"))]
            listed = stage
    return "".join(lines)


if __name__ == "__main__":
    file = ROOT / "dvc.yaml"
    file.write_text(with_closures(file.read_text()))
