"""Experiments: DVC's own commands and ``wm sweep``, on one real iteration, and what MLflow makes of them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from lab import commit, run
from mlflow import MlflowClient
from PIL import Image
from tiny import ROOT

from worldmodels.cli.sweep import parse, sweep
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.tracking.dvclock import Entry, in_force
from worldmodels.tracking.experiments import Experiment, list_experiments, read_result

TARGET = "evaluate@doom-1"
TEMPERATURE = "doom.evaluate.temperature"
SEARCH = "doom.controllers.dream.phases.search"
SCORES = "metrics/doom-1.json"


@pytest.fixture(scope="module")
def project(iteration, tmp_path_factory):
    """One iteration, computed and committed."""
    return Path(shutil.copytree(iteration, tmp_path_factory.mktemp("lab") / "project"))


@pytest.fixture(scope="module")
def experiments(project):
    """One experiment by each of DVC's ways: in the workspace, and queued."""
    tracked = {"WM_TRACKING": "on"}
    done = run(project, "dvc", "exp", "run", "-n", "bold", "-S", f"++{SEARCH}.sigma=0.2", TARGET, **tracked)
    assert set(re.findall(r"Running stage '(.+?)'", done.stdout)) == {"controller@doom-1", TARGET}
    run(project, "git", "checkout", "-q", ".")
    run(project, "dvc", "checkout", "-q")
    run(project, "dvc", "exp", "run", "--queue", "-n", "warm", "-S", f"++{TEMPERATURE}=1.5", TARGET, **tracked)
    run(project, "dvc", "exp", "run", "--run-all", **tracked)
    assert {experiment.name for experiment in list_experiments(project)} == {"bold", "warm"}
    return project


@pytest.fixture(scope="module")
def swept(experiments):
    """The same project after a sweep; what the sweep said."""
    command = ("wm", "sweep", f"{TEMPERATURE}=0.5,1.5", "seed=0", "--target", TARGET)
    return run(experiments, *command, WM_TRACKING="on"), command


def runs_of(folder, **tags):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("worldmodels-doom").experiment_id
    query = " and ".join(f"tags.`{name.replace('_', '.')}` = '{value}'" for name, value in tags.items())
    return client.search_runs([experiment], query)


def test_a_sweep_runs_every_combination_and_every_experiment_is_a_run_of_its_name(experiments, swept):
    folder, (done, _) = experiments, swept
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("temperature-")]
    assert [re.sub(r"-[0-9a-f]{6}$", "", name) for name in names] == ["temperature-0.5-seed-0", "temperature-1.5-seed-0"]
    assert all(line.split()[-1] == "done" for line in done.stdout.splitlines() if line.startswith("temperature-"))
    assert run(folder, "git", "status", "--porcelain").stdout == ""  # the workspace is as it was

    found = {run.info.run_name: run for run in runs_of(folder, wm_kind="experiment")}
    assert set(found) == {"bold", "warm", *names}
    for name, run_ in found.items():
        assert run_.info.status == "FINISHED"
        assert run_.data.tags["dvc.experiment"] == name
        live = runs_of(folder, wm_kind="stage", dvc_experiment=name)
        stages = {r.data.tags["wm.stage"] for r in live}
        expected = {"bold": {"controller", "evaluate"}, names[1]: set()}  # `warm` has the same as the second of the sweep
        assert stages == expected.get(name, {"evaluate"})
        assert {r.data.tags["mlflow.parentRunId"] for r in live} <= {run_.info.run_id}
    assert {name: found[name].data.params[TEMPERATURE] for name in ("warm", *names)} == {
        "warm": "1.5", names[0]: "0.5", names[1]: "1.5"
    }  # fmt: skip
    assert found["bold"].data.params[f"{SEARCH}.sigma"] == "0.2"
    scores = json.loads((folder / SCORES).read_text())
    assert found["warm"].data.metrics["doom-1/Agent/score"] == scores["real"]["mean"]  # the dream's temperature is no matter
    assert not runs_of(folder, wm_kind="iteration")


def test_the_same_sweep_again_runs_nothing_and_adds_nothing(experiments, swept):
    folder, (done, command) = experiments, swept
    before = len(runs_of(folder, wm_kind="experiment"))
    again = run(folder, *command, WM_TRACKING="on")
    assert "Running stage" not in again.stderr
    assert again.stderr.count("not run again") == 2
    assert again.stdout == done.stdout
    assert len(runs_of(folder, wm_kind="experiment")) == before
    rows = json.loads(run(folder, *command, "--dry", "--json").stdout)
    assert [(row["temperature"], row["state"], row["agent"]) for row in rows] == [
        ("0.5", "done", "doom-1"), ("1.5", "done", "doom-1")
    ]  # fmt: skip


def test_a_sweep_of_two_params_that_go_together_is_drawn(experiments, swept):
    folder, _ = experiments, swept
    both = f"{TEMPERATURE},doom.controllers.dream.phases.search.temperature=0.5,1.5"
    dry = json.loads(run(folder, "wm", "sweep", both, "--dry", "--json").stdout)
    assert [row["temperature"] for row in dry] == ["0.5", "1.5"]
    command = ("wm", "sweep", f"{TEMPERATURE}=0.5,1.5", "seed=0", "--target", TARGET, "--figure")
    run(folder, *command, "found.png")
    assert np.asarray(Image.open(folder / "found.png")).std() > 10
    assert run(folder, *command, "found.jpg", check=False).returncode == 2


def test_dvc_shows_experiments_with_params_and_scores_side_by_side(experiments):
    shown = json.loads(run(experiments, "dvc", "exp", "show", "--json").stdout)
    rows = {exp["name"]: exp["revs"][0]["data"] for entry in shown for exp in entry["experiments"] or []}
    for name, (temperature, sigma) in {"bold": (None, 0.2), "warm": (1.5, None)}.items():  # None: left at its default
        params = rows[name]["params"]["params.yaml"]["data"]["doom"]
        assert params["evaluate"].get("temperature") == temperature
        assert params["controllers"]["dream"]["phases"]["search"].get("sigma") == sigma
        scores = rows[name]["metrics"][SCORES]["data"]
        assert scores["dream"]["temperature"] == (temperature or 1.0)
        assert scores["real"]["n"] == 2


def test_dvc_metrics_diff_names_what_changed_and_the_random_policy_s_score_is_a_metric(experiments):
    changed = json.loads(run(experiments, "dvc", "metrics", "diff", "main", "warm", "--json").stdout)
    temperature = changed[SCORES]["dream.temperature"]
    assert (temperature["old"], temperature["new"], temperature["diff"]) == (1.0, 1.5, 0.5)
    shown = json.loads(run(experiments, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert shown["metrics/doom-0.json"]["data"]["real"]["n"] == 2


def test_dvc_plots_diff_draws_curves_with_titles_and_axes(experiments, tmp_path):
    told = json.loads(run(experiments, "dvc", "plots", "diff", "main", "bold", "--json", "--out", str(tmp_path)).stdout)["data"]
    shown = {name: plots[0]["content"] for name, plots in told.items() if plots and plots[0].get("content")}
    for path, title, step in (
        ("artifacts/world_models/doom-1/vision.csv", "V of doom-1: loss", "update"),
        ("artifacts/world_models/doom-1/memory.csv", "M of doom-1: loss", "update"),
        ("artifacts/agents/doom-1/controller.csv", "C of doom-1: mean return", "generation"),
    ):
        curve = shown[path]
        assert curve["title"]["text"] == title
        assert curve["encoding"]["x"]["title"] == step
        (label,) = [key for key in ("split", "phase") if key in curve["data"]["values"][0]]
        parts = {row[label] for row in curve["data"]["values"]}
        assert parts == ({"train", "validation"} if label == "split" else {"search", "learn", "selection"})
        assert {row["rev"] for row in curve["data"]["values"]} == {"main", "bold"}
    rows = [row for row in shown["artifacts/agents/doom-1/controller.csv"]["data"]["values"] if row["phase"] == "search"]
    assert {float(row["sigma"]) > 0.15 for row in rows if row["rev"] == "bold"} == {True}


def test_a_failing_experiment_is_reported_and_the_others_run(iteration, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(iteration, folder)
    stage = folder / "pipeline" / "evaluate.py"
    dreams = "yaml.safe_load(open('params.yaml'))['doom']['evaluate']['dreams']"
    broken = f"import yaml\nif {dreams} == 3:\n    raise SystemExit(3)\n"
    stage.write_text(broken + stage.read_text())
    done = run(folder, "wm", "sweep", "doom.evaluate.dreams=3,4", "--target", TARGET, "--json", check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [row["state"] for row in json.loads(done.stdout)] == ["failed", "done"]
    assert not (folder / "mlflow.db").exists()  # WM_TRACKING=off


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{TEMPERATURE}=0.5,-1"], "greater than 0"),
        (["doom.evaluate.temprature=1"], "Did you mean `temperature`?"),
        (["doom.evaluate=1"], "doom.evaluate"),
        (["seed=0,0"], "twice"),
        (["seed"], "key=value"),
        (["seed=" + ",".join(map(str, range(201)))], "200 are the most"),
    ],
)
def test_a_sweep_is_checked_as_a_whole_before_anything_runs(project, arguments, message):
    before = list_experiments(project)
    with pytest.raises(ParamsError, match=re.escape(message)):
        sweep(project, arguments, [TARGET])
    assert list_experiments(project) == before


def test_lists_are_values_and_the_axes_keep_the_order_they_were_typed_in():
    axes = parse(["doom.collect.strengths=[0.0,0.5],[1.0]", "seed=2,1"])
    assert [(axis.keys, axis.values) for axis in axes] == [
        (("doom.collect.strengths",), ("[0.0,0.5]", "[1.0]")), (("seed",), ("2", "1"))
    ]  # fmt: skip
    with pytest.raises(ParamsError, match="nothing to sweep"):
        parse([])


def test_outside_of_git_the_message_says_what_is_needed(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = run(tmp_path, "wm", "sweep", "seed=0,1", PYTHONPATH=str(ROOT / "src"), check=False)
    assert done.returncode == 1
    assert "needs git and a first commit" in done.stderr


def test_a_result_is_in_force_only_if_all_that_it_was_made_of_is():
    first = Entry("vision", "doom-1", "doom", {"doom.vision": {"sigma": 1}}, {}, {"artifacts/v": "1"})
    second = Entry("evaluate", "doom-1", "doom", {"seed": 0}, {"artifacts/v": "1"}, {"artifacts/s": "2"})
    params = {"doom": {"vision": {"sigma": 1}}, "seed": 0}
    assert in_force([first, second], params) == [first, second]
    assert in_force([first, second]) == [first, second]
    assert in_force([first, second], {**params, "seed": 1}) == [first]
    assert in_force([first, second], {"doom": {"vision": {"sigma": 2}}, "seed": 0}) == []
    assert in_force([first, second], {"doom": {"vision": {"sigma": 1, "added": 2}}, "seed": 0}) == []
    elsewhere = Entry("vision", "doom-1", "doom", {"doom.vision": {"sigma": 1}}, {}, {"artifacts/v": "3"})
    assert in_force([elsewhere, second], params) == [elsewhere]
    assert in_force([Entry("vision", "a", "doom", {}, {"x": "1"}, {"x": "1"})]) == []  # it needs itself


def test_an_experiment_that_is_no_state_of_this_project_says_how_to_remove_it(tmp_path):
    run(tmp_path, "git", "init", "-q", "-b", "main")
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("stages: {a: 1, a: 2}")
    commit(tmp_path, "odd")
    head = run(tmp_path, "git", "rev-parse", "HEAD").stdout.strip()
    with pytest.raises(WorldModelsError, match="dvc exp remove odd"):
        read_result(tmp_path, Experiment("odd", head, head))
    with pytest.raises(WorldModelsError, match="it lacks"):
        read_result(tmp_path, Experiment("gone", "0" * 40, head))


def test_the_curves_have_titles_and_labels_and_scores_stay_readable_in_git():
    stages = {name: body.get("do", body) for name, body in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()}
    plots = [plot for stage in stages.values() for each in stage.get("plots", []) for plot in each.items()]
    assert sorted(path.rpartition("/")[2] for path, _ in plots) == ["controller.csv", "memory.csv", "vision.csv"]
    assert all(body["title"] and body["x_label"] and body["template"] == "curve" for _, body in plots)
    metrics = [metric for stage in stages.values() for each in stage.get("metrics", []) for metric in each.items()]
    assert metrics == [("metrics/${item}-0.json", {"cache": False}), ("metrics/${key}.json", {"cache": False})]
