"""Tracking against real stores: sqlite in a temporary project, and one MLflow server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import ViewType

from worldmodels.engine.agent import Agent, save_agent
from worldmodels.engine.dream import Starts
from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.models.controller import ControllerConfig, parameter_count
from worldmodels.models.memory import Memory, MemoryConfig
from worldmodels.models.vision import Vision, VisionConfig
from worldmodels.report.pictures import write_png
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_curve, write_json
from worldmodels.storage.layout import PRIMARY
from worldmodels.tracking.lineage import artifact_hash
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.store import EXPERIMENT, connect
from worldmodels.tracking.sync import read_lock, sync

SOURCES = Path(__file__).resolve().parent.parent / "src"
STAGES = ("collect", "vision", "encode", "memory", "calibrate", "controller", "evaluate")


# A project as `dvc repro` leaves it: real files, and a dvc.lock with their real hashes.


def summary(mean):
    return {"mean": mean, "std": 2.0, "stderr": 0.5, "n": 16, "min": 1.0, "max": 9.0, "mean_length": mean, "seeds": [0, 15]}


def make_agent(folder, seed):
    torch.manual_seed(seed)
    vision, memory = Vision(VisionConfig(latent=2)), Memory(MemoryConfig(hidden=4, mixtures=1, done=True, reward=False), 2, 1)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    torch.nn.init.normal_(memory.input_weight)
    card = AgentCard(kind="world-model", environment="doom", game={"kind": "doom"}, controller=shape.model_dump())
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    save_agent(folder, Agent(card, vision, memory, torch.randn(parameter_count(shape, 10, 1)), starts))


def make_memory(folder, seed):
    (folder / "memory.safetensors").write_bytes(b"M %d" % seed)
    rows = [{"update": i, "split": s, "loss": 3.0 - i + seed} for i in range(3) for s in ("train", "validation")]
    write_curve(folder / "memory.csv", rows)


def make_iteration(folder, key, number):
    write_json(folder / "data.json", {"shards": [], "episodes": 4, "frames": 40, "mean_return": 7.0, "mean_length": 10.0})
    (folder / "episodes").mkdir()
    (folder / "episodes" / "shard-000.arrow").write_bytes(b"frames")
    (folder / "vision.safetensors").write_bytes(b"V %d" % number)
    write_curve(folder / "vision.csv", [{"update": i, "split": "train", "loss": 9.0 - i, "kl": 1.0} for i in range(3)])
    (folder / "latents.safetensors").write_bytes(b"z %d" % number)
    make_memory(folder, number)
    (folder / "controller.safetensors").write_bytes(b"C %d" % number)
    search = {"best": 3.0, "std": 0.5, "sigma": 0.1, "steps": 60}
    rows = [{"generation": i, "phase": "dream", "mean": 1.0 + i, **search} for i in range(3)]
    write_curve(folder / "controller.csv", [*rows, {"generation": 2, "phase": "selection", "mean": 8.0, "std": 1.0}])
    make_agent(folder / "agent", number)
    scores = {
        "key": key,
        "environment": "doom",
        "iteration": number,
        "preset": "quick",
        "rules": "takecover",
        "backend": "vizdoom",
    }
    worlds = {"real": summary(5.0 + number), "dream": summary(9.0), "baseline": summary(4.0), "gap": 4.0 - number}
    write_json(folder / "scores.json", {**scores, "temperature": 1.0, **worlds})
    (folder / "returns.parquet").write_bytes(b"returns")
    write_curve(folder / "calibration.csv", [{"policy": "random", "real": 4.0, "dream": 6.0, "ratio": 1.5}])
    for name in ("vision.png", "dream.png", "traversal.png", "temperatures.png", "calibration.png"):
        write_png(folder / name, np.full((8, 8, 3), 30 * number, np.uint8))


OUTS = {
    "initialise": ["agent", "baseline.json"],
    "collect": ["data.json", "episodes"],
    "vision": ["vision.csv", "vision.safetensors"],
    "encode": ["latents.safetensors"],
    "memory": ["memory.csv", "memory.safetensors"],
    "calibrate": ["calibration.csv", "calibration.png"],
    "controller": ["agent", "controller.csv", "controller.safetensors"],
    "evaluate": ["dream.png", "returns.parquet", "scores.json", "temperatures.png", "traversal.png", "vision.png"],
}


def write_lock(root, without=(), keys=("doom-1", "doom-2")):
    def entry(stage, key):
        paths = [f"artifacts/{key}/{name}" for name in OUTS[stage]] if stage in OUTS else ["reports"]
        params = {"seed": 0, "doom.memory": {"model": {"hidden": 4}, "sequence": 64}} if stage == "memory" else {}
        outs = [{"path": path, "hash": "md5", "md5": artifact_hash(root / path), "size": 1} for path in paths]
        deps = [{"path": f"artifacts/{key}/data.json", "md5": "0" * 32}, {"path": "src/x.py", "md5": "1" * 32}]
        return {"cmd": f"python -m pipeline.{stage}", "deps": deps, "params": {"params.yaml": params}, "outs": outs}

    stages = {"initialise@doom": entry("initialise", "doom-0")}
    for key in keys:
        stages |= {f"{stage}@{key}": entry(stage, key) for stage in STAGES if f"{stage}@{key}" not in without}
    stages["report"] = entry("report", "")
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    (root / "dvc.yaml").touch()
    start = root / "artifacts" / "doom-0"
    write_card(start / "agent", AgentCard(kind="random", environment="doom", game={}))
    write_json(start / "baseline.json", summary(4.0))
    for number in (1, 2):
        make_iteration(root / "artifacts" / f"doom-{number}", f"doom-{number}", number)
    (root / "reports").mkdir()
    (root / "reports" / "index.html").write_text("<p>report")
    write_lock(root)
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of the project, the current folder, with a store of its own."""
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "WM_TRACKING", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return root


def client_of(root):
    return connect(root)[0]


def runs(client, **tags):
    """Runs with these wm tags, by name."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    query = " and ".join(f"tags.`wm.{name}` = '{value}'" for name, value in tags.items())
    return client.search_runs([experiment], query, order_by=["attributes.start_time ASC"])


def mirror(client):
    """All that a sync answers for, without ids and times."""
    names = {run.info.run_id: run.info.run_name for run in runs(client)}
    shown = sorted(
        (
            run.info.run_name,
            run.info.status,
            names.get(run.data.tags.get("mlflow.parentRunId")),
            sorted((k, v) for k, v in run.data.tags.items() if k.startswith(("wm.", "git."))),
            sorted(run.data.params.items()),
            sorted(run.data.metrics.items()),
            sorted(file.path for file in client.list_artifacts(run.info.run_id, "pictures")),
        )
        for run in runs(client)
    )
    versions = sorted(
        (v.name, int(v.version), names[v.run_id], sorted(v.tags.items()), v.description)
        for v in client.search_model_versions("name='worldmodels-doom'")
    )
    return shown, versions, aliases_of(client)


def aliases_of(client):
    return {name: int(version) for name, version in client.get_registered_model("worldmodels-doom").aliases.items()}


def stage_process(root, body, **environment):
    """Start a stage in a process of its own, which waits for the store as long as a busy machine needs."""
    code = (
        "import os, sys, time, signal\nfrom worldmodels.tracking import live\nfrom worldmodels.tracking.live import stage_run\n"
    )
    code += "live.FLUSH_SECONDS = live.KILLED_FLUSH_SECONDS = 300\n" + body
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "WM_", "DVC"))}
    own |= {"PYTHONPATH": str(SOURCES), **environment}
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, env=own, text=True, stdout=-1, stderr=-1)


# Live runs


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_a_live_run_streams_to_a_server_and_ends_with_its_artifact_and_pictures(project, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("DVC_EXP_NAME", "busy-bee")
    client = MlflowClient(server)
    with stage_run("evaluate", "doom-1", {"doom.evaluate.real.episodes": 20}) as run:
        deadline, seen = time.monotonic() + 240, []
        while not seen and time.monotonic() < deadline:  # metrics arrive while the stage runs
            run.metrics({"train/loss": 3.0}, 0)
            time.sleep(0.5)
            seen = (
                [r for r in runs(client, kind="stage") if r.data.metrics] if client.get_experiment_by_name(EXPERIMENT) else []
            )
        assert [found.info.status for found in seen] == ["RUNNING"]
        for step in range(1, 2500):
            run.metrics({"train/loss": 1.0 / step, "train/kl": float("nan")}, step)
        run.done(Path("artifacts/doom-1/scores.json"), images=[Path("artifacts/doom-1/dream.png")])
    (child,) = runs(client, kind="stage")
    (parent,) = runs(client, kind="experiment")
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, parent.data.tags["wm.open"]) == ("busy-bee", "true")
    assert not runs(client, kind="iteration")  # the workspace's iteration is not this one
    assert child.data.tags["wm.artifact"] == artifact_hash(project / "artifacts/doom-1/scores.json")
    assert child.data.tags["dvc.experiment"] == "busy-bee"
    assert child.data.params == {"doom.evaluate.real.episodes": "20"}
    assert child.data.metrics == {"train/loss": pytest.approx(1 / 2499)}
    history = client.get_metric_history(child.info.run_id, "train/loss")
    assert {point.step for point in history} == set(range(2500))
    assert [file.path for file in client.list_artifacts(child.info.run_id, "pictures")] == ["pictures/dream.png"]


def test_stages_of_an_iteration_and_of_iteration_0_share_a_parent_and_the_report_has_none(project):
    for stage, key in (("initialise", "doom-0"), ("collect", "doom-1"), ("collect", "doom-2"), ("report", "report")):
        with stage_run(stage, key, {}):
            pass
    client = client_of(project)
    names = {run.info.run_id: run.info.run_name for run in runs(client, kind="iteration")}
    assert sorted(names.values()) == ["doom-1", "doom-2"]
    parents = {run.info.run_name: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs(client, kind="stage")}
    assert parents == {"initialise doom-0": "doom-1", "collect doom-1": "doom-1", "collect doom-2": "doom-2", "report": None}


def test_the_errors_of_a_stage_pass_through_and_its_run_says_how_it_ended(project):
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), stage_run("vision", "doom-1", {}):
            raise error
    assert [run.info.status for run in runs(client_of(project), kind="stage")] == ["FAILED", "KILLED"]


def test_a_terminated_stage_ends_killed_and_one_that_died_is_swept_by_the_next(project):
    body = "with stage_run('vision', 'doom-1', {}) as run:\n    while True: run.metrics({'loss': 1.0}, 0); time.sleep(0.2)"
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
    with stage_run("vision", "doom-1", {}):
        while len(runs(client, kind="stage")) < 3:
            time.sleep(0.1)
        with stage_run("vision", "doom-1", {}):  # the outer one is alive: it is left alone
            pass
        statuses = [run.info.status for run in runs(client, kind="stage", stage="vision")]
        assert statuses == ["KILLED", "KILLED", "RUNNING", "FINISHED"]


def test_a_killed_stage_goes_on_in_the_same_run_and_no_point_is_there_twice(project):
    body = "with stage_run('vision', 'doom-1', {'a': 1}, computation='c1') as run:\n"
    body += "    while True: run.metrics({'loss': 1.0}, 0); time.sleep(0.2)"
    client, process = client_of(project), stage_process(project, body)
    while not [run for run in runs(client, kind="stage") if run.data.metrics]:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.wait(20)
    (killed,) = runs(client, kind="stage")
    sent = len(client.get_metric_history(killed.info.run_id, "loss"))
    for _ in range(2):  # the second time nothing is left to go on with
        with stage_run("vision", "doom-1", {"a": 1}, computation="c1") as run:
            run.metrics({"loss": 1.0}, 0)
            run.metrics({"loss": 0.5}, 1)
    first, second = runs(client, kind="stage")
    assert first.info.run_id == killed.info.run_id
    for run in (first, second):
        assert run.info.status == "FINISHED"
        assert run.data.metrics["loss"] == 0.5
    assert [point.step for point in client.get_metric_history(first.info.run_id, "loss")] == [0] * sent + [1]
    with pytest.raises(KeyboardInterrupt), stage_run("vision", "doom-1", {"a": 2}, computation="c2"):
        raise KeyboardInterrupt
    with stage_run("vision", "doom-1", {"a": 3}, computation="c3"):  # other params: another run
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
        while not (found := [run for run in runs(client, kind="stage") if "train/loss" in run.data.metrics]):
            assert dvc.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        os.kill(int(found[0].data.tags["wm.process"].partition("@")[0]), signal.SIGKILL)
        assert dvc.wait(60) != 0
    assert "going on from" in lab.run(folder, *command, **tracked).stderr
    lab.run(folder, "wm", "track", "sync")
    stages = runs(client, kind="stage")
    (vision,) = [run for run in stages if run.data.tags["wm.stage"] == "vision"]
    assert vision.info.run_id == found[0].info.run_id
    assert {run.info.status for run in stages} == {"FINISHED"}
    steps = [point.step for point in client.get_metric_history(vision.info.run_id, "train/loss")]
    assert steps == list(pd.read_csv(folder / "artifacts/doom-1/vision.csv").query("split == 'train'")["update"])
    locked = [entry.artifact for entry in read_lock(folder / "dvc.lock")]
    assert sorted(run.data.tags["wm.artifact"] for run in stages) == sorted(locked)


def test_a_process_that_took_the_number_of_a_dead_stage_is_not_taken_for_it(project):
    body = "with stage_run('vision', 'doom-1', {}) as run:\n    time.sleep(60)"
    client, process = client_of(project), stage_process(project, body)
    while not runs(client, kind="stage"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.wait(20)
    (run,) = runs(client, kind="stage")
    client.set_tag(run.info.run_id, "wm.process", f"{os.getpid()}@1")
    sync(project, registry=False)  # sweeps as well, where the stage is never run again
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_three_stages_at_once_on_a_fresh_store_do_not_harm_it(project):
    body = "with stage_run(sys.argv[0] and os.environ['STAGE'], 'doom-1', {'a': 1}) as run:\n    run.metrics({'loss': 1.0}, 0)"
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
    began = time.monotonic()
    with stage_run("vision", "doom-1", {"a": 1}) as run:
        for step in run.progress(range(3), "vision doom-1", unit="update"):
            run.metrics({"loss": 1.0}, step)
        run.done(Path("artifacts/doom-1/vision.safetensors"))
    assert time.monotonic() - began < 6
    listener.close()
    errors = capsys.readouterr().err
    assert errors.count("warning") == 1
    assert "wm track sync" in errors
    assert "s3cret" not in errors
    assert not (project / "mlflow.db").exists()
    if kind != "silent":
        with pytest.raises(WorldModelsError, match="cannot be used"):
            sync(project)


def test_tracking_off_shows_progress_and_touches_no_store(project, monkeypatch, capsys):
    monkeypatch.setenv("WM_TRACKING", "off")
    with stage_run("vision", "doom-1", {}) as run:
        for step in run.progress(range(3), "vision doom-1", unit="update"):
            run.metrics({"train/loss": 2.5}, step)
        run.done(Path("artifacts/doom-1/vision.safetensors"))
    errors = capsys.readouterr().err
    assert "vision doom-1" in errors
    assert "update/s" in errors
    assert "loss 2.5" in errors
    assert "\r" not in errors  # not a terminal: lines
    assert not (project / "mlflow.db").exists()


# The mirror of dvc.lock


def test_hashes_are_those_of_dvc(tmp_path):
    for name in ("b/two", "b.c/x", "a", "b/ä ö"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    for command in (["init", "-q", "--no-scm"], ["add", "-q", "out"]):
        subprocess.run(["dvc", *command], cwd=tmp_path, env=environment, check=True)
    out = yaml.safe_load((tmp_path / "out.dvc").read_text())["outs"][0]
    assert artifact_hash(tmp_path / "out") == out["md5"]


def test_sync_rebuilds_everything_from_the_lock_and_does_so_once(project, monkeypatch):
    first = sync(project)
    assert (first.entries, first.runs_added, first.parents_added, first.versions_added, first.notes) == (16, 16, 2, 2, ())
    client = client_of(project)
    before = mirror(client)
    shown, versions, aliases = before
    children = [(name, parent) for name, _, parent, *_ in shown if name not in ("doom-1", "doom-2")]
    assert sorted(children) == sorted(
        [("report", None), ("initialise doom-0", "doom-1")]
        + [(f"{stage} {key}", key) for stage in STAGES for key in ("doom-1", "doom-2")]
    )
    assert {status for _, status, *_ in shown} == {"FINISHED"}
    assert [version[:3] for version in versions] == [("worldmodels-doom", 1, "doom-1"), ("worldmodels-doom", 2, "doom-2")]
    assert aliases == {"iteration-1": 1, "iteration-2": 2, "candidate": 2}

    (memory,) = runs(client, stage="memory", key="doom-2")
    assert memory.data.params == {"seed": "0", "doom.memory.model.hidden": "4", "doom.memory.sequence": "64"}
    assert [(read.dataset.name, read.dataset.digest) for read in memory.inputs.dataset_inputs] == [
        ("artifacts/doom-2/data.json", "0" * 32)
    ]
    curve = pd.read_csv(project / "artifacts/doom-2/memory.csv").query("split == 'train'")
    history = client.get_metric_history(memory.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == list(zip(curve["update"], curve["loss"], strict=True))
    assert memory.data.metrics["train/loss"] == curve["loss"].iloc[-1]
    (parent,) = runs(client, kind="iteration", key="doom-2")
    assert {name: parent.data.metrics[name] for name in ("real/mean", "real/stderr", "dream/mean", "baseline/mean", "gap")} == {
        "real/mean": 7.0, "real/stderr": 0.5, "dream/mean": 9.0, "baseline/mean": 4.0, "gap": 2.0
    }  # fmt: skip
    assert parent.data.tags["wm.M"] == artifact_hash(project / "artifacts/doom-2/memory.safetensors")
    assert len(client.list_artifacts(parent.info.run_id, "pictures")) == 4
    version = client.get_model_version_by_alias("worldmodels-doom", "candidate")
    assert {name: version.tags[name] for name in ("wm.key", "wm.preset", "real.mean", "real.n")} == {
        "wm.key": "doom-2", "wm.preset": "quick", "real.mean": "7", "real.n": "16"
    }  # fmt: skip
    assert "mlflow.pyfunc.load_model" in version.description

    again = sync(project)
    assert (again.runs_added, again.parents_added, again.versions_added) == (0, 0, 0)
    assert mirror(client) == before
    # Another database, not the same one deleted: within one process MLflow would go on writing into the deleted file.
    shutil.rmtree(project / "mlartifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/again.db")
    assert sync(project) == first
    assert mirror(client_of(project)) == before


def live_iteration(root, key, stages=STAGES):
    for stage in stages:
        with stage_run(stage, key, {"live": 1}) as run:
            run.done(root / "artifacts" / key / PRIMARY[stage])


def test_sync_adopts_live_runs_and_completes_them_and_a_forced_rerun_leaves_no_doubles(project):
    live_iteration(project, "doom-1")
    client = client_of(project)
    live = {run.info.run_id for run in runs(client)}
    report = sync(project, registry=False)
    assert (report.runs_added, report.parents_added) == (9, 2)  # initialise, doom-2 and the report were not live
    (parent,) = runs(client, kind="iteration", key="doom-1")
    assert parent.info.run_id in live
    assert (parent.info.status, parent.data.tags["wm.open"]) == ("FINISHED", "false")
    (memory,) = runs(client, stage="memory", key="doom-1")
    assert memory.info.run_id in live
    assert memory.data.params == {"live": "1", "seed": "0", "doom.memory.model.hidden": "4", "doom.memory.sequence": "64"}
    assert "validation/loss" in memory.data.metrics

    live_iteration(project, "doom-1")
    assert len(runs(client, kind="iteration", key="doom-1")) == 2
    again = sync(project, registry=False)
    assert (again.runs_added, again.parents_added) == (0, 0)
    (still,) = runs(client, kind="iteration", key="doom-1")
    assert still.info.run_id == parent.info.run_id
    children = runs(client, kind="stage", key="doom-1")
    assert sorted(run.data.tags["wm.stage"] for run in children) == sorted(STAGES)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_a_changed_m_makes_a_new_version_and_what_did_not_change_moves_to_the_new_iteration(project):
    sync(project)
    client = client_of(project)
    (old,) = runs(client, kind="iteration", key="doom-2")
    make_memory(project / "artifacts/doom-2", 7)
    write_lock(project)
    report = sync(project)
    assert (report.runs_added, report.parents_added, report.versions_added) == (1, 1, 1)
    (new,) = runs(client, kind="iteration", key="doom-2", current="true")
    assert new.info.run_id != old.info.run_id
    own = [run for run in runs(client, kind="stage", key="doom-2") if run.data.tags["mlflow.parentRunId"] == new.info.run_id]
    assert sorted(run.data.tags["wm.stage"] for run in own) == sorted(STAGES)
    assert aliases_of(client) == {"iteration-1": 1, "iteration-2": 3, "candidate": 3}

    make_memory(project / "artifacts/doom-2", 2)  # `git checkout` of the former state: nothing new, the mirror turns back
    write_lock(project)
    back = sync(project)
    assert (back.runs_added, back.parents_added, back.versions_added) == (0, 0, 0)
    assert [run.info.run_id for run in runs(client, kind="iteration", key="doom-2", current="true")] == [old.info.run_id]
    assert aliases_of(client)["candidate"] == 2


def test_a_sync_of_fifty_stages_that_are_there_takes_seconds(project):
    keys = [f"doom-{number}" for number in range(1, 8)]
    for number, key in enumerate(keys[2:], 3):
        make_iteration(project / "artifacts" / key, key, number)
    write_lock(project, keys=keys)
    report = sync(project, registry=False)
    assert (report.entries, report.runs_added) == (51, 51)
    began = time.monotonic()
    assert sync(project, registry=False).runs_added == 0
    assert time.monotonic() - began < 10


def test_an_unfinished_iteration_is_mirrored_open_and_closed_later(project):
    write_lock(project, without=("controller@doom-2", "evaluate@doom-2"))
    assert sync(project, registry=False).runs_added == 14
    client = client_of(project)
    (parent,) = runs(client, kind="iteration", key="doom-2")
    assert (parent.info.status, parent.data.tags["wm.open"]) == ("SCHEDULED", "true")
    with stage_run("controller", "doom-2", {}):
        while client.get_run(parent.info.run_id).info.status != "RUNNING":
            time.sleep(0.1)
    write_lock(project)
    assert sync(project, registry=False).runs_added == 2
    (closed,) = runs(client, kind="iteration", key="doom-2")
    assert (closed.info.run_id, closed.info.status) == (parent.info.run_id, "FINISHED")


def test_artifacts_that_are_not_those_of_the_lock_are_left_out_and_come_after_a_checkout(project, tmp_path):
    shutil.move(project / "artifacts/doom-1", tmp_path / "away")
    (project / "artifacts/doom-2/scores.json").write_text("{}")
    report = sync(project)
    assert (report.runs_added, report.parents_added, report.versions_added) == (16, 2, 0)
    notes = "\n".join(report.notes)
    assert "artifacts/doom-1/vision.csv is not on disk" in notes
    assert "artifacts/doom-2/scores.json is not the one of dvc.lock" in notes
    assert "dvc checkout" in str(report)
    client = client_of(project)
    assert all(not run.data.metrics for run in runs(client, key="doom-1"))
    shutil.move(tmp_path / "away", project / "artifacts/doom-1")
    after = sync(project)
    assert (after.runs_added, after.versions_added) == (0, 1)
    (vision,) = runs(client, stage="vision", key="doom-1")
    assert vision.data.metrics == {"train/loss": 7.0, "train/kl": 1.0}


def test_a_deleted_run_comes_back(project):
    sync(project, registry=False)
    client = client_of(project)
    (vision,) = runs(client, stage="vision", key="doom-1")
    client.delete_run(vision.info.run_id)
    assert sync(project, registry=False).runs_added == 1
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    assert len(client.search_runs([experiment], "tags.`wm.stage` = 'vision'", run_view_type=ViewType.ACTIVE_ONLY)) == 2


def test_sync_without_a_lock_or_with_a_broken_one_says_what_to_do(project):
    (project / "dvc.lock").write_text("stages:\n  vision@doom-1: {cmd: x}\n")
    with pytest.raises(ArtifactError, match="git checkout"):
        sync(project)
    (project / "dvc.lock").unlink()
    with pytest.raises(ArtifactError, match="make repro"):
        sync(project)


ACT = """
import json, sys, threading, time, urllib.request
import mlflow, numpy as np, uvicorn
from mlflow.pyfunc import scoring_server

mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/worldmodels-doom@candidate")
frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
state = np.zeros((3, 8), np.float32)
actions = []
for _ in range(2):
    out = model.predict({"frame": frames, "memory": state})
    state = out["memory"]
    actions.append(out["action"].tolist())
server = uvicorn.Server(uvicorn.Config(scoring_server.init(model), port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.05)
address = "http://127.0.0.1:%d/invocations" % server.servers[0].sockets[0].getsockname()[1]
body = json.dumps({"inputs": {"frame": frames.tolist(), "memory": np.zeros((3, 8)).tolist()}}).encode()
request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
served = json.load(urllib.request.urlopen(request))
source = sys.modules["worldmodels"].__file__ or list(sys.modules["worldmodels"].__path__)[0]
print(json.dumps({"actions": actions, "served": served, "source": source}))
"""


def test_the_registered_agent_acts_elsewhere_without_the_project_and_without_pickle(project, tmp_path):
    sync(project)
    shutil.rmtree(project / "artifacts")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTHONPATH"))}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_SCHEMA_DETAILS": "true"}
    command = [sys.executable, "-c", ACT, f"sqlite:///{project}/mlflow.db"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    first, second = np.array(said["actions"])
    assert first.shape == (3, 1)
    assert np.abs(first).max() <= 1
    assert not np.allclose(first, second)  # the same frames, another memory
    assert not said["source"].startswith(str(SOURCES))
    np.testing.assert_allclose(said["served"]["predictions"]["action"], first, atol=1e-6)
    logged = [path.name for path in (project / "mlartifacts").rglob("*")]
    assert not [name for name in logged if name.endswith((".pkl", ".pyc", ".pt", ".bin"))]
