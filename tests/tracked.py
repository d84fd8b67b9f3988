"""A project as `dvc repro` leaves it: real files, a dvc.lock with their real hashes; and what MLflow knows of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from worldmodels.agent.agent import Agent, save_agent
from worldmodels.worlds.dream import Starts
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.memory.model import Memory, MemoryConfig
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.report.pictures import write_png
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_curve, write_json
from worldmodels.storage.layout import PRIMARY
from worldmodels.tracking.lineage import artifact_hash
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.store import EXPERIMENT, connect

SOURCES = Path(__file__).resolve().parent.parent / "src"
STAGES = ("collect", "vision", "encode", "memory", "calibrate", "controller", "evaluate")


def summary(mean):
    return {"mean": mean, "std": 2.0, "stderr": 0.5, "n": 16, "min": 1.0, "max": 9.0, "mean_length": mean, "seeds": [0, 15]}


def make_agent(folder, seed):
    torch.manual_seed(seed)
    vision, memory = Vision(VisionConfig(latent=2)), Memory(MemoryConfig(hidden=4, mixtures=1, done=True, reward=False), 2, 1)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    torch.nn.init.normal_(memory.input_weight)
    card = AgentCard(kind="world-model", environment="doom", game={"kind": "vizdoom"}, controller=shape.model_dump())
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
    write_curve(folder / "calibration.csv", [{"policy": "random", "real": 4.0, "dream": 6.0, "excess": 0.5}])
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


def live_iteration(root, key, stages=STAGES):
    for stage in stages:
        with stage_run(stage, key, {"live": 1}) as run:
            run.done(root / "artifacts" / key / PRIMARY[stage])
