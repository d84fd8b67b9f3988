"""DVC's experiments in MLflow: one run each, named as DVC names it, with params and scores of all of them side by side.

An experiment is a git commit below ``refs/exps`` with a params.yaml and a dvc.lock of its own. Stages that ran in it are live
runs with the tag ``dvc.experiment``, below the experiment's run, which is open until it is mirrored.
"""

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.params import parse_yaml
from worldmodels.storage.files import read_json
from worldmodels.tracking.dvclock import in_force, parse_lock
from worldmodels.tracking.points import figures
from worldmodels.tracking.store import lock, opened

if TYPE_CHECKING:
    from worldmodels.tracking.runs import RunStore

_REFERENCE = re.compile(r"([0-9a-f]{40}) refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/(.+)")  # exec, stash, ... are DVC's own


@dataclass(frozen=True)
class Experiment:
    """One experiment of DVC.

    Attributes:
        name: DVC's.
        commit: its own.
        baseline: the commit that it started from.
    """

    name: str
    commit: str
    baseline: str


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        params: those that its stages read, by the names of params.yaml.
        scores: agent -> what its metrics/<key>.json says. Only of agents that were made with the experiment's params: a
            target leaves the others in dvc.lock as they were.
    """

    params: dict[str, Any]
    scores: dict[str, dict[str, Any]]


def list_experiments(root: Path) -> list[Experiment]:
    """Return all experiments in the repository, by name; none outside of git."""
    listed = _git(root, "for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)", "refs/exps")
    found = [_REFERENCE.fullmatch(line) for line in (listed or "").splitlines()]
    return [Experiment(match[3], match[1], match[2].replace("/", "")) for match in found if match]


def read_result(root: Path, experiment: Experiment) -> Result:
    """Return an experiment's params and scores; scores that neither git, the cache nor the workspace holds are left out.

    Raises:
        WorldModelsError: its commit is gone, or is no state of this project.
    """
    texts = [_git(root, "show", f"{experiment.commit}:./{name}") for name in ("params.yaml", "dvc.lock")]
    try:
        if None in texts:
            raise ValueError("it lacks params.yaml or dvc.lock")
        entries = in_force(parse_lock(str(texts[1])), parse_yaml(str(texts[0])))
    except (ValueError, ArtifactError) as error:
        name = experiment.name
        raise WorldModelsError(
            f"experiment {name} is no state of this project ({error}). `dvc exp remove {name}` removes it."
        ) from None
    evaluated = {entry.key: entry.primary for entry in entries if entry.stage == "evaluate"}
    params = {name: value for entry in entries for name, value in entry.params.items()}
    return Result(params, _scores(root, experiment.commit, evaluated) if evaluated else {})


def mirror_experiments(root: Path) -> int:
    """Make sure that MLflow has one complete run for every experiment; return how many were added.

    Idempotent. The run's metrics are the scores, as ``doom-1/real/mean``.

    Raises:
        WorldModelsError: an experiment cannot be read, or MLflow cannot be used.
    """
    found = list_experiments(root)
    if not found:
        return 0
    with opened(root) as (client, place), lock(root):
        from worldmodels.tracking.runs import RunStore

        runs = RunStore(client, place)
        known = {run.data.tags.get("dvc.commit") for run in runs.find(kind="experiment")}
        new = [experiment for experiment in found if experiment.commit not in known]
        for experiment in new:
            _complete(runs, experiment, read_result(root, experiment))
    return len(new)


def _complete(runs: "RunStore", experiment: Experiment, result: Result) -> None:
    run_id, now = runs.open_experiment(experiment.name), int(time.time() * 1000)
    runs.log_params(run_id, result.params)
    for key, scores in result.scores.items():
        runs.log_metrics(run_id, [({f"{key}/{name}": value for name, value in figures(scores).items()}, 0, now)])
    runs.tag(run_id, {"wm.open": "false", "dvc.commit": experiment.commit, "git.commit": experiment.baseline})
    runs.end(run_id, "FINISHED")


def _scores(root: Path, commit: str, paths: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Read the scores of agents as they were at a commit."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=commit)
    with tempfile.TemporaryDirectory() as place:
        found = {}
        for key, path in paths.items():
            try:
                files.get_file(path, f"{place}/{key}.json")
            except FileNotFoundError:  # neither in git nor in this machine's cache: `dvc exp pull` brings it
                continue
            found[key] = read_json(Path(place) / f"{key}.json")
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
