"""Where a run stands, as its stages say: beside what DVC itself does, on a real iteration."""

import math
import os
import re
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo
from lab import make_project, run
from tiny import tiny_params

from worldmodels.tracking.course import TIMES, Course, read_times, seconds_left
from worldmodels.tracking.plan import read_plan, targets_of


def stood(said: str) -> list[tuple[str, int, int]]:
    """Return what stages said of the run: stage, its number, how many there are."""
    found = re.findall(r"^(\w+ \S+): stage (\d+) of (\d+)", said, flags=re.M)
    return [(stage, int(number), int(count)) for stage, number, count in found]


ALL = ("initialise", "collect", "vision", "encode", "memory", "calibrate", "controller", "evaluate", "film", "report")


def test_every_stage_of_a_run_says_its_number_and_all_but_the_first_how_long_the_run_takes_yet(iteration):
    said = (iteration.parent / "said").read_text()
    stages = stood(said)
    assert [stage.split()[0] for stage, _, _ in stages] == re.findall(r"Running stage '(\w+)", said)
    assert {stage.split()[0] for stage, _, _ in stages} == set(ALL)
    assert [(number, count) for _, number, count in stages] == [(number, 10) for number in range(1, 11)]
    assert len(re.findall(r": stage \d+ of 10, about \d+ \w+ left$", said, flags=re.M)) == 9
    assert re.search(r": stage 1 of 10$", said, flags=re.M)


def test_a_part_of_a_run_is_counted_as_dvc_counts_it_and_what_still_holds_is_done(iteration, tmp_path):
    folder = Path(shutil.copytree(iteration, tmp_path / "project", symlinks=True))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["doom"]["memory"]["optimiser"]["learning_rate"] = 0.004
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = run(folder, "dvc", "repro", "evaluate@doom-1")  # not calibrate, film and report
    assert stood(done.stderr) == [("memory doom-1", 5, 7), ("controller doom-1", 6, 7), ("evaluate doom-1", 7, 7)]
    with (folder / "src/worldmodels/report/style.py").open("a") as file:
        file.write("# changed\n")
    run(folder, "dvc", "repro", "calibrate@doom-1", "-q")
    done = run(folder, "dvc", "repro")
    assert stood(done.stderr) == [("film doom-1", 9, 10), ("report report", 10, 10)]
    done = run(folder, "dvc", "repro", "--force", "initialise@doom")
    assert "Running stage 'initialise@doom'" in done.stdout
    assert not stood(done.stderr)  # what else it covers is not asked
    done = run(folder, sys.executable, "-m", "pipeline.initialise", "key=doom-0", "env=doom")
    assert not stood(done.stderr)


def test_the_plan_has_the_stages_of_dvc_and_what_they_need(tmp_path):
    folder = make_project(tmp_path / "project", tiny_params())
    with Repo(str(folder)) as repo:
        whole, stages = repo.index.graph, repo.index.stages
        graph = {stage.name: {other.name for other in whole.successors(stage)} for stage in stages}

    def needed(stage: str) -> set[str]:
        return {stage}.union(*map(needed, graph[stage]))

    for target in graph:
        assert set(read_plan(folder, target, [target]).covered) == needed(target)
    both = read_plan(folder, "evaluate@doom-1", ["evaluate", "film@doom-1"])
    assert set(both.covered) == needed("film@doom-1").union(
        *(needed(stage) for stage in graph if stage.startswith("evaluate@"))
    )
    assert both.left == both.covered
    with pytest.raises(LookupError):
        read_plan(folder, "film@doom-1", ["evaluate@doom-1"])  # dvc runs something else than it was understood to


def test_what_is_no_plain_repro_is_not_understood():
    for command in ("dvc repro -s a", "dvc repro --downstream a", "dvc exp run", "dvc queue start", "make repro", "python dvc"):
        assert targets_of(command.split()) is None
    assert targets_of(["python", "-m", "dvc", "--wait-for-lock", "repro", "a", "-q", "b"]) == ["a", "b"]


def test_the_time_left_is_that_of_this_machine_and_of_each_kind_of_stage():
    expected = {"vision@a": 600.0, "vision@b": 600.0, "evaluate@a": 1000.0}
    assert math.isnan(seconds_left(expected, ["vision@b"], {}))
    slow = {"vision@a": (600.0, 2400.0)}
    assert seconds_left(expected, ["vision@b"], slow) == pytest.approx(4 * 600)
    assert seconds_left(expected, ["evaluate@a"], slow) == pytest.approx(4 * 1000)  # by what all kinds took
    both = slow | {"evaluate@a": (1000.0, 500.0)}
    assert 0.45 * 1000 < seconds_left(expected, ["evaluate@a"], both) < 0.65 * 1000
    assert 3.3 * 600 < seconds_left(expected, ["vision@b"], both) < 4 * 600
    assert math.isnan(seconds_left(expected | {"vision@b": math.nan}, ["vision@b"], slow))
    assert math.isnan(seconds_left(expected, ["vision@a", "vision@b"], {"initialise@a": (50.0, 200.0)}))  # says too little


@pytest.mark.parametrize("path", ["dvc.yaml", "dvc.lock", "params.yaml", ".tracking/times.json"])
@pytest.mark.parametrize("content", [b"\xff", b"[" * 500, b"stages: 3", b"{}"])
def test_whatever_is_in_its_files_a_stage_says_less_and_goes_on(iteration, tmp_path, monkeypatch, path, content):
    folder = Path(shutil.copytree(iteration, tmp_path / "project", ignore=shutil.ignore_patterns("artifacts", ".dvc", ".git")))
    monkeypatch.setenv("DVC_STAGE", "vision@doom-1")
    monkeypatch.setattr("worldmodels.tracking.course.asked_for", lambda: [])
    whole = Course(folder, tmp_path / "no checkpoint")
    assert re.fullmatch(r"stage 1?\d of 10, about \d+ \w+ left", whole.text)
    (folder / path).write_bytes(content)
    course = Course(folder, tmp_path / "no checkpoint")
    assert whole.text.startswith(course.text) or path == "dvc.lock"
    course.end()


def test_a_stage_that_was_killed_took_the_time_of_all_its_runs_as_far_as_they_were_kept(iteration, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(iteration, tmp_path / "project", ignore=shutil.ignore_patterns("artifacts", ".dvc", ".git")))
    checkpoint, now = tmp_path / "checkpoint", time.time()
    monkeypatch.setenv("DVC_STAGE", "vision@doom-1")
    monkeypatch.setattr("worldmodels.tracking.course.asked_for", lambda: [])
    monkeypatch.setattr("worldmodels.tracking.course.time", SimpleNamespace(time=lambda: now))

    def began(seconds_ago: float) -> None:
        monkeypatch.setattr("worldmodels.tracking.course._began", lambda: now - seconds_ago)

    began(1000)
    Course(folder, checkpoint)
    checkpoint.write_text("")
    os.utime(checkpoint, (now - 700, now - 700))  # killed later: what it did after this is done again
    began(500)
    Course(folder, checkpoint)
    os.utime(checkpoint, (now - 450, now - 450))
    began(20)
    Course(folder, checkpoint).end()
    assert read_times(folder / TIMES)["vision@doom-1"][1] == pytest.approx(300 + 50 + 20, abs=0.1)
    before = read_times(folder / TIMES)
    Course(folder, checkpoint).end()  # nobody knows when its first run began
    assert read_times(folder / TIMES) == before
