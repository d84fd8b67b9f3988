"""``wm sweep``: DVC experiments over all combinations of some params, and a table of what they found."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from worldmodels.cli.show import nearest
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.tracking.experiments import Experiment, list_experiments, mirror_experiments, read_result
from worldmodels.tracking.store import StoreError

MOST = 200
"""Combinations of one sweep: more is a slip of the hand."""


@dataclass(frozen=True)
class Axis:
    """One param of a sweep, or several that always have the same value.

    Attributes:
        keys: by the names of params.yaml.
        values: as typed.
        label: the shortest ending of the key that tells it from the others.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    label: str = ""


@dataclass(frozen=True)
class Point:
    """One combination: its experiment's name, and key -> value."""

    name: str
    values: dict[str, str]

    def settings(self) -> list[str]:
        """Return it as arguments of ``dvc exp run``."""
        return [argument for key, value in self.values.items() for argument in ("--set-param", f"{key}={value}")]


def sweep(
    root: Path, assignments: Sequence[str], targets: Sequence[str], *, dry: bool = False, queue: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Run the experiments of a sweep one after another, each in a folder of its own.

    Those that exist already, for the same code, params and targets, are not run again: the same command continues a sweep
    that was interrupted. What stages have in common comes from DVC's run cache.

    Args:
        root: the project's folder.
        assignments: ``key=value,value``.
        targets: stages, such as evaluate@doom-1; none for all.
        dry: only say what would run.
        queue: only queue them, for ``dvc queue start``.

    Returns:
        Rows of a table, and how many experiments failed.

    Raises:
        ParamsError: where an assignment cannot be used; nothing was run.
        WorldModelsError: where the folder is not one that DVC can run experiments in.
    """
    axes = label(parse(root, assignments))
    state = _state(root, targets)
    points = [_point(axes, values, state) for values in itertools.product(*(axis.values for axis in axes))]
    if len(points) > MOST:
        raise ParamsError(f"that makes {len(points)} experiments; {MOST} are the most. Leave some values out.")
    for point in points:
        check(root, point)
    done = {experiment.name for experiment in list_experiments(root)}
    failed, tracked = 0, os.environ.get("WM_TRACKING", "").lower() not in ("off", "0", "false")
    for i, point in enumerate([] if dry else points):
        what = ", ".join(f"{key} = {value}" for key, value in point.values.items())
        print(f"[{i + 1}/{len(points)}] {point.name}: {what}", file=sys.stderr)
        if point.name in done:
            print("exists already: not run again", file=sys.stderr)
            continue
        ended = _run(root, point, targets, "--queue" if queue else "--temp")
        failed += ended != 0
        if tracked and ended == 0 and not queue:
            tracked = _mirrored(root)
    return list(rows(root, axes, points, "would run" if dry else "queued" if queue else "failed")), failed


def parse(root: Path, assignments: Sequence[str]) -> list[Axis]:
    """Return the axes that arguments such as ``doom.evaluate.dream.temperature=0.5,1.0`` stand for; ``a,b=1,2`` sets both.

    Raises:
        ParamsError: where one is no assignment, names no param, or names one twice.
    """
    params = _leaves(load_yaml(root / PARAMS_FILE))
    axes: list[Axis] = []
    for assignment in assignments:
        left, equals, text = assignment.partition("=")
        keys = tuple(part.strip() for part in left.split(","))
        values = tuple(part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text))
        if not equals or "" in values:
            raise ParamsError(f"`{assignment}` is no assignment. Write key=value,value, such as seed=0,1,2.")
        for key in keys:
            if key not in params:
                raise ParamsError(f"{PARAMS_FILE} has no value `{key}`.{nearest(key, params)}")
        named = [key for axis in axes for key in axis.keys] + list(keys)
        if len(set(named)) < len(named) or len(set(values)) < len(values):
            raise ParamsError(f"`{assignment}` says something twice: name a param once, with values that differ.")
        axes.append(Axis(keys, values))
    if not axes:
        raise ParamsError("nothing to sweep over. Name a param: wm sweep seed=0,1,2 --target evaluate@doom-1")
    return axes


def label(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes with labels.

    >>> [axis.label for axis in label([Axis(("doom.evaluate.dream.temperature",), ("1",)), Axis(("seed",), ("0",))])]
    ['temperature', 'seed']
    >>> [axis.label for axis in label([Axis(("doom.vision.clip",), ("1",)), Axis(("doom.memory.clip",), ("1",))])]
    ['vision.clip', 'memory.clip']
    """
    endings = [[axis.keys[0].split(".", i)[-1] for i in range(axis.keys[0].count("."), -1, -1)] for axis in axes]
    return [
        Axis(axis.keys, axis.values, next((end for end in ends if sum(end in other for other in endings) == 1), axis.keys[0]))
        for axis, ends in zip(axes, endings, strict=True)
    ]


def check(root: Path, point: Point) -> None:
    """Validate params.yaml as a combination makes it: before hours of work, not after.

    Raises:
        ParamsError: naming every problem.
    """
    from worldmodels.cli.project import load_project

    params = deepcopy(load_yaml(root / PARAMS_FILE))
    for key, text in point.values.items():
        *path, last = key.split(".")
        node = params
        for part in path:
            node = node[part]
        node[last] = yaml.safe_load(text)
    with tempfile.TemporaryDirectory() as place:
        path_there = Path(place) / PARAMS_FILE
        path_there.write_text(yaml.safe_dump(params))
        try:
            load_project(path_there)
        except ParamsError as error:
            settings = " ".join(f"{key}={value}" for key, value in point.values.items())
            raise ParamsError(f"{settings}: {str(error).replace(str(path_there), str(PARAMS_FILE))}") from None


def rows(root: Path, axes: Sequence[Axis], points: Sequence[Point], without: str) -> Iterator[dict[str, Any]]:
    """Yield one row an experiment and iteration: what was set, and the scores; ``without`` is the state of one that is not."""
    made: dict[str, Experiment] = {experiment.name: experiment for experiment in list_experiments(root)}
    for point in points:
        row: dict[str, Any] = {"experiment": point.name, **{axis.label: point.values[axis.keys[0]] for axis in axes}}
        if point.name not in made:
            yield row | {"state": without}
            continue
        scores = read_result(root, made[point.name]).scores
        for key, found in scores.items():
            worlds = {world: found[world] for world in ("dream", "real", "baseline")}
            yield row | {"state": "done", "iteration": key, **worlds}
        if not scores:
            yield row | {"state": "done"}


def text(table: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, with what to do next below it."""
    from worldmodels.report.table import align

    settings = [name for name in table[0] if name not in ("experiment", "state", "iteration", "dream", "real", "baseline")]
    lines = [("experiment", *settings, "iteration", "dream", "real ± std. error", "n", "random", "state")]
    for row in table:
        dream, real, baseline = (row.get(world) for world in ("dream", "real", "baseline"))
        scores = (_figure(dream), _figure(real), str(real["n"]) if real else "-", _figure(baseline))
        lines.append((row["experiment"], *(row[name] for name in settings), row.get("iteration", "-"), *scores, row["state"]))
    shown = align(lines)
    states = {row["state"] for row in table}
    if "would run" in states:
        return f"{shown}\n\nNothing was run (--dry)."
    if "queued" in states:
        return f"{shown}\n\n`dvc queue start -j 1` runs them, `dvc queue status` shows how far they are; then `wm track sync`."
    return (
        f"{shown}\n\n`dvc exp show` and `dvc plots diff EXPERIMENT ...` compare them; `dvc exp apply EXPERIMENT` takes one\n"
        "over. In MLflow (`make ui`) they are the runs with tags.`wm.kind` = 'experiment'."
    )


def figure(table: Sequence[dict[str, Any]]) -> Any:
    """Return a picture, (H, W, 3) uint8: scores in dream and game over the first param, of each experiment's last iteration.

    Raises:
        WorldModelsError: where no experiment has a score yet.
    """
    from worldmodels.report.comparisons import sweep_points

    last = {row["experiment"]: row for row in table if row.get("real")}
    if not last:
        raise WorldModelsError("no experiment has a score: there is nothing to draw.")
    name = next(iter(last.values()))
    setting = next(key for key in name if key not in ("experiment", "state", "iteration", "dream", "real", "baseline"))
    return sweep_points(setting, [(row[setting], row["dream"], row["real"]) for row in last.values()])


def _mirrored(root: Path) -> bool:
    """Show what was found in MLflow; where that is impossible, say so: the sweep goes on without."""
    try:
        mirror_experiments(root)
    except StoreError as error:
        print(f"warning: {error} `wm track sync` delivers the experiments later.", file=sys.stderr)
        return False
    return True


def _run(root: Path, point: Point, targets: Sequence[str], where: str) -> int:
    """Run one experiment by DVC; its output goes to stderr. Return its exit code."""
    command = [sys.executable, "-m", "dvc", "exp", "run", where, "--name", point.name, *point.settings(), *targets]
    # The code of the experiment is that of its own folder, wherever the package is installed.
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    own = os.environ | {"PYTHONPATH": path, "PATH": tools}
    return subprocess.run(command, cwd=root, env=own, stdout=sys.stderr.fileno(), check=False).returncode


def _point(axes: Sequence[Axis], values: Sequence[str], state: str) -> Point:
    parts = [f"{axis.label}-{value}" for axis, value in zip(axes, values, strict=True)]
    readable = re.sub(r"[^A-Za-z0-9.-]+|\.(?=\.|$)", "_", "-".join(parts)).strip("._-")[:80].rstrip("._-")
    settings = {key: value for axis, value in zip(axes, values, strict=True) for key in axis.keys}
    digest = hashlib.sha256(repr((state, sorted(settings.items()))).encode()).hexdigest()[:6]
    return Point(f"{readable}-{digest}", settings)


def _state(root: Path, targets: Sequence[str]) -> str:
    """Return what an experiment's result depends on besides its settings: the commit, edits of it, targets."""
    parts = [sorted(targets)]
    for command in (["rev-parse", "HEAD"], ["diff", "HEAD", "--", ".", ":(exclude)dvc.lock"]):
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorldModelsError("experiments are commits: this folder needs git and a first commit of its own.")
        parts.append([done.stdout])
    return repr(parts)


def _figure(summary: dict[str, Any] | None) -> str:
    return f"{summary['mean']:.1f} ± {summary['stderr']:.1f}" if summary else "-"


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return all that can be set: values and lists by dotted key."""
    if not isinstance(node, dict):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for name, child in node.items():
        flat |= _leaves(child, f"{prefix}.{name}" if prefix else str(name))
    return flat
