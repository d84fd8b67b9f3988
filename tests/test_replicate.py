"""``wm replicate``: two seeds of one iteration, for real; the statistics beside what can be known without them."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from lab import commit, free_port, make_project, one_iteration, run
from mlflow import MlflowClient

from worldmodels.cli.replicate import parse_seeds, replicate
from worldmodels.errors import ParamsError
from worldmodels.report.comparisons import profile_lines
from worldmodels.report.several import summary
from worldmodels.report.statistics import chance_above, draws, improvement, interval, mean, share_above
from worldmodels.tracking.dvclock import artifact_hash
from worldmodels.tracking.runs import RunStore

REPLICATE = ("wm", "replicate", "tiny", "--seeds", "1,0", "--game", "doom")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with two seeds of the preset ``tiny``; ``said`` beside it is what the command said."""
    folder = make_project(tmp_path_factory.mktemp("replicate") / "project", one_iteration())
    (folder / "presets/tiny.yaml").write_text((folder / "params.yaml").read_text())
    commit(folder, "A preset")
    (folder / "params.yaml").write_text("edited: and of no matter\n")
    done = run(folder, *REPLICATE)
    (folder.parent / "said").write_text(done.stdout)
    return folder


def test_each_seed_is_computed_from_nothing_with_its_seed_and_the_rest_of_the_preset(folder):
    preset = yaml.safe_load((folder / "presets/tiny.yaml").read_text())
    scores = []
    for seed in (0, 1):
        own = folder / f"replicas/tiny/seed-{seed}"
        assert yaml.safe_load((own / "params.yaml").read_text()) == preset | {"seed": seed}
        scores.append(json.loads((own / "metrics/doom-1.json").read_text()))
        assert scores[-1]["seed"] == seed
        assert json.loads((own / ".tracking/times.json").read_text())["memory@doom-1"][1] > 0
    told = (folder.parent / "said").read_text()
    assert "2 of 2 seeds to compute" in told
    line = next(line for line in told.splitlines() if line.startswith("doom-1 "))
    assert line.split()[1] == f"{np.mean([score['real']['mean'] for score in scores]):,.0f}"
    assert line.endswith(", ".join(f"{score['real']['mean']:,.0f}" for score in scores))
    assert "Seeds 0, 1; " in told


def test_a_page_has_the_table_and_the_figure_and_wm_show_names_it(folder):
    page = (folder / "replicas/tiny/index.html").read_text()
    line = next(line for line in (folder.parent / "said").read_text().splitlines() if line.startswith("doom-1 "))
    for cell in re.split(r"  +", line):
        assert f">{cell}<" in page
    assert "in the mean of 2 seeds" in page
    assert base64.b64encode((folder / "replicas/tiny/doom.png").read_bytes()).decode() in page
    (folder / "params.yaml").write_text((folder / "presets/tiny.yaml").read_text())
    assert "replicas/tiny/index.html" in run(folder, "wm", "show").stdout


def test_of_a_single_seed_no_mean_is_told(folder):
    told = summary("doom", ["doom-1"], {1: folder / "replicas/tiny/seed-1"}, 2100, 3)
    assert told.note == "Seed 1; 3 minutes a seed, its stages summed."
    assert re.fullmatch(r"doom-1 gets [\d,]+ \(95 %: [\d,]+ to [\d,]+\), on \d+ \w+ episodes\.", told.sentence)


def test_a_seed_that_is_done_has_its_models_and_no_frames_and_is_not_computed_again(folder):
    for seed in (0, 1):
        models = folder / f"replicas/tiny/seed-{seed}/artifacts/world_models/doom-1"
        assert (models / "memory.safetensors").exists()
        assert not (models / "episodes").exists()
    kept = sum(path.stat().st_size for path in (folder / "replicas/cache").rglob("*") if path.is_file())
    lock = yaml.safe_load((folder / "replicas/tiny/seed-0/dvc.lock").read_text())["stages"]
    frames = next(out["size"] for out in lock["collect@doom-1"]["outs"] if out["path"].endswith("/episodes"))
    models = sum(out["size"] for stage in lock.values() for out in stage["outs"] if not out["path"].endswith("/episodes"))
    assert frames > 0
    assert kept < 2 * models + frames
    again = run(folder, *REPLICATE).stdout
    assert "0 of 2 seeds to compute" in again
    assert again.splitlines()[1:] == (folder.parent / "said").read_text().splitlines()[-len(again.splitlines()) + 1 :]


def test_seeds_that_are_done_are_rows_of_the_ledger_with_the_minutes_of_their_stages(folder):
    run(folder, "wm", "ledger", "add", "--run", "two", "--replicas", "tiny")
    rows = pd.read_csv(folder / "results/ledger.csv").query("agent == 'doom-1'")
    assert rows["chain_seed"].tolist() == [0, 1]
    for seed, minutes in enumerate(rows["minutes"]):
        times = json.loads((folder / f"replicas/tiny/seed-{seed}/.tracking/times.json").read_text())
        needed = ("initialise@doom", *(f"{stage}@doom-1" for stage in ("collect", "vision", "encode", "memory", "controller")))
        assert minutes == pytest.approx(sum(times[stage][1] for stage in needed) / 60, abs=0.01)
    none = run(folder, "wm", "ledger", "add", "--run", "none", "--replicas", "laptop", check=False)
    assert "`wm replicate laptop`" in none.stderr


def test_what_seeds_score_together_is_one_run_in_mlflow_however_often_it_is_said(folder, monkeypatch, capsys):
    monkeypatch.delenv("WM_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{folder}/mlflow.db")
    client, own = MlflowClient(uri), {seed: folder / f"replicas/tiny/seed-{seed}" for seed in (0, 1)}
    replicate(folder, "tiny", [0, 1], [])
    # As if the seeds were tracked on the same server: the run in which one was evaluated is found.
    game = client.get_experiment_by_name("worldmodels-doom").experiment_id
    md5 = artifact_hash(own[1] / "metrics/doom-1.json")
    tested = RunStore(client, game).create_stage("evaluate", "doom-1", {"wm.artifact": md5}, None)
    replicate(folder, "tiny", [0, 1], [])

    (found,) = client.search_runs([game], "tags.`wm.kind` = 'seeds'")
    assert (found.info.run_name, found.info.status) == ("tiny: 2 seeds", "FINISHED")
    commit = run(own[0], "git", "rev-parse", "--short", "HEAD").stdout.strip()
    assert found.data.params == {"preset": "tiny", "seeds": "0, 1", "commit": commit}
    means = [json.loads((each / "metrics/doom-1.json").read_text())["real"]["mean"] for each in own.values()]
    metrics = found.data.metrics
    assert metrics["Seeds/mean"] == pytest.approx(np.mean(means))
    assert min(means) - 50 < metrics["Seeds/low"] < metrics["Seeds/high"] < max(means) + 50
    assert set(metrics) == {f"Seeds/{name}" for name in ("mean", "low", "high", "interquartile_mean", "above_blind")}
    assert len(client.get_metric_history(found.info.run_id, "Seeds/mean")) == 1
    assert found.data.tags["wm.seed.1"] == md5
    note = found.data.tags["mlflow.note.content"]
    assert note.startswith("doom-1 gets ")
    assert "| Take Cover | mean of seeds |" in note
    assert f"Seed 0: `replicas/tiny/seed-0`. Seed 1: [its run](#/experiments/{game}/runs/{tested})." in note
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["doom.png"]
    assert "warning" not in capsys.readouterr().err


def test_a_server_that_cannot_be_reached_is_one_line_and_the_table_is_there(folder, monkeypatch, capsys):
    monkeypatch.delenv("WM_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    page = folder / "replicas/tiny/index.html"
    page.unlink()
    replicate(folder, "tiny", [0, 1], [])
    said = capsys.readouterr()
    assert "doom-1 " in said.out
    assert page.exists()
    assert said.err.startswith("warning: MLflow at http://127.0.0.1")
    assert said.err.endswith("The same command logs the table later.\n")
    assert said.err.count("\n") == 1


def test_edits_that_a_clone_would_not_have_are_refused(folder):
    code = folder / "src/worldmodels/seeds.py"
    before = code.read_text()
    code.write_text(before + "# edited\n")
    refused = run(folder, "wm", "replicate", "tiny", "--seeds", "2", check=False)
    code.write_text(before)
    assert refused.returncode == 2
    assert "src/worldmodels/seeds.py" in refused.stderr
    assert not (folder / "replicas/tiny/seed-2").exists()


@pytest.mark.parametrize("more", [("--dry",), ("--game", "pong")])
def test_what_is_only_asked_and_what_cannot_be_used_makes_no_clone(folder, more):
    told = run(folder, "wm", "replicate", "tiny", "--seeds", "3", *more, check=False)
    assert ("1 of 1 seeds to compute: about" in told.stdout) is (more == ("--dry",))
    assert ("no game `pong`. It has: doom" in told.stderr) is (more != ("--dry",))
    assert not list((folder / "replicas/tiny").glob("seed-3*"))


@pytest.mark.parametrize("text", ["", "a", "1,1", "-1", "0;1"])
def test_seeds_are_different_numbers(text):
    with pytest.raises(ParamsError, match="--seeds"):
        parse_seeds(text)


def test_an_interval_over_seeds_is_as_wide_as_seeds_differ_however_many_episodes_they_have():
    random = np.random.default_rng(1)
    runs = [level + random.standard_normal(2000) for level in (0.0, 10.0, 20.0)]
    low, high = interval([mean(drawn) for drawn in draws(runs)])
    assert (low + high) / 2 == pytest.approx(10, abs=0.1)
    assert 15 < high - low < 20  # of three seeds: all draws of one and the same seed are 1 in 9
    low, high = interval([mean(drawn) for drawn in draws([random.standard_normal(400) for _ in range(3)])])
    expected = 2 * 1.96 / np.sqrt(1200)
    assert expected < high - low < 2 * expected  # seeds by chance, and episodes


def test_a_recipe_that_is_better_by_more_than_its_error_is_better_in_most_draws():
    runs = [np.array([9.0, 11.0]), np.array([10.0, 12.0])]
    assert improvement(runs, np.array([0.0, 1.0])) == 1
    assert improvement(runs, runs[0]) == np.mean([0.5, 0.75])
    means = [mean(drawn) for drawn in draws(runs)]
    assert chance_above(means, 8.0) == 1
    assert chance_above(means, 13.0) == 0
    assert 0.2 < chance_above(means, 10.5, stderr=1.0) < 0.8
    assert share_above(runs, np.array([9.5, 12.0])).tolist() == [0.75, 0.25]


def test_lives_that_the_limit_cut_off_are_marked_and_nothing_is_drawn_beyond():
    runs = [np.array([100.0, 2100.0]), np.array([2100.0, 700.0])]
    cut, whole = (profile_lines(runs, draws(runs), np.array([200.0, 300.0]), limit) for limit in (2100.0, None))
    assert (cut != whole).any()
