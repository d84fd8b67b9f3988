"""The mirror of dvc.lock in a real store."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import lab
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import ViewType
from tracked import (
    AGENTS,
    EXPERIMENT,
    OF_AGENTS,
    OF_WORLD_MODELS,
    SOURCES,
    WORLD_MODELS,
    aliases_of,
    client_of,
    files_of,
    live_agent,
    live_world_model,
    make_agent_files,
    make_film,
    make_memory,
    make_scores,
    make_world_model,
    mirror,
    runs,
    version_of,
    write_lock,
)

from worldmodels.cli.doctor import check_store
from worldmodels.cli.registry import list_text, list_versions
from worldmodels.errors import ArtifactError
from worldmodels.storage.layout import AgentFiles, WorldModelFiles
from worldmodels.tracking.dvclock import DvcLock, artifact_hash, parse_lock, read_lock
from worldmodels.tracking.live import stage_run
from worldmodels.tracking.pages import game_pages
from worldmodels.tracking.release import RefusedError, promote
from worldmodels.tracking.store import StoreError
from worldmodels.tracking.sync import sync

PAGE = Path(__file__).parents[1] / "docs/track-compare-release.md"
ENTRIES = 1 + len(OF_WORLD_MODELS) * len(WORLD_MODELS) + len(OF_AGENTS) * len(AGENTS)
SCORES = {"score": 8.0, "error": 0.5, "dream": 9.0, "gap": 1.0}
"""Of doom-2-game."""
FILM = ["agent.mp4", "dream.png", "temperatures.png", "traversal.png", "vision.png"]


def parent_of(client, key):
    (run,) = runs(client, kind="iteration", key=key, current="true")
    return run


def children_of(client, parent):
    found = [run for run in runs(client, kind="stage") if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return sorted(run.info.run_name for run in found)


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
    found = (first.entries, first.runs_added, first.parents_added, first.versions_added, first.notes)
    assert found == (ENTRIES, ENTRIES, 2, 4, [])
    client = client_of(project)
    before = mirror(client)
    shown, versions, aliases = before
    children = [(name, parent) for name, _, parent, *_ in shown if name not in WORLD_MODELS]
    assert sorted(children) == sorted(
        [("doom-0", "")]  # random play; the report belongs to no game
        + [(f"{stage} {key}", key) for stage in OF_WORLD_MODELS for key in WORLD_MODELS]
        + [(f"{stage} {key}", model) for stage in OF_AGENTS for key, (model, *_) in AGENTS.items()]
    )
    assert {status for _, status, *_ in shown} == {"FINISHED"}
    assert [version[:3] for version in versions] == [
        ("worldmodels-doom", 1, "doom-1"),
        *(("worldmodels-doom", number, "doom-2") for number in (2, 3, 4)),
    ]
    assert aliases.keys() == {"doom-1", "doom-2", "doom-2-game", "candidate"}  # none of a study
    assert {key: aliases[key] for key in ("doom-1", "candidate")} == {"doom-1": 1, "candidate": aliases["doom-2-game"]}

    (memory,) = runs(client, stage="memory", key="doom-2")
    assert memory.data.params == {"seed": "0", "doom.memory.model.hidden": "4", "doom.memory.optimiser.updates": "3"}
    latents = project / "artifacts/world_models/doom-2/latents.safetensors"
    assert reads(memory) == [("doom-2 latents", artifact_hash(latents), "training")]
    curve = pd.read_csv(project / "artifacts/world_models/doom-2/memory.csv").query("split == 'train'")
    history = client.get_metric_history(memory.info.run_id, "M/loss")
    assert [(point.step, point.value) for point in history] == list(zip(curve["update"], curve["loss"], strict=True))
    assert memory.data.metrics["M/loss"] == curve["loss"].iloc[-1]
    (calibrate,) = runs(client, stage="calibrate", key="doom-2")
    assert reads(calibrate) == [("doom-2 latents", artifact_hash(latents), "evaluation")]
    assert calibrate.data.metrics == {"M/dream_excess": 0.5, "M/dream_excess_max": 0.5}
    (collect,) = runs(client, stage="collect", key="doom-2")
    assert collect.data.metrics.keys() == {"data/episodes", "data/frames", "data/return", "data/length"}
    (search,) = runs(client, stage="controller", key="doom-2")
    assert search.data.metrics == {
        "C/dream_return": 3.0, "C/dream_best": 3.0, "C/dream_std": 0.5, "C/dream_sigma": 0.1, "C/selection_return": 8.0,
        "C/selection_std": 1.0
    }  # fmt: skip

    again = sync(project)
    assert (again.runs_added, again.parents_added, again.versions_added) == (0, 0, 0)
    assert mirror(client) == before
    # Another database, not the same one deleted: within one process MLflow would go on writing into the deleted file.
    shutil.rmtree(project / "mlartifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/again.db")
    assert sync(project) == first
    assert mirror(client_of(project)) == before


def test_an_iteration_shows_the_scores_of_its_last_agent_its_config_and_the_films_of_all(synced):
    client = client_of(synced)
    parent = parent_of(client, "doom-2")
    assert parent.data.metrics == {f"Agent/{name}": v for name, v in SCORES.items()}
    told = {"agent": "doom-2-game", "episodes": "16 (test)", "blind": "5.0 ± 0.5", "random": "4.0 ± 0.5", "paper": "-"}
    assert told.items() <= parent.data.tags.items()
    (data,) = parent.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("doom-2 data", parent.data.tags["wm.data"])
    assert parent.data.tags["wm.M"] == artifact_hash(synced / "artifacts/world_models/doom-2/memory.safetensors")
    films = [f"pictures/{key}/{name}" for key in ("doom-2", "doom-2-flat", "doom-2-game") for name in FILM]
    assert files_of(client, parent) == ["config.yaml", *sorted(films)]
    (film,) = runs(client, stage="film", key="doom-2")
    assert files_of(client, film) == [f"pictures/{name}" for name in FILM]
    text = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/config.yaml")
    config = yaml.safe_load(text)
    assert config["doom"]["memory"]["model"]["hidden"] == 4
    assert config["doom"]["memory"]["optimiser"]["batch"] == 32  # a default, which nobody wrote
    assert config["agents"]["doom-2-flat"]["study"] == "ablation"
    assert parent.data.params == {"seed": "0", "doom.memory.model.hidden": "4", "doom.memory.optimiser.updates": "3"}


def test_an_iteration_says_in_a_sentence_and_a_table_how_good_its_agents_are_and_why_one_is_champion(synced):
    client = client_of(synced)
    note = parent_of(client, "doom-2").data.tags["mlflow.note.content"]
    sentence, _, heading, _, *rows = note.splitlines()
    assert sentence.startswith("doom-2-game gets 8.0 ± 0.5 a game: better than the best blind policy")
    assert heading == "| agent | score | n | dream | best blind | paper | champion |"
    assert {row.split(" | ")[0].strip("| "): row.split(" | ")[-1].strip(" |") for row in rows} == {
        "doom-2": "not asked: `wm registry promote doom-2`",
        "doom-2-game": "not asked: `wm registry promote doom-2-game`",
        "doom-2-flat": "belongs to the study `ablation`, which only compares. Name its recipe by an agent with `study: none` "
        "to release it.",
    }


def test_the_pages_of_a_game_tell_what_the_runs_are_and_hold_views_of_them(synced):
    client = client_of(synced)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert "play **doom** in dreams" in experiment.tags["mlflow.note.content"]
    for view, column in (("iterations", "metrics.`Agent/score`"), ("curves", "metrics.`V/validation_loss`")):
        saved = json.loads(experiment.tags[f"mlflow.sharedViewState.{view}"])
        assert column in json.loads(saved["state"])["selectedColumns"]
    assert game_pages(client) == {
        "doom": f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=iterations"
    }
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    sync(synced, registry=False)
    assert client.get_experiment_by_name(EXPERIMENT).tags["mlflow.note.content"] == "mine"


def test_the_user_interface_prints_the_page_of_a_game_and_opens_it_on_a_desktop(synced, tmp_path):
    browser, opened, port = tmp_path / "browser", tmp_path / "opened", lab.free_port()
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part; mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    own = lab.environment(synced) | {"PYTHONPATH": str(SOURCES), "DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    with lab.serving(["wm", "track", "ui", "--port", str(port)], opened.exists, tmp_path / "log", cwd=synced, env=own):
        address = opened.read_text().strip()
        assert f"doom: {address}\n" in (tmp_path / "log").read_text()
        assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/#/experiments/\d+/runs\?workflowType=machine_learning&.*", address)


def reads(run):
    """Return name, digest and context of the data sets that a run read."""
    told = [(each.dataset, {tag.key: tag.value for tag in each.tags}) for each in run.inputs.dataset_inputs]
    return [(data.name, data.digest, tags["mlflow.data.context"]) for data, tags in told]


def test_models_are_called_as_their_agents_and_the_best_is_found_by_its_score(synced):
    client = client_of(synced)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    order = [{"field_name": "metrics.Agent/score", "ascending": False}]
    found = client.search_logged_models([experiment], "metrics.`Agent/score` > 1", order_by=order)
    assert [model.name for model in found] == ["doom-2-game", "doom-2", "doom-1", "doom-2-flat"]
    told = {metric.key: (metric.value, metric.dataset_name) for metric in found[0].metrics}
    played = "takecover on vizdoom, 16 test episodes"
    assert told == {f"Agent/{name}": (value, played) for name, value in SCORES.items()}
    (tested,) = runs(client, stage="evaluate", key="doom-2-game")
    assert [each.model_id for each in client.get_run(tested.info.run_id).inputs.model_inputs] == [found[0].model_id]
    assert [(name, context) for name, _, context in reads(tested)] == [(played, "evaluation")]
    assert len(client.get_metric_history(tested.info.run_id, "Agent/score")) == 1


def test_a_server_finds_the_best_agent_by_its_score_on_the_test_episodes(project, tmp_path, monkeypatch):
    """Over REST, as the page of a model and `mlflow.search_logged_models` ask."""
    port = lab.free_port()
    address = f"http://127.0.0.1:{port}"
    own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/served.db", "--artifacts-destination", str(tmp_path / "served")]
    with lab.serving(command, lambda: lab.answers(f"{address}/health"), tmp_path / "log", env=own, cwd=tmp_path):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert sync(project).versions_added == 4
        client = client_of(project)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        (tested,) = runs(client, stage="evaluate", key="doom-2-game")
        ((played, digest, _),) = reads(tested)
        by_score = {"field_name": "metrics.Agent/score", "ascending": False, "dataset_name": played, "dataset_digest": digest}
        found = mlflow.search_logged_models([experiment], order_by=[by_score], output_format="list")
        assert [model.name for model in found] == ["doom-2-game", "doom-2", "doom-1", "doom-2-flat"]
        those = [{"dataset_name": played, "dataset_digest": digest}]  # MLflow's server finds nothing by the name alone
        above = {"filter_string": "metrics.`Agent/score` > 6.5", "datasets": those}
        above = mlflow.search_logged_models([experiment], **above, output_format="list")
        assert {model.name for model in above} == {"doom-2-game", "doom-2"}
        code = re.search(r"```python\n(import mlflow\n.*?search_logged_models.*?)```", PAGE.read_text(), re.DOTALL)[1]
        code = code.replace("sqlite:///mlflow.db", address)
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert said.startswith("doom-2-game {'Agent/")
        shown = client.get_logged_model(found[0].model_id)
        told = {metric.key: (metric.value, metric.dataset_name, metric.run_id) for metric in shown.metrics}
        assert told == {f"Agent/{name}": (value, played, tested.info.run_id) for name, value in SCORES.items()}
        assert shown.tags["mlflow.note.content"].startswith("doom-2-game gets 8")


def test_two_games_have_an_experiment_each(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    other = lock["stages"].pop("initialise@doom") | {"cmd": "python -m pipeline.initialise key=pong-0 env=pong"}
    (project / "metrics/pong-0.json").write_text((project / "metrics/doom-0.json").read_text())
    for out in other["outs"]:
        out["path"] = out["path"].replace("doom-0", "pong-0")
    lock["stages"]["initialise@pong"] = other
    (project / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    sync(project, registry=False)
    client = client_of(project)
    assert list(game_pages(client)) == ["doom", "pong"]
    place = client.get_experiment_by_name("worldmodels-pong").experiment_id
    assert [(run.info.run_name, run.data.metrics["Agent/score"]) for run in client.search_runs([place])] == [("pong-0", 4.0)]


def test_an_agent_scored_on_development_episodes_has_no_alias_and_no_score_of_the_test(synced):
    client = client_of(synced)
    files = AgentFiles("doom-2-game", synced)
    files.scores.write_text(files.scores.read_text().replace('"test"', '"development"'))
    write_lock(synced)
    assert sync(synced).versions_added == 1
    assert aliases_of(client).keys() == {"doom-1", "doom-2", "candidate"}
    assert aliases_of(client)["candidate"] == aliases_of(client)["doom-2"]
    (tested,) = [run for run in runs(client, stage="evaluate", key="doom-2-game") if "Agent/score" not in run.data.metrics]
    assert tested.data.metrics["Agent on development/score"] == 8.0
    note = parent_of(client, "doom-2").data.tags["mlflow.note.content"]
    assert "played development episodes, which only compare recipes" in note
    assert note.startswith("doom-2 gets")
    with pytest.raises(RefusedError, match="development episodes"):
        promote(client, version_of(client, "doom-2-game"))


def test_a_version_says_what_its_agent_is_made_of_and_how_good_it_is(synced):
    client = client_of(synced)
    version = client.get_model_version_by_alias("worldmodels-doom", "candidate")
    files = AgentFiles("doom-2-game", synced)
    expected = {
        "wm.key": "doom-2-game", "wm.world_model": "doom-2", "wm.controller": "dream", "wm.study": "none", "wm.preset": "quick",
        "wm.rules": "takecover", "wm.backend": "vizdoom", "wm.block": "test", "real.mean": "8", "real.n": "16",
        "score": "8.0 ± 0.5", "dream": "9.0 ± 0.5", "blind": "5.0 ± 0.5", "wm.agent": artifact_hash(files.agent),
        "wm.V": artifact_hash(WorldModelFiles("doom-2", synced).vision),
    }  # fmt: skip
    assert {name: version.tags[name] for name in expected} == expected
    assert version.description.startswith("doom-2-game gets 8.0 ± 0.5 a game: better than")
    assert "mlflow.pyfunc.load_model" in version.description
    assert version_of(client, "doom-2-flat").tags["wm.study"] == "ablation"


def test_sync_adopts_live_runs_and_completes_them_and_a_forced_rerun_leaves_no_doubles(project):
    live_world_model(project, "doom-1")
    live_agent(project, "doom-1")
    client = client_of(project)
    live = {run.info.run_id for run in runs(client)}
    report = sync(project, registry=False)
    added = ENTRIES - len(OF_WORLD_MODELS) - len(OF_AGENTS)
    assert (report.runs_added, report.parents_added) == (added, 2)
    parent = parent_of(client, "doom-1")
    assert parent.info.run_id in live
    assert (parent.info.status, parent.data.tags["wm.open"]) == ("FINISHED", "false")
    (memory,) = runs(client, stage="memory", key="doom-1")
    assert memory.info.run_id in live
    assert memory.data.params == {
        "doom.memory.live": "1", "seed": "0", "doom.memory.model.hidden": "4", "doom.memory.optimiser.updates": "3"
    }  # fmt: skip
    assert "M/validation_loss" in memory.data.metrics

    live_world_model(project, "doom-1")
    assert len(runs(client, kind="iteration", key="doom-1")) == 2
    again = sync(project, registry=False)
    assert (again.runs_added, again.parents_added) == (0, 0)
    (still,) = runs(client, kind="iteration", key="doom-1")
    assert still.info.run_id == parent.info.run_id
    everything = [f"{stage} doom-1" for stage in (*OF_WORLD_MODELS, *OF_AGENTS)]
    assert children_of(client, still) == sorted(everything)


def test_a_changed_m_makes_a_new_iteration_and_new_versions_and_what_did_not_change_moves_there(synced):
    client = client_of(synced)
    old, aliases = parent_of(client, "doom-2"), aliases_of(client)
    make_memory(WorldModelFiles("doom-2", synced), 7)
    write_lock(synced)
    report = sync(synced)
    assert (report.runs_added, report.parents_added, report.versions_added) == (1, 1, 3)
    new = parent_of(client, "doom-2")
    assert new.info.run_id != old.info.run_id
    assert len(children_of(client, new)) == len(OF_WORLD_MODELS) + 3 * len(OF_AGENTS)
    assert aliases_of(client)["candidate"] > aliases["candidate"]

    make_memory(WorldModelFiles("doom-2", synced), 2)  # `git checkout` of the former state: the mirror turns back
    write_lock(synced)
    back = sync(synced)
    assert (back.runs_added, back.parents_added, back.versions_added) == (0, 0, 0)
    assert parent_of(client, "doom-2").info.run_id == old.info.run_id
    assert aliases_of(client) == aliases


def test_another_agent_on_the_same_world_model_joins_its_iteration_and_one_that_learned_anew_is_another_version(project):
    few = {key: AGENTS[key] for key in ("doom-1", "doom-2")}
    write_lock(project, agents=few)
    sync(project)
    client = client_of(project)
    parent = parent_of(client, "doom-2")
    assert (parent.info.status, parent.data.metrics["Agent/score"]) == ("FINISHED", 7.0)
    live_agent(project, "doom-2-game", stages=["controller"])
    opened = parent_of(client, "doom-2")
    assert (opened.info.run_id, opened.data.tags["wm.open"]) == (parent.info.run_id, "true")
    more = {**few, "doom-2-game": AGENTS["doom-2-game"]}
    write_lock(project, agents=more, without=("evaluate@doom-2-game", "film@doom-2-game"))
    sync(project)
    waits = parent_of(client, "doom-2")
    assert (waits.info.status, waits.data.metrics["Agent/score"]) == ("SCHEDULED", 7.0)
    write_lock(project, agents=more)
    report = sync(project)
    assert (report.parents_added, report.versions_added) == (0, 1)
    whole = parent_of(client, "doom-2")
    assert (whole.info.run_id, whole.info.status, whole.data.metrics["Agent/score"]) == (parent.info.run_id, "FINISHED", 8.0)

    before = aliases_of(client)
    make_scores(project, "doom-2-game", "doom-2", "none", 8.5)
    write_lock(project, agents=more)
    assert sync(project).versions_added == 1
    after = aliases_of(client)
    assert after["doom-2-game"] == after["candidate"] > before["candidate"]
    assert after["doom-2"] == before["doom-2"]
    assert parent_of(client, "doom-2").data.metrics["Agent/score"] == 8.5


def test_an_agent_that_joins_a_study_loses_its_alias(synced):
    client = client_of(synced)
    make_scores(synced, "doom-2-game", "doom-2", "ablation", 8.0)
    write_lock(synced, agents={**AGENTS, "doom-2-game": ("doom-2", "doom-2", "ablation")})
    sync(synced)
    assert aliases_of(client).keys() == {"doom-1", "doom-2", "candidate"}
    assert aliases_of(client)["candidate"] == aliases_of(client)["doom-2"]


def test_a_score_of_another_agent_than_the_one_in_the_lock_makes_no_version(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["controller@doom-1"]["outs"][0]["md5"] = "0" * 32 + ".dir"  # C was searched again, and not evaluated yet
    (project / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    assert sync(project).versions_added == 0  # all others go on from this one
    client = client_of(project)
    parent = parent_of(client, "doom-1")
    assert (parent.info.status, parent.data.metrics) == ("SCHEDULED", {})


def test_a_new_film_replaces_the_old_one(synced):
    client = client_of(synced)
    make_film(AgentFiles("doom-2", synced), 200)
    write_lock(synced)
    assert sync(synced, registry=False).runs_added == 1
    shown = mlflow.artifacts.download_artifacts(f"{parent_of(client, 'doom-2').info.artifact_uri}/pictures/doom-2/agent.mp4")
    with open(shown, "rb") as file:
        assert file.read() == b"film 200"


def test_a_sync_of_fifty_stages_that_are_there_takes_seconds(project):
    keys = [f"doom-{number}" for number in range(1, 8)]
    world_models = {key: f"doom-{number}" for number, key in enumerate(keys)}
    for number, key in enumerate(keys[2:], 3):
        make_world_model(project, key, number)
        make_agent_files(project, key, key, "none", 10.0 + number)
    agents = {key: (key, after, "none") for key, after in world_models.items()}
    write_lock(project, world_models=world_models, agents=agents)
    report = sync(project, registry=False)
    assert (report.entries, report.runs_added) == (57, 57)
    began = time.process_time()  # what other processes do at the same time does not count
    assert sync(project, registry=False).runs_added == 0
    assert time.process_time() - began < 10


def test_an_unfinished_iteration_is_mirrored_open_and_closed_later(project):
    late = [f"{stage}@{key}" for stage in OF_AGENTS for key, (model, *_) in AGENTS.items() if model == "doom-2"]
    write_lock(project, without=("calibrate@doom-2", *late))
    assert sync(project, registry=False).runs_added == ENTRIES - 10
    client = client_of(project)
    (parent,) = runs(client, kind="iteration", key="doom-2")
    assert (parent.info.status, parent.data.tags["wm.open"]) == ("SCHEDULED", "true")
    with stage_run("controller", "doom-2", "doom", {}, world_model="doom-2"):
        lab.until(lambda: client.get_run(parent.info.run_id).info.status == "RUNNING", "the iteration to be opened")
    write_lock(project)
    assert sync(project, registry=False).runs_added == 10
    (closed,) = runs(client, kind="iteration", key="doom-2")
    assert (closed.info.run_id, closed.info.status) == (parent.info.run_id, "FINISHED")


def test_artifacts_that_are_not_those_of_the_lock_are_left_out_and_come_after_a_checkout(project, tmp_path):
    shutil.move(project / "artifacts/world_models/doom-1", tmp_path / "away")
    score = (project / "metrics/doom-2.json").read_text()
    (project / "metrics/doom-2.json").write_text("{}")
    report = sync(project)
    assert (report.runs_added, report.parents_added, report.versions_added) == (ENTRIES, 2, 3)
    notes = "\n".join(report.notes)
    assert "artifacts/world_models/doom-1/vision.csv is not on disk" in notes
    assert "metrics/doom-2.json is not the one of dvc.lock" in notes
    assert "dvc checkout" in str(report)
    client = client_of(project)
    assert all(not run.data.metrics for stage in OF_WORLD_MODELS for run in runs(client, stage=stage, key="doom-1"))
    shutil.move(tmp_path / "away", project / "artifacts/world_models/doom-1")
    (project / "metrics/doom-2.json").write_text(score)
    after = sync(project)
    assert (after.runs_added, after.versions_added) == (0, 1)
    (vision,) = runs(client, stage="vision", key="doom-1")
    assert vision.data.metrics == {"V/loss": 7.0, "V/kl": 1.0}


def test_a_deleted_run_comes_back(synced):
    client = client_of(synced)
    (vision,) = runs(client, stage="vision", key="doom-1")
    client.delete_run(vision.info.run_id)
    assert sync(synced, registry=False).runs_added == 1
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    assert len(client.search_runs([experiment], "tags.`wm.stage` = 'vision'", run_view_type=ViewType.ACTIVE_ONLY)) == 2


def test_a_deleted_experiment_is_restored_and_said(synced, capsys):
    client = client_of(synced)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    report = sync(synced, registry=False)
    assert report.runs_added == 0
    assert "it is restored" in capsys.readouterr().err
    assert len(runs(client, kind="stage")) == ENTRIES


def test_versions_whose_files_are_gone_are_registered_again(synced):
    client = client_of(synced)
    before = aliases_of(client)
    shutil.rmtree(synced / "mlartifacts/1/models", ignore_errors=True)
    for place in (synced / "mlartifacts").rglob("returns.parquet"):
        place.unlink()
    report = sync(synced)
    assert report.versions_added == 4
    assert any("files of worldmodels-doom/1 (doom-1) are gone: it is registered again as version" in n for n in report.notes)
    after = aliases_of(client)
    assert after.keys() == before.keys()
    assert min(after.values()) > max(before.values())
    assert mlflow.pyfunc.load_model("models:/worldmodels-doom@candidate")
    assert sync(synced).versions_added == 0
    client.set_registered_model_alias("worldmodels-doom", "champion", "1")
    (note,) = sync(synced).notes
    assert "worldmodels-doom/1, the champion, are gone: `wm registry rollback doom`" in note
    assert f"warning: {note}" in list_text(rows := list_versions(synced, "doom"))
    assert {row["version"]: row["lost"] for row in rows if row["lost"]} == {"1": note}
    assert note == ": ".join(check_store(synced)[2:]).partition("; ")[2]
    client.set_registered_model_alias("worldmodels-doom", "champion", "5")
    assert check_store(synced).status == "ok"
    assert not any(row["lost"] for row in list_versions(synced, None))


def test_links_into_a_cache_are_logged_as_the_files_behind_them(project, tmp_path):
    for path in [path for path in (project / "artifacts").rglob("*") if path.is_file()]:
        hidden = tmp_path / "cache" / artifact_hash(path)
        hidden.parent.mkdir(exist_ok=True)
        shutil.move(path, hidden)
        path.symlink_to(hidden)
    report = sync(project)
    assert (report.runs_added, report.versions_added, report.notes) == (ENTRIES, 4, [])
    shutil.rmtree(tmp_path / "cache")
    logged = [path for path in (project / "mlartifacts").rglob("*") if path.is_file()]
    assert {path.name for path in logged} > {"returns.parquet", "agent.json", *FILM}
    assert not [path for path in logged if path.is_symlink()]


def test_a_copied_project_takes_its_store_along_and_versions_and_aliases_stay(mirrored, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = mirror(client_of(mirrored))
    moved = shutil.copytree(mirrored, tmp_path / "elsewhere ä")
    monkeypatch.chdir(moved)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow sets it for its process
    report = sync(moved)
    assert "was moved" in capsys.readouterr().err
    assert (report.runs_added, report.parents_added, report.versions_added) == (0, 0, 0)
    assert mirror(client_of(moved)) == before
    assert "was moved" not in capsys.readouterr().err  # once is enough
    with sqlite3.connect(moved / "mlflow.db") as store:
        addresses = [line for line in store.iterdump() if "mlartifacts" in line and "mlflow.log-model" not in line]
    assert not [line for line in addresses if str(mirrored.resolve()) in line]
    files = mlflow.artifacts.download_artifacts("models:/worldmodels-doom@candidate/artifacts")
    assert Path(files).is_relative_to(moved)


def test_a_database_that_several_projects_share_keeps_its_files_where_they_are(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    sync(project, registry=False)
    other = shutil.copytree(project, tmp_path / "other")
    place = client_of(project).get_experiment_by_name(EXPERIMENT).artifact_location
    monkeypatch.chdir(other)
    sync(other, registry=False)
    assert client_of(other).get_experiment_by_name(EXPERIMENT).artifact_location == place


def test_a_damaged_database_is_one_message_with_the_whole_reason_and_a_way_out(project):
    (project / "mlflow.db").write_bytes(b"no database " * 500)
    with pytest.raises(StoreError, match="not a database") as caught:
        sync(project)
    assert "move it away" in str(caught.value)
    assert "server" not in str(caught.value)


BROKEN = {
    "no outs": b"stages:\n  vision@doom-1: {cmd: x}\n",
    "no stages": b"schema: '2.0'\n",
    "a list": b"[1, 2]",
    "a text": b"stages: hello",
    "not YAML": b"stages: {a",
    "not UTF-8": b"stages: \xff\xfe",
    "nested too deeply": b"stages: " + b"[" * 5000,
    "a key twice": b"stages: {a: 1, a: 2}",
    "a hash that is a number": b"stages: {vision@a: {outs: [{path: artifacts/world_models/a/vision.safetensors, md5: 1}]}}",
    "a key that leads out": b"stages: {vision@../a: {outs: []}}",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_lock_says_what_to_do(project, content):
    (project / "dvc.lock").write_bytes(content)
    with pytest.raises(ArtifactError, match="git checkout"):
        sync(project)


def test_a_lock_that_is_missing_or_a_folder_says_what_to_do(project):
    (project / "dvc.lock").unlink()
    with pytest.raises(ArtifactError, match="make repro"):
        sync(project)
    (project / "dvc.lock").mkdir()
    with pytest.raises(ArtifactError, match=r"damaged.*directory"):
        sync(project)


def test_the_lock_tells_the_order_of_world_models_and_agents(project):
    known = DvcLock(read_lock(project / "dvc.lock"))
    assert known.world_models() == ["doom-1", "doom-2"]
    assert known.agents("doom-2") == ["doom-2-flat", "doom-2", "doom-2-game"]  # by the agent at which each begins
    assert known.world_model("doom-2-flat") == "doom-2"


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


def test_the_registered_agent_acts_elsewhere_without_the_project_and_without_pickle(synced, tmp_path):
    project = synced
    shutil.rmtree(project / "artifacts")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTHONPATH"))}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_SCHEMA_DETAILS": "true"}
    command = [sys.executable, "-c", ACT, f"sqlite:///{project}/mlflow.db"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False, timeout=600)
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
    out = "{path: artifacts/world_models/doom-1/vision.safetensors, md5: '12345678901234567890123456789e12'}"
    text = f"stages: {{vision@doom-1: {{outs: [{out}], params: {{params.yaml: {{doom.vision.rate: 2e-05}}}}}}}}"
    (entry,) = parse_lock(text)
    assert entry.params == {"doom.vision.rate": 0.00002}
    assert list(entry.outs.values()) == ["12345678901234567890123456789e12"]
