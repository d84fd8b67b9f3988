"""DVC's experiments in MLflow: a run in every game that one changes, named as DVC names it, params and scores side by side.

An experiment is a git commit below ``refs/exps`` with a params.yaml and a dvc.lock of its own. Stages that ran in it are live
runs with the tag ``dvc.experiment``, below the experiment's run, which is open until it is mirrored.
"""

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from worldmodels.errors import WorldModelsError
from worldmodels.params import parse_yaml
from worldmodels.tracking.dvclock import in_force, parse_lock
from worldmodels.tracking.git import git
from worldmodels.tracking.points import scores_of
from worldmodels.tracking.store import PREFIX, game_experiment, lock, opened

_REFERENCE = re.compile(r"(.+) ([0-9a-f]{40}) refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/.+")  # exec, stash, ... are DVC's own


class Experiment(NamedTuple):
    """One experiment of DVC, by its name."""

    name: str
    commit: str
    baseline: str  # the commit that it started from


class Result(NamedTuple):
    """What an experiment found.

    The scores, agent -> what its metrics/<key>.json says, are of agents that were made with the experiment's params: a
    target leaves the others in dvc.lock as they were.
    """

    params: dict[str, Any]  # those that its stages read, by the names of params.yaml
    scores: dict[str, dict[str, Any]]
    games: list[str]  # in which something is not as in its baseline; if nothing is, all


def list_experiments(root: Path) -> list[Experiment]:
    """Return all experiments in the repository, by name; none outside of git."""
    listed = git(root, "for-each-ref", "--sort=refname", "--format=%(refname:lstrip=4) %(objectname) %(refname)", "refs/exps")
    found = [_REFERENCE.fullmatch(line) for line in (listed or "").splitlines()]
    return [Experiment(match[1], match[2], match[3].replace("/", "")) for match in found if match]


def read_result(root: Path, experiment: Experiment) -> Result:
    """Return an experiment's params and scores; scores that neither git, the cache nor the workspace holds are left out.

    Raises:
        WorldModelsError: its commit is gone, or is no state of this project.
    """
    params, locked = (git(root, "show", f"{experiment.commit}:./{name}") for name in ("params.yaml", "dvc.lock"))
    before = git(root, "show", f"{experiment.baseline}:./dvc.lock")
    try:
        if params is None or locked is None:
            raise ValueError("it lacks params.yaml or dvc.lock")
        entries = [entry for entry in in_force(parse_lock(locked), parse_yaml(params)) if entry.env]
        same = parse_lock(before) if before else []
        evaluated = {entry.key: entry.primary for entry in entries if entry.stage == "evaluate"}
        scores = _scores(root, experiment.commit, evaluated) if evaluated else {}
    except (ValueError, WorldModelsError) as error:
        name = experiment.name
        raise WorldModelsError(
            f"experiment {name} is no state of this project ({error}). `dvc exp remove {name}` removes it."
        ) from None
    games = [entry.env for entry in entries if entry not in same] or [entry.env for entry in entries]
    told = {name: value for entry in entries for name, value in entry.params.items()}
    return Result(told, scores, list(dict.fromkeys(games)))


def mirror_experiments(root: Path) -> int:
    """Make sure that MLflow has one complete run for every experiment; return how many were added.

    Idempotent. The run's metrics are the scores, as ``doom-1/Agent/score``.

    Raises:
        WorldModelsError: an experiment cannot be read, or MLflow cannot be used.
    """
    found = list_experiments(root)
    if not found:
        return 0
    with opened(root) as client, lock(root):
        from worldmodels.tracking.runs import RunStore

        games, now = client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'"), int(time.time() * 1000)
        there = [run for game in games for run in RunStore(client, game.experiment_id).find(kind="experiment")]
        new = [each for each in found if each.commit not in {run.data.tags.get("dvc.commit") for run in there}]
        for experiment in new:
            result, made = read_result(root, experiment), []
            for game in result.games:
                runs = RunStore(client, game_experiment(client, root, game))
                run_id, others = runs.open_experiment(experiment.name), {each for each in result.games if each != game}
                runs.log_params(run_id, {k: v for k, v in result.params.items() if k.partition(".")[0] not in others})
                scores = {key: each for key, each in result.scores.items() if each["environment"] == game}
                named = [{f"{key}/{name}": v for name, v in scores_of(each).items()} for key, each in scores.items()]
                runs.log_metrics(run_id, [(metrics, 0, now) for metrics in named])
                made.append((runs, run_id))
            for runs, run_id in made:  # last: whoever finds one of them takes the experiment for mirrored
                runs.tag(run_id, {"wm.open": "false", "dvc.commit": experiment.commit, "git.commit": experiment.baseline})
                client.set_terminated(run_id, "FINISHED")
    return len(new)


def _scores(root: Path, commit: str, paths: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Read the scores of agents as they were at a commit."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(root), rev=commit)
    found = {}
    for key, path in paths.items():
        try:
            found[key] = json.loads(files.read_text(path))
        except FileNotFoundError:  # neither in git nor in this machine's cache: `dvc exp pull` brings it
            continue
    return found
