"""Live runs of stages, against real stores: sqlite in a temporary project, and one MLflow server."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import lab
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from tracked import client_of, files_of, runs, stage_process

from worldmodels.errors import WorldModelsError
from worldmodels.storage.files import write_curve
from worldmodels.tracking import live, store
from worldmodels.tracking.dvclock import artifact_hash, read_lock
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.points import point_of, points
from worldmodels.tracking.store import TIMEOUT
from worldmodels.tracking.sync import sync


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    port = lab.free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    uri = f"http://127.0.0.1:{port}"
    with lab.serving(command, lambda: lab.answers(f"{uri}/health"), folder / "log", env=environment):
        yield uri


def row(step, loss=1.0, **others):
    return {"update": step, "split": "train", "loss": loss, **others}


def test_a_live_run_streams_to_a_server_and_ends_with_its_artifact_and_its_film(project, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("DVC_EXP_NAME", "busy-bee")
    client = MlflowClient(server)
    with stage_run(
        "vision", "doom-1", "doom", {"doom.vision.epochs": 20, "doom.memory.epochs": 3}, world_model="doom-1"
    ) as run:
        deadline, seen = time.monotonic() + 240, []
        while not seen and time.monotonic() < deadline:  # metrics arrive while the stage runs
            run.observe(row(0, 3.0))
            time.sleep(0.5)
            seen = [r for r in runs(client, kind="stage") if r.data.metrics]
        assert [found.info.status for found in seen] == ["RUNNING"]
        for step in range(1, 2500):
            run.observe(row(step, 1.0 / step, kl=float("nan")))
        run.done(Path("artifacts/world_models/doom-1/vision.safetensors"))
    (child,) = runs(client, kind="stage")
    (parent,) = runs(client, kind="experiment")
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, parent.data.tags["wm.open"]) == ("busy-bee", "true")
    assert not runs(client, kind="iteration")  # the workspace's iteration is not this one
    assert child.data.tags["wm.artifact"] == artifact_hash(project / "artifacts/world_models/doom-1/vision.safetensors")
    assert child.data.tags["dvc.experiment"] == "busy-bee"
    assert child.data.params == {"doom.vision.epochs": "20"}  # those of the stage itself
    assert child.data.metrics == {"V/loss": pytest.approx(1 / 2499)}
    history = client.get_metric_history(child.info.run_id, "V/loss")
    assert {point.step for point in history} == set(range(2500))
    with stage_run("film", "doom-1", "doom", {}, world_model="doom-1") as run:
        run.done(Path("artifacts/agents/doom-1/film"))
    (child,) = runs(client, kind="stage", stage="film")
    names = ("agent.mp4", "dream.png", "temperatures.png", "traversal.png", "vision.png")
    assert files_of(client, child) == [f"pictures/{name}" for name in names]


def test_a_sync_to_a_server_registers_every_agent_once(project, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert sync(project).versions_added == 4
    again = sync(project)
    assert (again.runs_added, again.parents_added, again.versions_added, again.notes) == (0, 0, 0, [])


def test_stages_of_a_world_model_and_of_its_agents_share_a_parent_and_others_have_none(project):
    for stage, key, world_model in (
        ("initialise", "doom-0", ""),
        ("collect", "doom-2", ""),
        ("controller", "flat", "doom-2"),
        ("film", "flat", "doom-2"),
        ("report", "report", ""),
    ):
        with stage_run(stage, key, "" if stage == "report" else "doom", {}, world_model=world_model):
            pass
    client = client_of(project)
    names = {run.info.run_id: run.info.run_name for run in runs(client, kind="iteration")}
    assert sorted(names.values()) == ["doom-2"]
    parents = {run.info.run_name: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs(client, kind="stage")}
    assert parents == {
        "doom-0": None, "collect doom-2": "doom-2", "controller flat": "doom-2", "film flat": "doom-2"
    }  # fmt: skip


def test_two_seeds_of_a_chain_on_one_server_have_iterations_of_their_own(project):
    for seed in (1, 0, 1):
        with stage_run("memory", "doom-1", "doom", {}, seed=seed):
            pass
    client = client_of(project)
    parents = {run.data.tags["wm.seed"]: run.info.run_id for run in runs(client, kind="iteration")}
    below = [run.data.tags["mlflow.parentRunId"] for run in runs(client, kind="stage")]
    assert sorted(below) == sorted([parents["0"], parents["1"], parents["1"]])
    sync(project, registry=False)  # dvc.lock has the seed 0
    after = {run.info.run_id: run.data.tags for run in runs(client, kind="iteration", key="doom-1")}
    assert after.keys() == set(parents.values())
    assert after[parents["0"]]["wm.current"] == "true"
    assert after[parents["1"]]["wm.open"] == "true"
    assert "wm.current" not in after[parents["1"]]


def test_live_runs_have_the_metrics_that_rebuilt_ones_have(project):
    files = {
        ("evaluate", "doom-1"): "metrics/doom-1.json",
        ("initialise", "doom-0"): "metrics/doom-0.json",
        ("collect", "doom-1"): "artifacts/world_models/doom-1/data.json",
        ("calibrate", "doom-1"): "artifacts/world_models/doom-1/calibration.csv",
    }
    for (stage, key), path in files.items():
        with stage_run(stage, key, "doom", {}, world_model="doom-1") as run:
            run.done(Path(path), metrics=Path(path))
    client = client_of(project)
    live = {(run.data.tags["wm.stage"], run.data.tags["wm.key"]): run for run in runs(client, kind="stage")}
    assert live.keys() == files.keys()
    for run in live.values():
        client.delete_run(run.info.run_id)
    sync(project, registry=False)
    for (stage, key), run in live.items():
        (rebuilt,) = runs(client, kind="stage", stage=stage, key=key)
        assert rebuilt.info.run_id != run.info.run_id
        assert run.data.metrics == rebuilt.data.metrics != {}


def test_a_row_of_a_curve_is_named_alike_live_and_from_disk(project, tmp_path):
    rows = [
        {"generation": 0, "phase": "search", "world": "dream", "mean": 1.5, "sigma": 0.25, "steps": 60},
        {"generation": 1, "phase": "improve", "world": "game", "mean": 2.0, "noise": 0.5, "steps": 80},
    ]
    write_curve(tmp_path / "controller.csv", rows)
    named = [point_of("controller", each, 0)[:2] for each in rows]
    assert [point[:2] for point in points(tmp_path / "controller.csv")] == named
    assert named == [({"C/dream_return": 1.5, "C/dream_sigma": 0.25}, 0), ({"C/game_return": 2.0, "C/game_noise": 0.5}, 1)]


def test_scores_on_other_episodes_than_the_test_s_have_other_names(project):
    path = project / "metrics/doom-1.json"
    assert points(path)[0][0].keys() == {f"Agent/{name}" for name in ("score", "error", "dream", "gap")}
    path.write_text(path.read_text().replace('"test"', '"development"'))
    assert all(name.startswith("Agent on development/") for name in points(path)[0][0])
    path.write_text('{"a":' * 100_000)
    with pytest.raises(WorldModelsError, match="damaged"):
        points(path)


def test_the_errors_of_a_stage_pass_through_and_its_run_says_how_it_ended(project):
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), stage_run("vision", "doom-1", "doom", {}):
            raise error
    assert [run.info.status for run in runs(client_of(project), kind="stage")] == ["FAILED", "KILLED"]


def test_a_terminated_stage_ends_killed_and_one_that_died_is_swept_by_the_next(project):
    body = "with stage_run('vision', 'doom-1', 'doom', {}) as run:\n    while True: run.observe(ROW); time.sleep(0.2)"
    client = client_of(project)
    processes = []
    for sent in (signal.SIGTERM, signal.SIGKILL):
        before = len(runs(client, kind="stage"))
        process = stage_process(project, body)
        processes.append(process)
        while not [run for run in runs(client, kind="stage")[before:] if run.data.metrics]:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(sent)
        assert process.wait(120) == {signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    assert [run.info.status for run in runs(client, kind="stage")] == ["KILLED", "RUNNING"]
    with stage_run("vision", "doom-1", "doom", {}):
        lab.until(lambda: len(runs(client, kind="stage")) == 3, "the run to begin")
        with stage_run("vision", "doom-1", "doom", {}):  # the outer one is alive: it is left alone
            pass
        statuses = [run.info.status for run in runs(client, kind="stage", stage="vision")]
        assert statuses == ["KILLED", "KILLED", "RUNNING", "FINISHED"]


def test_a_killed_stage_goes_on_in_the_same_run_and_no_point_is_there_twice(project):
    body = "with stage_run('vision', 'doom-1', 'doom', {'doom.vision.a': 1}, computation='c1') as run:\n"
    body += "    while True: run.observe(ROW); time.sleep(0.2)"
    client, process = client_of(project), stage_process(project, body)
    while not [run for run in runs(client, kind="stage") if run.data.metrics]:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.wait(300)
    (killed,) = runs(client, kind="stage")
    sent = len(client.get_metric_history(killed.info.run_id, "V/loss"))
    for _ in range(2):  # the second time nothing is left to go on with
        with stage_run("vision", "doom-1", "doom", {"doom.vision.a": 1}, computation="c1") as run:
            run.observe(row(0))
            run.observe(row(1, 0.5))
    first, second = runs(client, kind="stage")
    assert first.info.run_id == killed.info.run_id
    for run in (first, second):
        assert run.info.status == "FINISHED"
        assert run.data.metrics["V/loss"] == 0.5
    assert [point.step for point in client.get_metric_history(first.info.run_id, "V/loss")] == [0] * sent + [1]
    with pytest.raises(KeyboardInterrupt), stage_run("vision", "doom-1", "doom", {"doom.vision.a": 2}, computation="c2"):
        raise KeyboardInterrupt
    with stage_run("vision", "doom-1", "doom", {"doom.vision.a": 3}, computation="c3"):  # other params: another run
        pass
    assert [run.info.status for run in runs(client, kind="stage")] == ["FINISHED", "FINISHED", "KILLED", "FINISHED"]


def test_a_real_stage_killed_under_dvc_goes_on_in_its_run_and_sync_finds_one_run_for_every_artifact(
    iteration, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(iteration, tmp_path / "project"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["doom"]["vision"]["optimiser"]["updates"] = 60
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    tracked = {"WM_TRACKING": "on", "WM_CHECKPOINT_SECONDS": "0"}
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = client_of(folder)
    with (tmp_path / "log").open("w") as log:
        command, own = ["dvc", "repro", "vision@doom-1"], lab.environment(folder) | tracked
        dvc = subprocess.Popen(command, cwd=folder, env=own, stdout=log, stderr=log)
        while not (found := [run for run in runs(client, kind="stage") if "V/loss" in run.data.metrics]):
            assert dvc.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        os.kill(int(found[0].data.tags["wm.process"].partition("@")[0]), signal.SIGKILL)
        assert dvc.wait(300) != 0
    assert "going on from" in lab.run(folder, *command, **tracked).stderr
    lab.run(folder, "wm", "track", "sync")
    stages = runs(client, kind="stage")
    (vision,) = [run for run in stages if run.data.tags["wm.stage"] == "vision"]
    assert vision.info.run_id == found[0].info.run_id
    assert {run.info.status for run in stages} == {"FINISHED"}

    def logged():
        return sorted((point.step, point.value) for point in client.get_metric_history(vision.info.run_id, "V/loss"))

    curve = pd.read_csv(folder / "artifacts/world_models/doom-1/vision.csv").query("split == 'train'")[["update", "loss"]]
    whole = [(int(step), pytest.approx(loss, rel=1e-5)) for step, loss in curve.itertuples(index=False)]
    assert logged() == whole
    with sqlite3.connect(folder / "mlflow.db") as store:  # as if it had been on its way when the stage was killed
        store.execute("delete from metrics where key = 'V/loss' and step = 8")
    assert len(logged()) == len(whole) - 1
    lab.run(folder, "wm", "track", "sync")
    assert logged() == whole
    locked = [entry.artifact for entry in read_lock(folder / "dvc.lock") if entry.env]
    assert sorted(run.data.tags["wm.artifact"] for run in stages) == sorted(locked)


def test_a_process_that_took_the_number_of_a_dead_stage_is_not_taken_for_it(project):
    body = "with stage_run('vision', 'doom-1', 'doom', {}) as run:\n    time.sleep(600)"
    client, process = client_of(project), stage_process(project, body)
    while not runs(client, kind="stage"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.wait(300)
    (run,) = runs(client, kind="stage")
    client.set_tag(run.info.run_id, "wm.process", f"{os.getpid()}@1")
    sync(project, registry=False)  # sweeps as well, where the stage is never run again
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_three_stages_at_once_on_a_fresh_store_do_not_harm_it(project):
    body = "with stage_run(os.environ['STAGE'], 'doom-1', 'doom', {}) as run:\n    if run.stage != 'encode': run.observe(ROW)"
    started = [stage_process(project, body, STAGE=stage) for stage in ("vision", "encode", "memory")]
    for process in started:
        _, errors = process.communicate(timeout=400)
        assert (process.returncode, "warning" in errors) == (0, False), errors
    client = client_of(project)
    assert sorted(run.info.run_name for run in runs(client, kind="stage")) == [
        "encode doom-1",
        "memory doom-1",
        "vision doom-1",
    ]
    assert {run.info.status for run in runs(client, kind="stage")} == {"FINISHED"}
    assert len(runs(client, kind="iteration")) == 1


def test_a_store_whose_making_was_killed_is_made_anew(project):
    body = "with stage_run(os.environ['STAGE'], 'doom-1', 'doom', {}) as run: run.observe(ROW)"
    process = stage_process(project, body, STAGE="vision")
    while not (project / "mlflow.db.partial").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = stage_process(project, body, STAGE="memory")
    _, errors = again.communicate(timeout=400)
    assert (again.returncode, "warning" in errors) == (0, False), errors
    assert [run.info.run_name for run in runs(client_of(project), kind="stage")] == ["memory doom-1"]
    assert not list(project.glob("mlflow.db.*"))


def silent_listener():
    """A server that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://someone:s3cret@127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["nobody", "silent", "no database"])
def test_a_store_that_cannot_be_used_warns_once_and_neither_fails_nor_stalls_a_stage(project, kind, monkeypatch, capsys):
    listener, uri = silent_listener()
    if kind == "nobody":
        listener.close()
    if kind == "no database":
        (project / "broken.db").write_bytes(b"not a database " * 100)
        uri = f"sqlite:///{project}/broken.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(store, "TIMEOUT", TIMEOUT)  # that of users
    began = time.monotonic()
    with stage_run("vision", "doom-1", "doom", {"doom.vision.a": 1}) as run:
        for step in run.progress(range(3), "vision doom-1", unit="update"):
            run.observe(row(step))
        run.done(Path("artifacts/world_models/doom-1/vision.safetensors"))
    assert time.monotonic() - began < 100  # MLflow's own requests would wait for 120
    listener.close()
    errors = capsys.readouterr().err
    assert errors.count("warning") == 1
    assert "wm track sync" in errors
    assert "s3cret" not in errors
    assert not (project / "mlflow.db").exists()
    if kind != "silent":
        with pytest.raises(WorldModelsError, match="cannot be used"):
            sync(project)


def test_mlflow_is_not_loaded_for_a_stage_that_is_done_at_once(project, monkeypatch, capsys):
    monkeypatch.delenv("WM_TRACKING")
    monkeypatch.setattr(live, "SHORT_SECONDS", 60.0)
    began = time.monotonic()
    with stage_run("vision", "doom-1", "doom", {}) as run:
        run.observe(row(1))
    assert time.monotonic() - began < 30
    assert not (project / "mlflow.db").exists()
    monkeypatch.setattr(live, "SHORT_SECONDS", 0.5)
    with stage_run("vision", "doom-1", "doom", {}) as run:
        run.observe(row(1))
        lab.until((project / "mlflow.db").exists, "the store")
    assert "warning" not in capsys.readouterr().err


def test_a_stage_that_ends_before_its_thread_runs_is_tracked_all_the_same(project, monkeypatch):
    class Late(threading.Thread):
        def start(self):
            self.join = lambda _: self.run()

    monkeypatch.setattr(live, "threading", SimpleNamespace(Thread=Late, Event=threading.Event))
    with stage_run("vision", "doom-1", "doom", {}) as run:
        run.observe(row(1))
    assert [run.info.status for run in runs(client_of(project), kind="stage")] == ["FINISHED"]


def test_tracking_off_shows_progress_and_touches_no_store(project, monkeypatch, capsys):
    monkeypatch.setenv("WM_TRACKING", "off")
    with stage_run("vision", "doom-1", "doom", {}) as run:
        for step in run.progress(range(3), "vision doom-1", unit="update"):
            run.observe(row(step, 2.5))
        run.done(Path("artifacts/world_models/doom-1/vision.safetensors"))
    errors = capsys.readouterr().err
    assert "vision doom-1" in errors
    assert "update/s" in errors
    assert "loss 2.5" in errors
    assert "\r" not in errors  # not a terminal: lines
    assert not (project / "mlflow.db").exists()


def test_the_time_left_of_play_is_judged_by_steps_before_an_episode_has_ended(capsys):
    with stage_run("collect", "doom-1", "", {}) as run:
        told = run.play("collect doom-1", 4, 100)
        told(8, 0)
        assert told.bar.total == 400  # nobody has died: all may live to the limit
        told(12, 2)
        assert told.bar.total == 40  # two lives in twenty steps
        told(20, 1)
        assert told.bar.total == 53
        told(13, 1)
        assert told.bar.total == told.bar.n == 53
    assert "4/4 episodes" in capsys.readouterr().err


def test_a_step_that_takes_long_leaves_no_silence(monkeypatch, capsys):
    monkeypatch.setattr(live, "QUIET_SECONDS", 0.1)
    with stage_run("evaluate", "doom-1", "", {}) as run:
        for _ in run.progress(range(1), "evaluate doom-1", unit="task"):
            time.sleep(5)
    lines = [line for line in capsys.readouterr().err.splitlines() if "0/1" in line]
    assert len(lines) > 3
