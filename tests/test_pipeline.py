"""The DAG: what each stage depends on, and the whole chain run for real, at the smallest scale."""

import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from closure import ROOT, closure, outside
from lab import environment, make_project, run
from tiny import SEARCH, agent, tiny_params

from worldmodels.agent.agent import load_agent
from worldmodels.agent.begin import begin_at
from worldmodels.cli import side_by_side
from worldmodels.cli.side_by_side import stages_of
from worldmodels.compute.cores import cores
from worldmodels.controller.basis import played_features, principal_directions
from worldmodels.controller.model import ControllerConfig
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.memory.make import memory_from_description, new_memory
from worldmodels.project import load_project
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.layout import STAGES
from worldmodels.storage.weights import load_model, load_tensors

DAG = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WORLD_MODELS, AGENTS = ("doom-1", "doom-2", "carracing-1"), (
    "doom-1", "doom-2", "doom-2-game", "carracing-1", "carracing-1-game", "carracing-untrained",
)  # fmt: skip


def body(name):
    return DAG[name].get("do", DAG[name])


def test_the_dag_names_the_stages_in_their_order_and_is_short():
    assert list(DAG) == list(STAGES)
    assert all(DAG[stage].get("foreach", "") == (f"${{{section}}}" if section else "") for stage, section in STAGES.items())
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 260


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_nothing_outside_the_rooms_that_it_depends_on(stage):
    code = [dep for dep in body(stage)["deps"] if dep.startswith(("src/", "pipeline/"))]
    assert not outside(closure(ROOT / "pipeline" / f"{stage}.py"), code)
    assert all((ROOT / dep).exists() for dep in code)


@pytest.mark.parametrize(
    ("room", "first"), [("memory", "memory"), ("vision", "vision"), ("controller", "controller"), ("report", "film")]
)
def test_nothing_before_a_room_depends_on_its_code(room, first):
    stages = list(STAGES)
    dependent = [stage for stage in stages if f"src/worldmodels/{room}" in body(stage)["deps"]]
    assert dependent[0] == first


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "report"])
def test_a_stage_reads_only_the_params_it_declares(stage):
    own = [path for path in closure(ROOT / "pipeline" / f"{stage}.py") if path.startswith("pipeline/")]
    source = "".join((ROOT / path).read_text() for path in own if path != "pipeline/stage.py")
    read = {"compute"} | {f"ENV.{section}" for section in re.findall(r'stage\.params\("([\w.]+)"', source)}
    read |= set(re.findall(r'stage\.value\("([\w.]+)"', source))
    read |= {"agents.KEY"} if 'f"agents.' in source else set()
    read |= {"ENV.controllers.NAME"} if 'f"controllers.' in source else set()
    read |= {"seed"} if re.search(r"stage\.(project_seed|stream)", source) else set()
    names = {"${item}": "ENV", "${item.env}": "ENV", "${key}": "KEY", "${item.controller}": "NAME"}
    declared = {re.sub(r"\$\{[\w.]+\}", lambda found: names[found[0]], name) for name in body(stage)["params"]}
    assert declared == read


@pytest.mark.parametrize("name", ["quick", "laptop", "paper", "my-way-home"])
def test_a_preset_is_valid_short_and_called_as_its_file(name):
    path = ROOT / "presets" / f"{name}.yaml"
    project = load_project(path)
    assert project.preset == name
    assert name != "quick" or len(path.read_text().splitlines()) <= 120
    for section in yaml.safe_load(path.read_text()).values():
        if isinstance(section, dict) and "controllers" in section:
            section["controllers"] = dict([next(iter(section["controllers"].items()))])
            assert leaves(section) <= 60


def leaves(node):
    return sum(map(leaves, node.values())) if isinstance(node, dict) else 1


def test_params_yaml_is_a_preset():
    presets = [yaml.safe_load(path.read_text()) for path in (ROOT / "presets").glob("*.yaml")]
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) in presets


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two world models of Take Cover and one of CarRacing with all their agents, run with tiny params on the real games.

    The games were computed side by side; the file ``said`` beside it holds what that said.
    """
    folder = make_project(tmp_path_factory.mktemp("project") / "one", tiny_params())
    (folder.parent / "said").write_text(run(folder, "wm", "repro").stdout)
    return folder


def scores_of(folder, key):
    return yaml.safe_load((folder / f"metrics/{key}.json").read_text())


def test_the_chain_runs_and_leaves_scores_a_report_and_a_clean_status(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert len(lock) == 2 + 5 * len(WORLD_MODELS) + 3 * len(AGENTS) + 1
    params = load_project(project / "params.yaml")
    assert (
        list(lock) == [*(stage for name in params.environments for stage in stages_of(params, name)), "report"] or cores() < 2
    )
    assert "side by side" in (project.parent / "said").read_text() or cores() < 2
    for key in AGENTS:
        scores = scores_of(project, key)
        assert (scores["key"], scores["preset"], scores["real"]["n"], scores["random"]["n"]) == (key, "tiny", 2, 2)
        assert scores["gap"] == pytest.approx(scores["dream"]["mean"] - scores["real"]["mean"])
        table = pd.read_parquet(project / f"artifacts/agents/{key}/returns.parquet")
        assert table.groupby("world")["total"].mean()["real"] == pytest.approx(scores["real"]["mean"])
        assert set(table[table["world"] != "dream"]["seed"]) == {0, 1}
        film = {path.name for path in (project / f"artifacts/agents/{key}/film").iterdir()}
        assert film == {"agent.mp4", "vision.png", "dream.png", "traversal.png", "temperatures.png"}
    assert "gymnasium" in scores_of(project, "carracing-1")["backend"]
    assert scores_of(project, "carracing-untrained")["study"] == "ablation"
    assert (project / "reports/index.html").stat().st_size > 10_000
    assert "up to date" in run(project, "dvc", "status").stdout
    assert not ran(run(project, "wm", "repro").stdout)


def test_scores_say_where_c_learned_and_for_how_long(project):
    assert scores_of(project, "doom-2-game")["steps"] == {"dream": 0, "game": 2 * 2 * 20}
    assert scores_of(project, "carracing-1-game")["steps"] == {"dream": 0, "game": 2 * 2 * 20}
    both = scores_of(project, "doom-1")["steps"]
    assert both["dream"] > 2 * 2 * 20  # of CMA-ES and PPO
    assert both["game"] == 0
    assert scores_of(project, "carracing-untrained")["steps"]["game"] > 0


def test_an_untrained_m_is_of_the_same_shape_and_other_weights(project):
    made, trained = (
        load_model(project / f"artifacts/agents/{at}/agent/memory.safetensors", memory_from_description)
        for at in ("carracing-untrained", "carracing-1")
    )
    assert made.config == trained.config
    assert any((tensor != trained.state_dict()[name]).any() for name, tensor in made.state_dict().items())


def test_the_m_that_a_world_model_began_from_is_kept(project):
    models = project / "artifacts/world_models"
    began, before = (load_tensors(models / f"doom-2/{name}")[0] for name in ("memory_before.safetensors", "memory.safetensors"))
    theirs = load_tensors(models / "doom-1/memory.safetensors")[0]
    assert all((theirs[name] == tensor).all() for name, tensor in began.items())
    assert any((before[name] != tensor).any() for name, tensor in began.items())
    untrained = load_model(models / "doom-1/memory_before.safetensors", memory_from_description)
    fresh = new_memory(untrained.config, untrained.latent, untrained.action, 0)
    assert all((fresh.state_dict()[name] == tensor).all() for name, tensor in untrained.state_dict().items())


def test_an_agent_of_another_shape_begins_at_what_acts_as_the_agent_before_it(project):
    begun = load_tensors(project / "artifacts/agents/carracing-1-game/agent/controller.safetensors")[0]["parameters"]
    agent = load_agent(project / "artifacts/agents/carracing-1/agent")
    rows, _ = load_tensors(project / "artifacts/world_models/carracing-1/latents.safetensors")
    wide = ControllerConfig(features="zh", hidden=5, bias=True)
    expected = begin_at(agent, agent.memory, rows, wide, None, seed=0)
    assert len(begun) == len(expected)
    x = played_features("zh", agent.memory, rows)[:500]
    said = [np.tanh(np.tanh(x @ c[: 5 * x.shape[1]].reshape(5, -1).T + c[-23:-18]) @ c[-18:-3].reshape(3, 5).T + c[-3:])
            for c in (begun.double().numpy(), expected)]  # fmt: skip
    assert np.abs(said[0] - said[1]).mean() < 0.2  # two updates away from it


def test_the_second_iteration_collects_with_the_agent_and_with_what_its_selection_rejected(project):
    kept = load_tensors(project / "artifacts/agents/doom-1/agent/controller.safetensors")[0]["parameters"]
    rejected = load_tensors(project / "artifacts/agents/doom-1/rejected.safetensors")[0]["rejected"]
    assert rejected.shape[1:] == kept.shape
    assert len(rejected) >= 2  # of the contestants of at least three generations
    assert (rejected != kept).any(1).all()
    played = pd.read_parquet(project / "artifacts/world_models/doom-2/episodes/episodes.parquet")["policy"]
    by = played.str.split(", strength").str[0].value_counts().to_dict()
    assert by == {"random, walk 0": 1, "doom-1 rejected": 2, "doom-1": 1}


def test_some_episodes_are_collected_on_the_back_end_that_scores(project, monkeypatch):
    monkeypatch.chdir(project)
    game = CarRacingConfig(limit=60)
    folder = Path("artifacts/world_models/carracing-1")
    episodes = pd.read_parquet(folder / "episodes/episodes.parquet")
    frames = FrameReader(folder / "data.json")
    begin = np.flatnonzero(np.concatenate([frames.rows(chunk)["first"] for chunk in range(len(frames))]))
    shown = np.concatenate([frames.rows(chunk)["frame"] for chunk in range(len(frames))])[begin]
    for scoring, these in ((False, slice(0, 2)), (True, slice(2, 4))):
        with closing(game.make(scoring=scoring)) as env:
            np.testing.assert_array_equal(env.start(episodes["seed"].tolist()[these]), shown[these])


def test_a_search_goes_along_its_own_number_of_components(project):
    """Two means of a search in the dream differ along the components that it was given, and along no others."""
    found, _ = load_tensors(project / "artifacts/agents/carracing-1/rejected.safetensors")
    kept = load_tensors(project / "artifacts/agents/carracing-1/agent/controller.safetensors")[0]["parameters"]
    rows, _ = load_tensors(project / "artifacts/world_models/carracing-1/latents.safetensors")
    folder = project / "artifacts/world_models/carracing-1"
    memory = load_model(folder / "memory.safetensors", memory_from_description)
    moved = (kept - found["rejected"][0]).double().numpy()[:-3].reshape(3, -1)
    for count, along in ((SEARCH["components"], True), (3, False)):
        directions = principal_directions(played_features("zh", memory, rows), count)
        outside = np.linalg.norm(moved - moved @ directions.T @ directions) / np.linalg.norm(moved)
        assert bool(outside < 1e-4) is along, count


def test_everything_comes_back_from_the_run_cache(project):
    before = yaml.safe_load((project / "dvc.lock").read_text())
    shutil.rmtree(project / "artifacts")
    shutil.rmtree(project / "reports")
    (project / "dvc.lock").unlink()
    assert not ran(run(project, "dvc", "repro").stdout)
    assert yaml.safe_load((project / "dvc.lock").read_text()) == before  # but for the order, in which the stages ended


def test_computing_an_iteration_again_with_one_game_after_the_other_gives_the_same_bytes(project, tmp_path):
    first = tiny_params()
    for section in ("world_models", "agents"):
        first[section] = {key: first[section][key] for key in ("doom-1", "carracing-1")}
    again = make_project(tmp_path / "two", first)
    run(again, "dvc", "repro", *(f"evaluate@{key}" for key in first["agents"]))
    here, there = (yaml.safe_load((folder / "dvc.lock").read_text())["stages"] for folder in (again, project))
    assert len(here) == 2 * len(("initialise", "collect", "vision", "encode", "memory", "controller", "evaluate"))
    assert here == {stage: there[stage] for stage in here}


@pytest.mark.skipif(cores() < 2, reason="the games go one after the other")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_wm_repro_ends_both_games(tmp_path, number):
    params = tiny_params()
    for name in params["environments"]:
        params[name]["evaluate"]["episodes"] = 500  # neither game is at its next stage when the signal comes
    folder = make_project(tmp_path / "project", params)
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(["wm", "repro"], cwd=folder, env=environment(folder), **how) as process:
        told = ""
        while not all(f"initialise {name}-0:" in told for name in ("doom", "carracing")):
            assert process.poll() is None, told
            told += process.stdout.readline()
        process.send_signal(number)
        told += process.stdout.read()  # to the end: whoever still runs holds the pipe
        assert process.wait(60)
    assert "Traceback" not in told
    assert not [line for line in processes() if str(folder) in line]


@pytest.mark.skipif(cores() < 2, reason="the games go one after the other")
def test_a_game_whose_dvc_is_killed_fails_the_run(tmp_path, monkeypatch, capfd):
    def command(*targets):
        return [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)" if "initialise@doom" in targets else ""]

    monkeypatch.setattr(side_by_side, "_dvc", command)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    assert side_by_side.repro(tmp_path, []) == 1
    assert "doom: not done" in capfd.readouterr().err


def test_what_was_about_to_start_when_a_run_is_stopped_is_stopped_too():
    with pytest.raises(KeyboardInterrupt), side_by_side._stopped_together() as started:
        raise KeyboardInterrupt
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    started(process)
    assert process.wait(20) == -signal.SIGINT


def processes():
    """Return the folder and the command of every process that can be read."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append(f"{(entry / 'cwd').readlink()} {(entry / 'cmdline').read_text()}")
    return found


def changed(project, *edits):
    params = tiny_params()
    for path, value in edits:
        *inner, last = path.split(".")
        node = params
        for part in inner:
            node = node[part]
        node[last] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def would_run(project, target):
    """Return the stages that DVC would run for a target if it has to, before any of them has made something else."""
    return ran(run(project, "dvc", "repro", "--dry", target).stdout)


def test_a_change_in_m_reruns_m_and_what_depends_on_it(project):
    changed(project, ("doom.memory.optimiser.learning_rate", 0.004))
    try:
        stages = ran(run(project, "dvc", "repro", "evaluate@doom-1").stdout)
    finally:
        changed(project)
        run(project, "dvc", "repro", "evaluate@doom-1")  # all that was comes back from the run cache
    assert stages == {"memory@doom-1", "controller@doom-1", "evaluate@doom-1"}


def test_another_order_of_the_phases_is_another_search(project):
    changed(project, ("doom.controllers.dream.order", ["learn", "search"]))
    try:
        assert "controller@doom-1" in would_run(project, "controller@doom-1")
    finally:
        changed(project)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("src/worldmodels/controller/phases/ppo.py", {"controller", "evaluate", "film"}),
        ("src/worldmodels/report/style.py", {"film", "report"}),
        ("src/worldmodels/tracking/live.py", set()),
    ],
)
def test_a_change_of_code_reruns_the_stages_of_its_room_and_below_only(project, file, expected):
    path = project / file
    text = path.read_text()
    path.write_text(text + "\n# changed\n")
    try:
        status = run(project, "dvc", "status").stdout
    finally:
        path.write_text(text)
    stages = {line.split("@")[0].rstrip(":") for line in status.splitlines() if line and not line[0].isspace()}
    assert stages - {"Data and pipelines are up to date."} == expected


def test_another_explorer_collects_again_and_one_that_is_the_player_changes_nothing(project):
    curious = agent("doom", "doom-1", "doom-0", "dream", seed=1)
    changed(project, ("agents.doom-1-curious", curious))
    try:
        assert "collect@doom-2" not in would_run(project, "collect@doom-2")
        changed(project, ("agents.doom-1-curious", curious), ("world_models.doom-2.explorer", "doom-1-curious"))
        told = run(project, "dvc", "status", "collect@doom-2").stdout
        assert "changed command" in told
        assert "artifacts/agents/doom-1-curious/agent" in told
    finally:
        changed(project)


def test_an_explorer_plays_its_share_before_the_player(project, tmp_path):
    folder = tmp_path / "explored"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "mlartifacts", "mlflow.db"))
    command = [sys.executable, "-m", "pipeline.collect", "key=doom-2", "env=doom", "after=doom-1", "player=doom-1"]
    made = folder / "artifacts/world_models/doom-2"
    before = {path: path.read_bytes() for path in [made / "data.json", *sorted((made / "episodes").iterdir())]}

    def collect(explorer):
        for path in before:
            path.unlink()
        run(folder, *command, f"explorer={explorer}")
        table = pd.read_parquet(made / "episodes/episodes.parquet")
        return table["policy"].str.split(", strength").str[0].tolist(), table["seed"].tolist()

    who, seeds = collect("doom-2-game")
    assert who == ["random, walk 0", "doom-1 rejected", "doom-1 rejected", "doom-2-game explorer"]
    assert collect("doom-1") == (["random, walk 0", "doom-1 rejected", "doom-1 rejected", "doom-1"], seeds)
    assert {path: path.read_bytes() for path in before} == before


def test_a_target_runs_only_what_it_needs(project):
    stages = ran(run(project, "dvc", "repro", "--dry", "--force", "evaluate@doom-2").stdout)
    chain = {f"{stage}@doom-{k}" for k in (1, 2) for stage in ("collect", "vision", "encode", "memory", "controller")}
    assert stages == {"initialise@doom", "evaluate@doom-2"} | chain


LONGER = {
    "collect": ("collect.first_episodes", 120),
    "vision": ("vision.optimiser.updates", 60),
    "memory": ("memory.optimiser.updates", 800),
    "controller": ("controllers.dream.phases.search.generations", 200),
    "evaluate": ("evaluate.episodes", 300),
}
"""What makes a stage of the tiny project last long enough to be killed."""


IN_TURN = ("vision", "controller", "evaluate")  # kept as others are: learning as M does, playing as `collect` does


@pytest.mark.parametrize("stage", [pytest.param(name, marks=pytest.mark.slow if name in IN_TURN else ()) for name in LONGER])
def test_a_stage_killed_at_random_moments_goes_on_and_gives_the_same_bytes(project, tmp_path, stage):
    folder = tmp_path / "killed"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "mlartifacts", "mlflow.db"))
    name, value = LONGER[stage]
    changed(folder, (f"doom.{name}", value))
    called = tiny_params()[STAGES[stage]]["doom-1"] | {"key": "doom-1"}
    wanted = re.findall(r"(\w+)=\$", body(stage)["cmd"])
    command = [sys.executable, "-m", f"pipeline.{stage}", *(f"{key}={called[key]}" for key in wanted)]
    listed = [
        *body(stage).get("outs", []),
        *(key for part in ("metrics", "plots") for out in body(stage).get(part, []) for key in out),
    ]
    places = [folder / out.replace("${key}", "doom-1") for out in listed]

    def files():
        return sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())

    def clear():
        for file in files():
            file.unlink()

    often = {"WM_TRACKING": "off", "WM_CHECKPOINT_SECONDS": "0.2"}
    clear()
    run(folder, *command, **often)
    expected = {file: file.read_bytes() for file in files()}
    clear()
    state = folder / f".state/{stage}-doom-1.safetensors"
    random = np.random.default_rng(sum(map(ord, stage)))
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, cwd=folder, env=environment(folder) | often, stderr=subprocess.DEVNULL)
        while (not state.exists() or state.stat().st_mtime_ns == before) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert not files(), "killed too late to show anything"
    assert "going on from" in run(folder, *command, **often).stderr
    assert {file: file.read_bytes() for file in files()} == expected
    assert not state.exists()


def test_a_stage_whose_params_are_edited_while_it_runs_fails_and_says_so(project, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "mlartifacts", "mlflow.db"))
    changed(folder, ("doom.memory.optimiser.updates", 500))
    command = [sys.executable, "-m", "pipeline.memory", "key=doom-1", "env=doom", "after=doom-0"]
    often = environment(folder) | {"WM_TRACKING": "off", "WM_CHECKPOINT_SECONDS": "0.2"}
    process = subprocess.Popen(command, cwd=folder, env=often, stderr=subprocess.PIPE, text=True)
    while not (folder / ".state/memory-doom-1.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # else it may be done before it is changed
    changed(folder, ("doom.memory.optimiser.updates", 500), ("doom.memory.optimiser.learning_rate", 0.5))
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "params.yaml was changed while this stage ran (doom.memory.optimiser.learning_rate)" in said


def test_a_stage_says_what_is_wrong_with_its_params_and_exits_with_2(project):
    params = tiny_params()
    params["doom"]["vision"]["model"] = {"latnt": 64}
    folder = make_project(project.parent / "bad", params)
    done = run(folder, sys.executable, "-m", "pipeline.vision", "key=doom-1", "env=doom", "after=doom-0", check=False)
    assert done.returncode == 2
    assert "`doom.vision.model.latnt`. Did you mean `latent`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tests_run_on_this_checkout():
    assert Path(str(importlib.util.find_spec("worldmodels").origin)).is_relative_to(ROOT)
