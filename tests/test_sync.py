"""The mirror of dvc.lock in a real store."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import ViewType
from tracked import (
    SOURCES,
    STAGES,
    aliases_of,
    client_of,
    live_iteration,
    make_iteration,
    make_memory,
    mirror,
    runs,
    write_lock,
)

from worldmodels.errors import ArtifactError
from worldmodels.tracking.lineage import artifact_hash
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.store import EXPERIMENT
from worldmodels.tracking.sync import parse_lock, sync


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


def test_a_small_number_in_the_lock_is_a_number_and_a_hash_a_text():
    out = "{path: artifacts/doom-1/vision.safetensors, md5: '12345678901234567890123456789e12'}"
    text = f"stages: {{vision@doom-1: {{outs: [{out}], params: {{params.yaml: {{doom.vision.rate: 2e-05}}}}}}}}"
    (entry,) = parse_lock(text)
    assert entry.params == {"doom.vision.rate": 0.00002}
    assert list(entry.outs.values()) == ["12345678901234567890123456789e12"]
