"""``wm sweep``: DVC experiments over all combinations of some params, and a table of what they found."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.cli.points import check_point, check_targets
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.tracking.experiments import Experiment, list_experiments, mirror_experiments, read_result
from worldmodels.tracking.store import StoreError

MOST = 200
"""Combinations of one sweep: more is a slip of the hand."""
WORLDS = ("dream", "real", "random")
OWN = ("experiment", "state", "reason", "agent", *WORLDS)
"""Columns that are no params."""


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

    @property
    def settings(self) -> list[str]:
        """What DVC is told to set. ``++``: also a key that params.yaml leaves at its default."""
        return [f"++{key}={value}" for key, value in self.values.items()]


def sweep(
    root: Path, assignments: Sequence[str], targets: Sequence[str], *, dry: bool = False, queue: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Run the experiments of a sweep one after another, each in a folder of its own.

    Those whose results are there already, for the same code, params and targets, are not run again: the same command continues
    a sweep that was interrupted. What stages have in common comes from DVC's run cache.

    Args:
        root: the project's folder.
        assignments: ``key=value,value``.
        targets: stages, such as evaluate@doom-1; none for all.
        dry: only say what would run.
        queue: only queue them, for ``dvc queue start``.

    Returns:
        Rows of a table, and how many experiments failed.

    Raises:
        ParamsError: an assignment or a target cannot be used; nothing was run.
        WorldModelsError: the folder is not one that DVC can run experiments in.
    """
    axes = label(parse(assignments))
    state = _state(root, targets)
    points = [_point(axes, values, state) for values in itertools.product(*(axis.values for axis in axes))]
    if len(points) > MOST:
        raise ParamsError(f"that makes {len(points)} experiments; {MOST} are the most. Leave some values out.")
    wanted = {point.name: check_targets(check_point(root, point.settings), targets) for point in points}
    found = {experiment.name: experiment for experiment in list_experiments(root)}
    states: dict[str, dict[str, str]] = {point.name: {"state": "would run"} for point in points}
    tracked = os.environ.get("WM_TRACKING", "").lower() not in ("off", "0", "false")
    for i, point in enumerate([] if dry else points):
        what = ", ".join(f"{key} = {value}" for key, value in point.values.items())
        print(f"[{i + 1}/{len(points)}] {point.name}: {what}", file=sys.stderr)
        if point.name in found:
            if _complete(root, found[point.name], wanted[point.name]):
                print("its results are there already: not run again", file=sys.stderr)
                continue
            print("its results are not in DVC's cache any more: run again", file=sys.stderr)
            _dvc(root, "exp", "remove", point.name)
        states[point.name] = _run(root, point, targets, wanted[point.name], queue=queue)
        if tracked and states[point.name]["state"] == "done":
            tracked = _mirrored(root)
    failed = sum(told["state"] == "failed" for told in states.values())
    return list(rows(root, axes, points, states)), failed


def parse(assignments: Sequence[str]) -> list[Axis]:
    """Return the axes of arguments such as ``doom.evaluate.temperature=0.5,1.0``; ``a,b=1,2`` sets both.

    >>> parse(["a.b=1,2", "c,d=[1,2],{x: 3, y: 4}"])
    [Axis(keys=('a.b',), values=('1', '2'), label=''), Axis(keys=('c', 'd'), values=('[1,2]', '{x: 3, y: 4}'), label='')]

    Raises:
        ParamsError: one is no assignment, or names a param twice.
    """
    axes: list[Axis] = []
    for assignment in assignments:
        left, equals, text = assignment.partition("=")
        keys = tuple(part.strip() for part in left.split(","))
        values = tuple(part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text))
        if not equals or "" in values or "" in keys:
            raise ParamsError(f"`{assignment}` is no assignment. Write key=value,value, such as seed=0,1,2.")
        wrong = [key for key in keys if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key, re.ASCII)]
        if wrong:
            raise ParamsError(f"`{wrong[0]}` is no key: write names with dots between them, such as doom.memory.sequence.")
        named = [key for axis in axes for key in axis.keys] + list(keys)
        if len(set(named)) < len(named) or len(set(values)) < len(values):
            raise ParamsError(f"`{assignment}` says something twice: name a param once, with values that differ.")
        axes.append(Axis(keys, values))
    if not axes:
        raise ParamsError("nothing to sweep over. Name a param: wm sweep seed=0,1,2 --target evaluate@doom-1")
    return axes


def label(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes with labels.

    >>> [axis.label for axis in label([Axis(("doom.evaluate.temperature",), ("1",)), Axis(("seed",), ("0",))])]
    ['temperature', 'seed']
    >>> [axis.label for axis in label([Axis(("doom.vision.refresh",), ("1",)), Axis(("doom.memory.refresh",), ("1",))])]
    ['vision.refresh', 'memory.refresh']
    """
    endings = [[axis.keys[0].split(".", i)[-1] for i in range(axis.keys[0].count("."), -1, -1)] for axis in axes]
    return [
        Axis(axis.keys, axis.values, next((end for end in ends if _alone(end, endings)), axis.keys[0]))
        for axis, ends in zip(axes, endings, strict=True)
    ]


def _alone(ending: str, endings: Sequence[Sequence[str]]) -> bool:
    return ending not in OWN and sum(ending in other for other in endings) == 1


def rows(
    root: Path, axes: Sequence[Axis], points: Sequence[Point], states: Mapping[str, dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield one row an experiment and agent: what was set, and the scores. ``states``: of experiments without results."""
    made = {experiment.name: experiment for experiment in list_experiments(root)}
    for point in points:
        row: dict[str, Any] = {"experiment": point.name, **{axis.label: point.values[axis.keys[0]] for axis in axes}}
        if point.name not in made or states[point.name]["state"] == "failed":
            yield row | states[point.name]
            continue
        scores = read_result(root, made[point.name]).scores
        for key, found in scores.items():
            yield row | {"state": "done", "agent": key, **{world: found[world] for world in WORLDS}}
        if not scores:
            yield row | {"state": "done"}


def text(table: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, with what to do next below it."""
    from worldmodels.report.table import align

    settings = [name for name in table[0] if name not in OWN]
    lines = [("experiment", *settings, "agent", "dream", "real ± std. error", "n", "random", "state")]
    for row in table:
        dream, real, random = (row.get(world) for world in WORLDS)
        scores = (_figure(dream), _figure(real), str(real["n"]) if real else "-", _figure(random))
        lines.append((row["experiment"], *(row[name] for name in settings), row.get("agent", "-"), *scores, row["state"]))
    shown = align(lines)
    reasons = [f"{row['experiment']} failed: {row['reason']}" for row in table if row["state"] == "failed"]
    shown = "\n\n".join([shown, *(["\n".join(reasons)] if reasons else [])])
    states = {row["state"] for row in table}
    if "would run" in states:
        return f"{shown}\n\nNothing was run (--dry)."
    if "queued" in states:
        return f"{shown}\n\n`dvc queue start -j 1` runs them, `dvc queue status` shows how far they are; then `wm track sync`."
    return (
        f"{shown}\n\n`dvc exp show` and `dvc plots diff EXPERIMENT ...` compare them; `dvc exp apply EXPERIMENT` takes one\n"
        "over. In MLflow (`make ui`) they are the runs with tags.`wm.kind` = 'experiment'. `dvc gc -w --all-experiments`\n"
        "makes room on the disk and keeps their results."
    )


def figure(table: Sequence[dict[str, Any]]) -> Any:
    """Return a picture, (H, W, 3) uint8: scores in dream and game over the first param, of each experiment's last agent.

    Raises:
        WorldModelsError: no experiment has a score yet.
    """
    from worldmodels.report.comparisons import sweep_points

    last = {row["experiment"]: row for row in table if row.get("real")}
    if not last:
        raise WorldModelsError("no experiment has a score: there is nothing to draw.")
    setting = next(key for key in next(iter(last.values())) if key not in OWN)
    return sweep_points(setting, [(row[setting], row["dream"], row["real"]) for row in last.values()])


def _complete(root: Path, experiment: Experiment, wanted: Collection[str]) -> bool:
    """Return whether an experiment has the scores of all agents that it is for."""
    try:
        return set(wanted) <= set(read_result(root, experiment).scores)
    except WorldModelsError:
        return False


def _mirrored(root: Path) -> bool:
    """Show what was found in MLflow; if that is impossible, say so: the sweep goes on without."""
    try:
        mirror_experiments(root)
    except StoreError as error:
        print(f"warning: {error} `wm track sync` delivers the experiments later.", file=sys.stderr)
        return False
    return True


def _run(root: Path, point: Point, targets: Sequence[str], wanted: Collection[str], *, queue: bool) -> dict[str, str]:
    """Run one experiment by DVC, or queue it; return its state, with the reason if it failed."""
    settings = [argument for setting in point.settings for argument in ("--set-param", setting)]
    code, last = _dvc(root, "exp", "run", "--queue" if queue else "--temp", "--name", point.name, *settings, *targets)
    if code:
        return {"state": "failed", "reason": last or f"DVC ended with {code}"}
    if queue:
        return {"state": "queued"}
    made = {experiment.name: experiment for experiment in list_experiments(root)}
    if point.name not in made:
        return {"state": "failed", "reason": f"DVC kept no experiment ({last})"}
    if not _complete(root, made[point.name], wanted):
        return {"state": "failed", "reason": f"DVC kept no scores of {', '.join(wanted)} ({last})"}
    return {"state": "done"}


def _dvc(root: Path, *arguments: str) -> tuple[int, str]:
    """Run DVC; what it says goes to stderr. Return its exit code, and its last word: an error if there was one."""
    # The code of the experiment is that of its own folder, wherever the package is installed.
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    own = os.environ | {"PYTHONPATH": path, "PATH": tools}
    command = [sys.executable, "-m", "dvc", *arguments]
    said: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        command, cwd=root, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            said += [line.strip()] if line.strip() else []
    errors = [line for line in said if line.startswith("ERROR:")]
    stages = [line for line in said if re.match(r"\w+: ", line) and line.partition(":")[0] in _stages()]
    return process.returncode, (stages or errors or list(said) or [""])[-1]


def _stages() -> Collection[str]:
    from worldmodels.storage.layout import STAGES

    return STAGES


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
