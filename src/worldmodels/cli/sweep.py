"""``wm sweep``: DVC experiments over all combinations of some params, and a table of what they found."""

import hashlib
import itertools
import math
import re
import shutil
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldmodels.cli.folder import nearest
from worldmodels.cli.presets import validated
from worldmodels.cli.side_by_side import own_code
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.project import Project
from worldmodels.report.table import align, score_text
from worldmodels.storage.layout import STAGES
from worldmodels.tracking.experiments import list_experiments, mirror_experiments, read_result
from worldmodels.tracking.git import git
from worldmodels.tracking.store import StoreError, is_off

MOST = 200
"""Combinations of one sweep, at most: more are a mistake."""
WORLDS = ("dream", "real", "random")
OWN = ("experiment", "state", "reason", "agent", *WORLDS)
"""Columns that are no params."""


class Axis(NamedTuple):
    """One param of a sweep, or several that always have the same value: keys of params.yaml, and values as typed."""

    keys: tuple[str, ...]
    values: tuple[str, ...]


class Point(NamedTuple):
    """One combination: an experiment."""

    name: str  # DVC's
    columns: dict[str, str]  # label -> value, as the table shows it
    params: dict[str, str]  # key -> value
    agents: set[str]  # whose scores it makes


def sweep(
    root: Path, assignments: Sequence[str], targets: Sequence[str], *, dry: bool = False, queue: bool = False
) -> list[dict[str, Any]]:
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
        A row for each experiment and agent: what was set, the scores, the state (done, would run, queued, or failed: reason).

    Raises:
        ParamsError: an assignment or a target cannot be used; nothing was run.
        WorldModelsError: the folder is not one that DVC can run experiments in.
    """
    axes = parse(assignments)
    points = _points(root, axes, targets)
    if any("seed" in axis.keys for axis in axes):
        print(
            "note: `wm replicate PRESET --seeds 0,1,2` computes a preset with several seeds, and compares them.",
            file=sys.stderr,
        )
    known = {experiment.name for experiment in list_experiments(root)}
    tracked = not is_off()
    table: list[dict[str, Any]] = []
    for i, point in enumerate(points):
        scores = _scores(root, point)
        told = {"state": "would run" if scores is None else "done"}
        if not dry:
            what = ", ".join(f"{key} = {value}" for key, value in point.params.items())
            print(f"[{i + 1}/{len(points)}] {point.name}: {what}", file=sys.stderr)
            if scores is not None:
                print("its results are there already: not run again", file=sys.stderr)
            else:
                if point.name in known:
                    print("its results are not in DVC's cache any more: run again", file=sys.stderr)
                    _dvc(root, "exp", "remove", point.name)
                scores, told = _run(root, point, targets, queue=queue)
                if tracked and told["state"] == "done":
                    try:
                        mirror_experiments(root)
                    except StoreError as error:
                        tracked = False
                        print(f"warning: {error} `wm track sync` delivers the experiments later.", file=sys.stderr)
        row: dict[str, Any] = {"experiment": point.name, **point.columns, **told}
        found = [row | {"agent": key} | {world: own[world] for world in WORLDS} for key, own in (scores or {}).items()]
        table += found or [row]
    return table


def parse(assignments: Sequence[str]) -> list[Axis]:
    """Return the axes of arguments such as ``doom.evaluate.temperature=0.5,1.0``; ``a,b=1,2`` sets both.

    >>> parse(["a.b=1,2", "c,d=[1,2],{x: 3, y: 4}"])
    [Axis(keys=('a.b',), values=('1', '2')), Axis(keys=('c', 'd'), values=('[1,2]', '{x: 3, y: 4}'))]

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
        for key in keys:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key, re.ASCII):
                raise ParamsError(f"`{key}` is no key: write names with dots between them, such as doom.memory.sequence.")
        axes.append(Axis(keys, values))
        named = [key for axis in axes for key in axis.keys]
        if len(set(named)) < len(named) or len(set(values)) < len(values):
            raise ParamsError(f"`{assignment}` says something twice: name a param once, with values that differ.")
    if not axes:
        raise ParamsError("nothing to sweep over. Name a param: wm sweep seed=0,1,2 --target evaluate@doom-1")
    return axes


def text(table: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table, with what to do next below it."""
    settings = [name for name in table[0] if name not in OWN]
    lines = [("experiment", *settings, "agent", "dream", "real ± std. error", "n", "random", "state")]
    for row in table:
        dream, real, random = (row.get(world) for world in WORLDS)
        scores = (score_text(dream), score_text(real), str(real["n"]) if real else "-", score_text(random))
        lines.append((row["experiment"], *(row[name] for name in settings), row.get("agent", "-"), *scores, row["state"]))
    parts, states = [align(lines)], {row["state"] for row in table}
    if "failed" in states:
        parts.append("\n".join(f"{row['experiment']} failed: {row['reason']}" for row in table if row["state"] == "failed"))
    if "would run" in states:
        parts.append("Nothing was run (--dry).")
    elif "queued" in states:
        parts.append("`dvc queue start -j 1` runs them, `dvc queue status` shows how far they are; then `wm track sync`.")
    else:
        parts.append(
            "`dvc exp show` and `dvc plots diff EXPERIMENT ...` compare them; `dvc exp apply EXPERIMENT` takes one\n"
            "over. In MLflow (`make ui`) they are the runs with tags.`wm.kind` = 'experiment'. `dvc gc -w --all-experiments`\n"
            "makes room on the disk and keeps their results."
        )
    return "\n\n".join(parts)


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


def _labels(keys: Sequence[str]) -> list[str]:
    """Return the shortest ending of each key that tells it from the others.

    >>> _labels(["doom.vision.refresh", "doom.memory.refresh", "doom.evaluate.temperature", "seed"])
    ['vision.refresh', 'memory.refresh', 'temperature', 'seed']
    """
    endings = [[key.split(".", i)[-1] for i in range(key.count("."), -1, -1)] for key in keys]
    uses = Counter([*OWN, *itertools.chain(*endings)])
    return [next((ending for ending in own if uses[ending] == 1), own[-1]) for own in endings]


def _points(root: Path, axes: Sequence[Axis], targets: Sequence[str]) -> list[Point]:
    """Return all combinations, checked. A name is another one if the code, the params or the targets are others."""
    labels, state = _labels([axis.keys[0] for axis in axes]), _state(root, targets)
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST:
        raise ParamsError(f"that makes {count} experiments; {MOST} are the most. Leave some values out.")
    points = []
    for values in itertools.product(*(axis.values for axis in axes)):
        params = {key: value for axis, value in zip(axes, values, strict=True) for key in axis.keys}
        columns = dict(zip(labels, values, strict=True))
        readable = "-".join(f"{label}-{value}" for label, value in columns.items())
        readable = re.sub(r"[^A-Za-z0-9.-]+|\.(?=\.|$)", "_", readable).strip("._-")[:80].rstrip("._-")
        digest = hashlib.sha256(repr((state, sorted(params.items()))).encode()).hexdigest()[:6]
        points.append(Point(f"{readable}-{digest}", columns, params, _scored(_checked(root, params), targets)))
    return points


def _checked(root: Path, params: Mapping[str, str]) -> Project:
    """Return what ``dvc exp run --set-param`` makes of params.yaml.

    DVC's own code writes it into a copy, so that what is checked before hours of work is what the stages read.

    Raises:
        ParamsError: params are wrong; the message names every problem.
    """
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides

    load_yaml(root / PARAMS_FILE)  # with its own message
    told, settings = " ".join(f"{key}={value}" for key, value in params.items()), _settings(params)

    def write(path: Path) -> None:
        shutil.copy(root / PARAMS_FILE, path)
        try:
            several = any(override.is_sweep_override() for override in to_hydra_overrides(settings))
            if not several:
                apply_overrides(path, settings)
        except Exception as error:  # hydra, omegaconf and ruamel each have their own
            reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise ParamsError(f"{told}: DVC cannot set this ({reason[0]}).") from None
        if several:
            raise ParamsError(f"{told}: a value must be one value; write several with commas between them.")

    return validated(write, told)


def _settings(params: Mapping[str, str]) -> list[str]:
    """Return what DVC is told to set. ``++``: also a key that params.yaml leaves at its default."""
    return [f"++{key}={value}" for key, value in params.items()]


def _scored(project: Project, targets: Sequence[str]) -> set[str]:
    """Return the agents whose scores these targets make; no targets are all.

    Raises:
        ParamsError: a target is no stage, or is of a key that is not in params.yaml.
    """
    scored: set[str] = set()
    for target in targets or ["evaluate"]:
        stage, mark, key = target.partition("@")
        if stage not in STAGES:
            raise ParamsError(f"there is no stage `{target}`.{nearest(stage, STAGES)}")
        keys = list(getattr(project, STAGES[stage])) if STAGES[stage] else []
        if mark and key not in keys:
            raise ParamsError(f"there is no stage `{target}`.{nearest(target, [f'{stage}@{each}' for each in keys])}")
        if stage == "evaluate":
            scored |= {key} if mark else set(keys)
    return scored


def _scores(root: Path, point: Point) -> dict[str, Any] | None:
    """Return an experiment's scores by agent; None if it is not there or lacks an agent that it is for."""
    experiment = next((each for each in list_experiments(root) if each.name == point.name), None)
    try:
        scores = read_result(root, experiment).scores if experiment else None
    except WorldModelsError:
        return None
    return scores if scores is not None and point.agents <= scores.keys() else None


def _run(root: Path, point: Point, targets: Sequence[str], *, queue: bool) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Run one experiment by DVC, or queue it; return its scores, and its state, with the reason if it failed."""
    settings = [argument for setting in _settings(point.params) for argument in ("--set-param", setting)]
    code, last = _dvc(root, "exp", "run", "--queue" if queue else "--temp", "--name", point.name, *settings, *targets)
    if code:
        return None, {"state": "failed", "reason": last or f"DVC ended with {code}"}
    if queue:
        return None, {"state": "queued"}
    scores = _scores(root, point)
    if scores is None:
        what = f"scores of {', '.join(sorted(point.agents))}" if point.agents else "experiment"
        return None, {"state": "failed", "reason": f"DVC kept no {what} ({last})"}
    return scores, {"state": "done"}


def _dvc(root: Path, *arguments: str) -> tuple[int, str]:
    """Run DVC; what it says goes to stderr. Return its exit code, and its last word: an error if there was one."""
    # The experiment runs the code in its own folder, wherever the package is installed.
    command, own = [sys.executable, "-m", "dvc", *arguments], own_code()
    pipe, both, said = subprocess.PIPE, subprocess.STDOUT, deque[str](maxlen=200)
    with subprocess.Popen(command, cwd=root, env=own, stdout=pipe, stderr=both, text=True, errors="replace") as process:
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            said += [line.strip()] if line.strip() else []
    errors = [line for line in said if line.startswith("ERROR:")]
    stages = [line for line in said if line.partition(": ")[0] in STAGES]
    return process.returncode, (stages or errors or list(said) or [""])[-1]


def _state(root: Path, targets: Sequence[str]) -> str:
    """Return what an experiment's result depends on besides its settings: the commit, edits of it, targets."""
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise WorldModelsError("this clone is shallow: DVC keeps no experiment in it. `git fetch --unshallow` brings the rest.")
    parts = [sorted(targets)]
    for command in (["rev-parse", "HEAD"], ["diff", "HEAD", "--", ".", ":(exclude)dvc.lock"]):
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorldModelsError("experiments are commits: this folder needs git and a first commit of its own.")
        parts.append([done.stdout])
    return repr(parts)
