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
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from worldmodels.agent.agent import Agent, save_agent
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.report.pictures import write_png
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_curve, write_json
from worldmodels.storage.layout import STAGES, AgentFiles, WorldModelFiles, primary_out
from worldmodels.tracking import live, store
from worldmodels.tracking.dvclock import artifact_hash
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.store import PREFIX, open_store
from worldmodels.tracking.sync import sync
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import Starts

SOURCES = Path(__file__).resolve().parent.parent / "src"
OF_WORLD_MODELS = tuple(stage for stage, section in STAGES.items() if section == "world_models")
OF_AGENTS = tuple(stage for stage, section in STAGES.items() if section == "agents")
WORLD_MODELS = {"doom-1": "doom-0", "doom-2": "doom-1"}
"""World model -> the one that it goes on from, whose agent plays for it."""
AGENTS = {
    "doom-1": ("doom-1", "doom-0", "none"),
    "doom-2-game": ("doom-2", "doom-2", "none"),
    "doom-2-flat": ("doom-2", "doom-0", "ablation"),
    "doom-2": ("doom-2", "doom-1", "none"),
}
"""Agent -> its world model, the agent at whose C it begins, its study. In the order of dvc.lock, which is not theirs."""
EXPERIMENT = PREFIX + "doom"
REAL = {"doom-1": 6.0, "doom-2": 7.0, "doom-2-game": 8.0, "doom-2-flat": 3.0}
"""Agent -> mean return in the game."""


def summary(mean):
    return {"mean": mean, "std": 2.0, "stderr": 0.5, "n": 16, "min": 1.0, "max": 9.0, "mean_length": mean, "seeds": [0, 15]}


def make_agent(folder, seed):
    torch.manual_seed(seed)
    vision, memory = Vision(VisionConfig(latent=2)), LSTMConfig(hidden=4).build(2, 1)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    torch.nn.init.normal_(memory.input_weight)
    card = AgentCard(
        kind="world-model",
        environment="doom",
        game={"kind": "vizdoom", "scenario": "take_cover"},
        controller=shape.model_dump(),
    )
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    save_agent(folder, Agent(card, vision, memory, torch.randn(parameter_count(shape, 10, 1)), starts))


def make_memory(files, number):
    files.memory.write_bytes(b"M %d" % number)
    rows = [{"update": i, "split": s, "loss": 3.0 - i + number} for i in range(3) for s in ("train", "validation")]
    write_curve(files.memory_curve, rows)


def make_world_model(root, key, number):
    files = WorldModelFiles(key, root)
    write_json(files.data, {"shards": [], "episodes": 4, "frames": 40, "mean_return": 7.0, "mean_length": 10.0, "of": number})
    files.episodes.mkdir()
    (files.episodes / "shard-000.arrow").write_bytes(b"frames")
    files.vision.write_bytes(b"V %d" % number)
    write_curve(files.vision_curve, [{"update": i, "split": "train", "loss": 9.0 - i, "kl": 1.0} for i in range(3)])
    files.latents.write_bytes(b"z %d" % number)
    make_memory(files, number)
    write_curve(files.calibration, [{"policy": "random", "real": 4.0, "dream": 6.0, "excess": 0.5, "kind": 0}])


def make_scores(root, key, world_model, study, mean):
    told = {"key": key, "environment": "doom", "world_model": world_model, "controller": "dream", "study": study}
    told |= {"preset": "quick", "seed": 0, "controller_seed": 0, "rules": "takecover", "backend": "vizdoom", "block": "test"}
    told |= {"parameters": 10, "steps": {"dream": 60, "game": 0}, "real": summary(mean), "random": summary(4.0)}
    told |= {"dream": {"temperature": 1.0, **summary(9.0)}, "blind": {"policy": "sweep 100", **summary(5.0)}}
    write_json(AgentFiles(key, root).scores, told | {"gap": 9.0 - mean, "selection": None})


def make_film(files, shade=0):
    for path in (files.reconstructions, files.filmstrip, files.traversal, files.temperatures):
        write_png(path, np.full((8, 8, 3), shade, np.uint8))
    files.video.write_bytes(b"film %d" % shade)


def make_agent_files(root, key, world_model, study, mean):
    files = AgentFiles(key, root)
    make_agent(files.agent, int(mean))
    files.rejected.write_bytes(b"C %d" % int(mean))
    search = {"best": 3.0, "std": 0.5, "sigma": 0.1, "steps": 60}
    rows = [{"generation": i, "phase": "search", "world": "dream", "mean": 1.0 + i, **search} for i in range(3)]
    write_curve(files.curve, [*rows, {"generation": 2, "phase": "selection", "mean": 8.0, "std": 1.0}])
    make_scores(root, key, world_model, study, mean)
    files.returns.write_bytes(b"returns %d" % int(mean))
    make_film(files)


def make_beginning(root):
    files = AgentFiles("doom-0", root)
    write_card(files.agent, AgentCard(kind="random", environment="doom", game={}))
    told = {"key": "doom-0", "environment": "doom", "real": summary(4.0), "blind": {"policy": "sweep 100", **summary(5.0)}}
    told |= {"preset": "quick", "rules": "takecover", "backend": "vizdoom"}
    write_json(files.scores, told)
    for path in (files.rejected, files.returns):
        path.write_bytes(b"nothing")
    empty = WorldModelFiles("doom-0", root)
    write_json(empty.data, {"shards": []})
    for path in (empty.vision, empty.latents, empty.memory):
        path.write_bytes(b"nothing")


OUTS = {
    "collect": ("data", "episodes"),
    "vision": ("vision", "vision_curve"),
    "encode": ("latents",),
    "memory": ("memory", "memory_curve"),
    "calibrate": ("calibration",),
    "controller": ("agent", "rejected", "curve"),
    "evaluate": ("returns", "scores"),
    "film": ("film",),
}


def write_lock(root, without=(), world_models=None, agents=None):
    """Write the dvc.lock of what is on disk, with the dependencies of dvc.yaml."""
    world_models, agents = world_models or WORLD_MODELS, agents or AGENTS
    zero, random = WorldModelFiles("doom-0"), AgentFiles("doom-0")

    def entry(stage, outs, deps=(), params=None):
        paths = [path.as_posix() for path in outs]
        read = [{"path": path.as_posix(), "md5": artifact_hash(root / path)} for path in deps]
        read.append({"path": "src/x.py", "md5": "1" * 32})
        made = [{"path": path, "hash": "md5", "md5": artifact_hash(root / path), "size": 1} for path in paths]
        told = {"params.yaml": params or {}}
        game = "" if stage == "report" else " env=doom"
        return {"cmd": f"python -m pipeline.{stage} key=KEY{game}", "deps": read, "params": told, "outs": made}

    beginning = [random.agent, random.rejected, random.returns, random.scores]
    beginning += [zero.data, zero.vision, zero.latents, zero.memory]
    stages = {"initialise@doom": entry("initialise", beginning)}
    memory = {"seed": 0, "doom.memory": {"model": {"hidden": 4}, "optimiser": {"updates": 3}}}
    told = {"collect": {"seed": 0}, "memory": memory}
    for key, after in world_models.items():
        files, earlier, player = WorldModelFiles(key), WorldModelFiles(after), AgentFiles(after)
        deps = {
            "collect": [player.agent, player.rejected, earlier.data],
            "vision": [files.data, earlier.data, earlier.vision],
            "encode": [files.data, files.vision, earlier.latents],
            "memory": [files.latents, earlier.memory],
            "calibrate": [random.returns, files.latents, files.memory],
        }
        for stage in OF_WORLD_MODELS:
            outs = [getattr(files, name) for name in OUTS[stage]]
            stages[f"{stage}@{key}"] = entry(stage, outs, deps[stage], told.get(stage))
    for key, (world_model, begin, study) in agents.items():
        files, model = AgentFiles(key), WorldModelFiles(world_model)
        line = {"env": "doom", "world_model": world_model, "begin": begin, "controller": "dream", "seed": 0, "study": study}
        deps = {
            "controller": [AgentFiles(begin).agent, model.data, model.latents, model.memory, model.vision],
            "evaluate": [files.agent, files.curve, random.returns],
            "film": [files.agent],
        }
        for stage in OF_AGENTS:
            outs = [getattr(files, name) for name in OUTS[stage]]
            params = {f"agents.{key}": line} if stage == "evaluate" else None
            stages[f"{stage}@{key}"] = entry(stage, outs, deps[stage], params)
    stages["report"] = entry("report", [Path("reports")])
    stages = {name: content for name, content in stages.items() if name not in without}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    (root / "dvc.yaml").touch()
    make_beginning(root)
    for number, key in enumerate(WORLD_MODELS, 1):
        make_world_model(root, key, number)
    for key, (world_model, _, study) in AGENTS.items():
        make_agent_files(root, key, world_model, study, REAL[key])
    (root / "reports").mkdir()
    (root / "reports" / "index.html").write_text("<p>report")
    write_lock(root)
    return root


NAMES = ("MLFLOW_TRACKING_URI", "WM_TRACKING", "DVC_ROOT", "DVC_EXP_NAME")


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of the project, the current folder, with a store of its own."""
    return _copy(made, tmp_path / "project", monkeypatch)


@pytest.fixture(scope="module")
def mirrored(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = _copy(made, tmp_path_factory.mktemp("mirrored") / "project", patch)
        sync(root)
    return root


@pytest.fixture
def synced(mirrored, tmp_path, monkeypatch, capsys):
    """A copy of the project after `wm track sync`, with its store: the current folder."""
    root = _copy(mirrored, tmp_path / "project", monkeypatch)
    _artifact_repos_cache.clear()  # a process of MLflow's remembers where a run's files are: those of the copied project
    client_of(root)
    capsys.readouterr()  # that it was moved
    return root


def _copy(source, root, patch):
    shutil.copytree(source, root)
    patch.chdir(root)
    for name in NAMES:
        patch.delenv(name, raising=False)
    patch.setenv("WM_TRACKING", "on")  # from the first second: these stages last no longer
    for name in ("FLUSH_SECONDS", "KILLED_FLUSH_SECONDS"):
        patch.setattr(live, name, 600.0)  # a busy machine needs more than a person would wait
    patch.setattr(live, "MACHINE_SECONDS", 3600)  # else a slow run has more metrics than a quick one
    patch.setattr(store, "TIMEOUT", 60)
    return root


def client_of(root):
    return open_store(root)


def runs(client, **tags):
    """Runs with these wm tags, by name."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    query = " and ".join(f"tags.`wm.{name}` = '{value}'" for name, value in tags.items())
    if experiment is None:  # no stage has begun yet
        return []
    return client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time ASC"])


def mirror(client):
    """All that a sync answers for, without ids and times."""
    names = {run.info.run_id: run.info.run_name for run in runs(client)}
    shown = sorted(
        (
            run.info.run_name,
            run.info.status,
            names.get(run.data.tags.get("mlflow.parentRunId"), ""),
            sorted((k, v) for k, v in run.data.tags.items() if k.startswith(("wm.", "git."))),
            sorted(run.data.params.items()),
            sorted(run.data.metrics.items()),
            files_of(client, run),
        )
        for run in runs(client)
    )
    versions = sorted(
        (v.name, int(v.version), names[v.run_id], sorted(v.tags.items()), v.description)
        for v in client.search_model_versions("name='worldmodels-doom'")
    )
    return shown, versions, aliases_of(client)


def files_of(client, run, path=None):
    """All files of a run that are no model."""
    found = []
    for file in client.list_artifacts(run.info.run_id, path):
        found += files_of(client, run, file.path) if file.is_dir else [file.path]
    return sorted(found)


def aliases_of(client):
    return {name: int(version) for name, version in client.get_registered_model("worldmodels-doom").aliases.items()}


def version_of(client, key):
    """The version of an agent that is the newest."""
    found = client.search_model_versions("name='worldmodels-doom'")
    return max((v for v in found if v.tags.get("wm.key") == key), key=lambda v: int(v.version))


def stage_process(root, body, **environment):
    """Start a stage in a process of its own, which waits for the store as long as a busy machine needs. ``ROW``: of a curve."""
    code = (
        "import os, sys, time, signal\nfrom worldmodels.tracking import live\nfrom worldmodels.tracking.live import stage_run\n"
    )
    code += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    code += "ROW = {'update': 0, 'split': 'train', 'loss': 1.0}\n"
    code += "live.FLUSH_SECONDS = live.KILLED_FLUSH_SECONDS = 300\n" + body
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "WM_", "DVC"))}
    own |= {"PYTHONPATH": str(SOURCES), "WM_TRACKING": "on", **environment}
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, env=own, text=True, stdout=-1, stderr=-1)


def live_world_model(root, key, stages=OF_WORLD_MODELS):
    for stage in stages:
        with stage_run(stage, key, "doom", {f"doom.{stage}.live": 1}) as run:
            run.done(root / primary_out(stage, key))


def live_agent(root, key, stages=OF_AGENTS):
    for stage in stages:
        with stage_run(stage, key, "doom", {f"doom.{stage}.live": 1}, world_model=AGENTS[key][0]) as run:
            run.done(root / primary_out(stage, key))
