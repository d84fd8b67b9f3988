"""The DAG: what each stage depends on, and the whole chain run for real, at the smallest scale."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from closure import ROOT, closure
from lab import environment, make_project, run
from tiny import tiny_params

from pipeline.trial import begin_at
from worldmodels.agent.agent import load_agent
from worldmodels.controller.model import ControllerConfig
from worldmodels.controller.phases.basis import played_features, principal_directions
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.make import make_env
from worldmodels.memory.make import memory_from_description
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.weights import load_model, load_tensors

DAG = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = ["initialise", "collect", "vision", "encode", "memory", "calibrate", "controller", "evaluate", "trial", "report"]


def body(name):
    return DAG[name].get("do", DAG[name])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_sources_it_imports(stage):
    listed = {dep for dep in body(stage)["deps"] if dep.startswith(("src/", "pipeline/"))}
    assert listed == closure(ROOT / "pipeline" / f"{stage}.py")


def test_nothing_before_memory_depends_on_the_code_of_m():
    for stage in ("initialise", "collect", "vision", "encode"):
        assert not {"src/worldmodels/models/memory.py", "src/worldmodels/training/memory.py"} & set(body(stage)["deps"])
    for stage in ("memory", "calibrate", "controller", "evaluate"):
        assert "src/worldmodels/models/memory.py" in body(stage)["deps"]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "report"])
def test_a_stage_reads_only_the_params_it_declares(stage):
    own = [path for path in closure(ROOT / "pipeline" / f"{stage}.py") if path.startswith("pipeline/")]
    source = "".join((ROOT / path).read_text() for path in own if path != "pipeline/stage.py")
    read = {"compute.threads"} | ({"trials.${key}"} if 'f"trials.' in source else set())
    read |= {f"ENV.{section}" for section in re.findall(r'stage\.params\("([\w.]+)"', source)}
    read |= set(re.findall(r'stage\.value\("([\w.]+)"', source))
    read |= {"compute.device"} if "stage.device" in source else set()
    read |= {"compute.precision"} if re.search(r"stage\.(products|training)", source) else set()
    if "stage.seed" in source or "stage.stream" in source:
        read.add("seed")
    declared = {re.sub(r"\$\{item(\.env)?\}", "ENV", name) for name in body(stage)["params"]}
    assert declared == read


def test_presets_hold_the_same_keys_and_params_yaml_is_a_preset():
    def keys(node, prefix=""):
        if isinstance(node, dict) and prefix not in (".chain", ".trials"):
            return {key for name, child in node.items() for key in keys(child, f"{prefix}.{name}")}
        return {prefix}

    presets = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "presets").glob("*.yaml")}
    assert set(presets) == {"quick", "laptop", "paper"}
    assert all(content["preset"] == name for name, content in presets.items())
    assert len({frozenset(keys(content)) for content in presets.values()}) == 1
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) in presets.values()


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The chain doom-1, doom-2, carracing-1, run with tiny params on the real games."""
    folder = make_project(tmp_path_factory.mktemp("project") / "one", tiny_params())
    run(folder, "dvc", "repro")
    return folder


def test_the_chain_runs_and_leaves_scores_a_report_and_a_clean_status(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert len(lock) == 2 + 3 * 7 + 2 + 1
    for key in ("doom-1", "doom-2", "carracing-1"):
        scores = yaml.safe_load((project / f"artifacts/{key}/scores.json").read_text())
        assert scores["preset"] == "tiny"
        assert scores["real"]["n"] == 2
        assert scores["baseline"]["n"] == 2
        assert scores["gap"] == pytest.approx(scores["dream"]["mean"] - scores["real"]["mean"])
        table = pd.read_parquet(project / f"artifacts/{key}/returns.parquet")
        assert table.groupby("world")["total"].mean()["real"] == pytest.approx(scores["real"]["mean"])
        assert set(table[table["world"] != "dream"]["seed"]) == {0, 1}
    assert "gymnasium" in yaml.safe_load((project / "artifacts/carracing-1/scores.json").read_text())["backend"]
    trial = yaml.safe_load((project / "artifacts/trials/untrained-0/trial.json").read_text())
    assert trial["real"]["n"] == 2
    assert trial["steps"]["real"] > 0 == trial["steps"]["dream"]
    assert "envpool" in trial["backend"]
    made, chained = (
        load_model(project / f"artifacts/{at}/agent/memory.safetensors", memory_from_description)
        for at in ("trials/untrained-0", "carracing-1")
    )
    assert made.config == chained.config.model_copy(update={"ending": "threshold"})
    assert any((tensor != chained.state_dict()[name]).any() for name, tensor in made.state_dict().items())
    same, begun = (
        [load_tensors(project / f"artifacts/trials/{key}/agent/{part}.safetensors")[0] for key in ("untrained-0", "onward-0")]
        for part in ("memory", "controller")
    )
    assert all((tensor == same[1][name]).all() for name, tensor in same[0].items())  # M of the trial that it goes on from
    wide = ControllerConfig(features="zh", hidden=5, bias=True)
    agent = load_agent(project / "artifacts/trials/untrained-0/agent")
    rows, _ = load_tensors(project / "artifacts/carracing-1/latents.safetensors")
    expected = begin_at(agent, agent.memory, rows, wide, key="onward-0", seed=0)
    assert len(begun[1]["parameters"]) == len(expected)
    np.testing.assert_allclose(begun[1]["parameters"][-18:], expected[-18:], atol=0.01)  # near what acts as C of that trial
    assert (begun[1]["parameters"].numpy() != expected.astype(np.float32)).any()
    onward = yaml.safe_load((project / "artifacts/trials/onward-0/trial.json").read_text())
    assert onward["steps"] == {"dream": 0, "real": 2 * 2 * 20}
    assert (project / "reports/index.html").stat().st_size > 10_000
    assert "up to date" in run(project, "dvc", "status").stdout
    assert not ran(run(project, "dvc", "repro").stdout)


def test_the_second_iteration_collects_with_the_agent_and_with_what_its_selection_rejected(project):
    found, _ = load_tensors(project / "artifacts/doom-1/controller.safetensors")
    kept, rejected = found["parameters"], found["rejected"]
    assert rejected.shape[1:] == kept.shape
    assert len(rejected) >= 2  # of the means of at least three generations
    assert (rejected != kept).any(1).all()
    played = pd.read_parquet(project / "artifacts/doom-2/episodes/episodes.parquet")["policy"]
    by = played.str.split(", strength").str[0].value_counts().to_dict()
    assert by == {"random, walk 0": 1, "doom-1 rejected": 2, "doom-1": 1}


def test_some_episodes_are_collected_on_the_back_end_that_scores(project, monkeypatch):
    monkeypatch.chdir(project)
    game = CarRacingConfig(backend="envpool", limit=60)
    episodes = pd.read_parquet("artifacts/carracing-1/episodes/episodes.parquet")
    frames = FrameReader(Path("artifacts/carracing-1/data.json"))
    begin = np.flatnonzero(np.concatenate([frames.rows(chunk)["first"] for chunk in range(len(frames))]))
    shown = np.concatenate([frames.rows(chunk)["frame"] for chunk in range(len(frames))])[begin]
    for scoring, these in ((False, slice(0, 2)), (True, slice(2, 4))):
        with closing(make_env(game, scoring=scoring)) as env:
            np.testing.assert_array_equal(env.start(episodes["seed"].tolist()[these]), shown[these])


def test_a_warm_search_goes_along_its_own_number_of_components(project):
    """Two means of a search in the dream differ along the components that it was given, and along no others."""

    def outside(key: str, directions: np.ndarray) -> float:
        found, _ = load_tensors(project / f"artifacts/{key}/controller.safetensors")
        curve = pd.read_csv(project / f"artifacts/{key}/controller.csv")
        judged = curve[curve["phase"] == "selection"].set_index("generation")["mean"]
        others = [generation for generation in judged.index if generation not in (judged.idxmax(), -1)]
        means = dict(zip(others, found["rejected"].double().numpy(), strict=True))
        means[judged.idxmax()] = found["parameters"].double().numpy()
        moved = (means[1] - means[0])[: units * directions.shape[1]].reshape(units, -1)  # what reads the features
        return float(np.linalg.norm(moved - moved @ directions.T @ directions) / np.linalg.norm(moved))

    section = tiny_params()["doom"]["controller"]
    units, few, many = section["model"]["hidden"], *(section["evolution"][name] for name in ("warm_components", "components"))
    for key, count, along in (("doom-1", many, True), ("doom-1", few, False), ("doom-2", few, True)):
        memory = load_model(project / f"artifacts/{key}/memory.safetensors", memory_from_description)
        rows, _ = load_tensors(project / f"artifacts/{key}/latents.safetensors")
        directions = principal_directions(played_features("zch", memory, rows), count)
        assert (outside(key, directions) < 1e-4) is along, (key, count)


def test_everything_comes_back_from_the_run_cache(project):
    before = (project / "dvc.lock").read_bytes()
    shutil.rmtree(project / "artifacts")
    shutil.rmtree(project / "reports")
    (project / "dvc.lock").unlink()
    assert not ran(run(project, "dvc", "repro").stdout)
    assert (project / "dvc.lock").read_bytes() == before


def test_computing_it_all_again_gives_the_same_lock_byte_for_byte(project, tmp_path):
    again = make_project(tmp_path / "two", tiny_params())
    run(again, "dvc", "repro")
    assert (again / "dvc.lock").read_text() == (project / "dvc.lock").read_text()


def test_a_change_in_m_reruns_m_and_what_depends_on_it(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["doom"]["memory"]["optimiser"]["learning_rate"] *= 2
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    stages = ran(run(project, "dvc", "repro", "evaluate@doom-1").stdout)
    assert stages == {"memory@doom-1", "controller@doom-1", "evaluate@doom-1"}


def test_a_target_runs_only_what_it_needs(project):
    stages = ran(run(project, "dvc", "repro", "--dry", "--force", "evaluate@doom-2").stdout)
    rounds = {f"{stage}@doom-{k}" for k in (1, 2) for stage in ("collect", "vision", "encode", "memory", "controller")}
    assert stages == {"initialise@doom", "evaluate@doom-2"} | rounds


LONGER = {
    "collect": {"collect.first_episodes": 60},
    "vision": {"vision.optimiser.updates": 60},
    "memory": {"memory.optimiser.updates": 1500},
    "controller": {"controller.dream.generations": 700, "controller.dream.limit": 60, "controller.selection.every": 350},
    "evaluate": {"evaluate.real.episodes": 24},
}
"""What makes a stage of the tiny project last long enough to be killed."""


@pytest.mark.parametrize("stage", LONGER)
def test_a_stage_killed_at_random_moments_goes_on_and_gives_the_same_bytes(project, tmp_path, stage):
    folder = tmp_path / "killed"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "mlartifacts", "mlflow.db"))
    params = tiny_params()
    for name, value in LONGER[stage].items():
        *path, last = name.split(".")
        node = params["doom"]
        for part in path:
            node = node[part]
        node[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command = [sys.executable, "-m", f"pipeline.{stage}", "doom-1", "doom", "doom-0"]
    outs = [folder / out.replace("${key}", "doom-1") for out in body(stage)["outs"] if "." in out]
    outs += sorted((folder / "artifacts/doom-1/episodes").iterdir()) if stage == "collect" else []
    often = {"WM_TRACKING": "off", "WM_CHECKPOINT_SECONDS": "0.2"}
    for out in outs:
        out.unlink()
    run(folder, *command, **often)
    expected = [out.read_bytes() for out in outs]
    for out in outs:
        out.unlink()
    state = folder / f".state/{stage}-doom-1.safetensors"
    random = np.random.default_rng()
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, cwd=folder, env=environment(folder) | often, stderr=subprocess.DEVNULL)
        while (not state.exists() or state.stat().st_mtime_ns == before) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert not any(out.exists() for out in outs), "killed too late to show anything"
    assert "going on from" in run(folder, *command, **often).stderr
    assert [out.read_bytes() for out in outs] == expected
    assert not state.exists()


def test_a_stage_says_what_is_wrong_with_its_params_and_exits_with_2(project):
    params = tiny_params()
    params["doom"]["vision"]["model"] = {"latnt": 64}
    folder = make_project(project.parent / "bad", params)
    done = run(folder, sys.executable, "-m", "pipeline.vision", "doom-1", "doom", "doom-0", check=False)
    assert done.returncode == 2
    assert "`doom.vision.model.latnt`. Did you mean `latent`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tests_run_on_this_checkout():
    assert Path(str(importlib.util.find_spec("worldmodels").origin)).is_relative_to(ROOT)
