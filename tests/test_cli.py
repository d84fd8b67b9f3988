"""``wm``: exit codes, messages that help, output that machines can read, on real games and a small untrained agent."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.cli import doctor
from worldmodels.cli import show as cli_project
from worldmodels.cli.main import app
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.storage.agents import AgentCard
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import Starts

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT = 25


def wm(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


DOOM = {"kind": "vizdoom", "skill": 4, "limit": LIMIT, "resolution": "160x120"}


def make_agent(folder: Path, game: dict[str, Any] = DOOM, action: int = 1) -> None:
    """Write a small untrained agent, of Take Cover, whose real episodes last ``LIMIT`` steps at most."""
    torch.manual_seed(0)
    vision = Vision(VisionConfig(latent=4))
    memory = LSTMConfig(hidden=8).build(latent=4, action=action)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    parameters = torch.randn(parameter_count(shape, 4 + 2 * 8, action))
    card = AgentCard(kind="world-model", environment=game["kind"], game=game, controller=shape.model_dump())
    starts = Starts(torch.randn(3, 4), torch.zeros(3, 4))
    save_agent(folder, Agent(card, vision, memory, parameters, starts))


def summary(mean: float, n: int) -> dict[str, Any]:
    std = abs(mean) / 2
    return {"mean": mean, "std": std, "stderr": std / n**0.5, "n": n, "min": 0.0, "max": 2 * mean, "mean_length": mean,
            "seeds": [0, n - 1]}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with params, presets, one finished iteration, and the current folder in it."""
    quick = (REPOSITORY / "presets" / "quick.yaml").read_text()
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.yaml").write_text(quick)
    (tmp_path / "presets" / "laptop.yaml").write_text(quick.replace("preset: quick", "preset: laptop", 1))
    (tmp_path / "params.yaml").write_text(quick)
    folder = tmp_path / "artifacts" / "doom-1"
    make_agent(folder / "agent")
    score = {"key": "doom-1", "environment": "doom", "iteration": 1, "preset": "quick",
             "rules": "takecover-skill4-limit2100", "backend": "vizdoom-1.3.2", "temperature": 1.3,
             "real": summary(500, 20), "dream": summary(900, 30), "baseline": summary(210, 20),
             "blind": None, "gap": 400.0}  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(score))
    (folder / "vision.safetensors").write_bytes(b"weights")
    out = {"path": "artifacts/doom-1/vision.safetensors", "hash": "md5", "md5": "0123456789abcdef", "size": 7}
    lock = {"schema": "2.0", "stages": {"vision@doom-1": {"cmd": "python", "outs": [out]}}}
    (tmp_path / "dvc.lock").write_text(json.dumps(lock))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestStart:
    def test_help_loads_nothing_heavy(self) -> None:
        code = (
            "import sys; from worldmodels.cli.main import main; sys.argv = ['wm', '--help']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "heavy = {'torch', 'mlflow', 'matplotlib', 'pandas', 'numpy', 'pydantic', 'yaml', 'rich', 'dvc'}\n"
            "loaded = sorted(heavy & set(sys.modules))\n"
            "assert not loaded, loaded"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for command in ("evaluate", "dream", "show", "preset", "check", "doctor", "track"):
            assert f"\n  {command} " in done.stdout

    @pytest.mark.parametrize("command", ["evaluate", "dream", "show", "preset", "check", "doctor", "track sync", "track ui"])
    def test_every_command_explains_itself(self, command: str) -> None:
        result = wm(*command.split(), "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout
        assert len(result.stdout.split("Options:")[0].splitlines()) >= 3

    def test_a_command_that_does_not_exist_suggests_one_that_does(self) -> None:
        result = wm("evalute")
        assert result.exit_code == 2
        assert "Did you mean 'evaluate'" in result.stderr

    def test_exit_codes_of_the_real_process_and_no_traceback(self, project: Path) -> None:
        for arguments, code in ((["show"], 0), (["evaluate", "doom-2"], 1), (["evaluate", "dom-1"], 2)):
            command = [sys.executable, "-m", "worldmodels.cli.main", *arguments]
            env = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            assert bool(done.stderr) == bool(code)
            assert bool(done.stdout) != bool(code)

    def test_debug_shows_the_traceback(self, project: Path) -> None:
        assert wm("--debug", "evaluate", "nothing").exception.__class__.__name__ == "ParamsError"
        assert wm("evaluate", "nothing", env={"WM_DEBUG": "1"}).exception.__class__.__name__ == "ParamsError"


class TestFindingAgents:
    def test_an_unknown_key_names_near_ones(self, project: Path) -> None:
        result = wm("evaluate", "dom-1")
        assert result.exit_code == 2
        assert "`doom-1`" in result.stderr

    def test_a_known_key_that_is_not_made_names_the_command(self, project: Path) -> None:
        result = wm("dream", "carracing-1")
        assert result.exit_code == 1
        assert "dvc repro controller@carracing-1" in result.stderr

    def test_the_random_policy_is_known_too(self, project: Path) -> None:
        result = wm("evaluate", "doom-0")
        assert result.exit_code == 1
        assert "dvc repro initialise@doom" in result.stderr

    def test_artifacts_that_the_chain_no_longer_names_are_suggested(self, project: Path) -> None:
        shutil.copytree("artifacts/doom-1", "artifacts/pong-7")
        assert "`pong-7`" in wm("evaluate", "pong-8").stderr

    def test_a_command_works_from_a_folder_below(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(project / "artifacts" / "doom-1")
        assert "doom-1" in wm("show").stdout

    def test_a_damaged_agent_is_one_message(self, project: Path) -> None:
        path = project / "artifacts/doom-1/agent/memory.safetensors"
        path.write_bytes(path.read_bytes()[:50])
        result = wm("evaluate", "doom-1")
        assert result.exit_code == 1
        assert "memory.safetensors is damaged" in result.stderr


class TestEvaluate:
    def test_json_is_all_that_stands_on_stdout_and_agrees_with_itself(self, project: Path) -> None:
        result = wm("evaluate", "doom-1", "--episodes", "3", "--json")
        assert result.exit_code == 0, result.stderr
        found = json.loads(result.stdout)
        assert found["rules"] == f"takecover-skill4-limit{LIMIT}"
        assert found["backend"].startswith("vizdoom")
        assert found["temperature"] is None
        assert found["summary"]["n"] == len(found["returns"]) == 3
        assert found["summary"]["mean"] == pytest.approx(np.mean(found["returns"]))
        assert found["summary"]["seeds"] == [0, 2]

    def test_a_folder_and_a_key_are_the_same_agent_and_seed_moves_the_episodes(self, project: Path) -> None:
        def returns(agent: str, episodes: int, seed: int) -> list[float]:
            arguments = ["--world", "dream", "--episodes", str(episodes), "--seed", str(seed), "--json"]
            found: list[float] = json.loads(wm("evaluate", agent, *arguments).stdout)["returns"]
            return found

        all_four = returns("doom-1", 4, 0)
        assert returns("artifacts/doom-1/agent", 4, 0) == all_four
        assert returns("doom-1", 2, 2) == all_four[2:]

    def test_the_back_end_that_trains_plays_when_it_is_asked_for(self, project: Path) -> None:
        make_agent(project / "driver", {"kind": "carracing", "backend": "envpool", "limit": LIMIT}, action=3)
        found = {
            world: json.loads(wm("evaluate", "driver", "--episodes", "2", "--world", world, "--json").stdout)
            for world in ("real", "training")
        }
        assert found["real"]["backend"].startswith("gymnasium")
        assert found["training"]["backend"].startswith("envpool")
        assert found["real"]["returns"] != found["training"]["returns"]
        assert found["real"]["summary"]["mean_length"] == found["training"]["summary"]["mean_length"] == LIMIT

    def test_a_dream_takes_the_temperature_that_the_agent_was_evaluated_at(self, project: Path) -> None:
        arguments = ("evaluate", "doom-1", "--world", "dream", "--episodes", "2", "--json")
        found = json.loads(wm(*arguments).stdout)
        assert (found["temperature"], found["backend"]) == (1.3, "dream")
        assert json.loads(wm(*arguments, "--temperature", "0.5").stdout)["temperature"] == 0.5

    def test_a_dream_is_over_at_the_goal_of_the_agent_s_game(self, project: Path) -> None:
        agent = load_agent(project / "artifacts/doom-1/agent")
        agent.memory.head.bias.data[-1] = -9.0  # it foresees no end
        save_agent(project / "artifacts/doom-1/agent", agent)
        arguments = ("evaluate", "doom-1", "--world", "dream", "--episodes", "8", "--json")
        free = json.loads(wm(*arguments).stdout)["returns"]
        card = agent.card.model_copy(update={"game": agent.card.game | {"goal": 2.0}})
        save_agent(project / "artifacts/doom-1/agent", replace(agent, card=card))
        assert json.loads(wm(*arguments).stdout)["returns"] == [min(each, 2.0) for each in free]
        assert max(free) > 2

    def test_the_text_names_error_and_rules_and_the_video_is_the_first_episode(self, project: Path) -> None:
        result = wm("evaluate", "artifacts/doom-1", "--episodes", "2", "--video", "films/a.mp4")
        assert result.exit_code == 0, result.stderr
        for part in ("±", "2 episodes", "std", "takecover-skill4", "vizdoom-"):
            assert part in result.stdout
        with av.open("films/a.mp4") as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert f"the first episode, return {len(frames) - 1})" in result.stdout  # Take Cover pays 1 a step
        assert frames[0].std() > 5

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--episodes", "0"], "greater than or equal to 1"),
            (["--world", "moon"], "one of 'real', 'dream'"),
            (["--world", "dream", "--temperature", "99"], "10"),
            (["--temperature", "1.0"], "--world dream"),
            (["--video", "a.webm"], ".mp4 or .gif"),
        ],
    )
    def test_a_bad_value_names_what_is_allowed(self, project: Path, arguments: list[str], message: str) -> None:
        result = wm("evaluate", "doom-1", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_a_model_that_mlflow_does_not_have_names_the_command(self, project: Path) -> None:
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
        result = wm("evaluate", "models:/worldmodels-doom@candidate", env=store)
        assert result.exit_code == 1
        assert "wm track sync" in result.stderr


class TestDream:
    def test_a_filmstrip_is_the_same_twice_and_differs_by_seed(self, project: Path) -> None:
        for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
            result = wm("dream", "doom-1", "--steps", "20", "--seed", seed, "--out", f"{name}.png")
            assert result.exit_code == 0, result.stderr
        a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
        assert a == b != c
        assert np.asarray(Image.open("a.png")).std() > 5

    def test_a_film_has_a_frame_a_step_and_says_how_it_went(self, project: Path) -> None:
        result = wm("dream", "doom-1", "--steps", "7", "--temperature", "0.9", "--out", "dream.gif")
        assert result.exit_code == 0, result.stderr
        steps = int(result.stdout.split(" dreamt ")[1].split()[0])
        assert getattr(Image.open("dream.gif"), "n_frames", 1) == steps + 1 <= 8
        assert "temperature 0.9" in result.stdout

    def test_another_suffix_is_refused(self, project: Path) -> None:
        result = wm("dream", "doom-1", "--out", "dream.txt")
        assert result.exit_code == 2
        assert ".png, .mp4 or .gif" in result.stderr


class TestExportWeights:
    def test_half_the_size_the_same_agent_but_for_the_rounding(self, project: Path) -> None:
        result = wm("export", "weights", "doom-1", "small/doom")
        assert result.exit_code == 0, result.output
        whole, half = load_agent(project / "artifacts" / "doom-1" / "agent"), load_agent(project / "small" / "doom")
        size = sum(path.stat().st_size for path in (project / "small" / "doom").glob("vision*"))
        assert size < 0.51 * (project / "artifacts" / "doom-1" / "agent" / "vision.safetensors").stat().st_size
        assert half.card == whole.card
        for model, other in ((whole.vision, half.vision), (whole.memory, half.memory)):
            weights = other.state_dict()
            for name, tensor in model.state_dict().items():
                assert torch.equal(weights[name], tensor.half().float()), name
        assert torch.equal(half.parameters, whole.parameters.half().float())
        played = wm("evaluate", "small/doom", "--episodes", "2", "--json")
        assert json.loads(played.stdout)["summary"]["n"] == 2

    def test_the_trained_agent_of_the_repository_is_one_and_plays_better_than_chance(self) -> None:
        agent = Path(__file__).parent.parent / "pretrained" / "doom"
        found = json.loads(wm("evaluate", str(agent), "--episodes", "4", "--json").stdout)
        assert len(found["returns"]) == 4
        assert sum(found["returns"]) > 4 * 213  # random play: 213

    def test_of_damaged_weights_nothing_is_written(self, project: Path) -> None:
        path = project / "artifacts" / "doom-1" / "agent" / "memory.safetensors"
        path.write_bytes(path.read_bytes()[:-3])
        result = wm("export", "weights", "doom-1", "small")
        assert result.exit_code == 1
        assert "memory.safetensors" in result.output
        assert not (project / "small").exists()


class TestShow:
    def test_it_shows_scores_hashes_and_what_is_missing(self, project: Path) -> None:
        text = wm("show").stdout
        assert "500 ± 56" in text
        assert "0123456" in text
        assert "dvc repro collect@doom-1" in text
        assert "Where to look" not in text

    def test_next_steps_name_commands_for_what_is_there(self, project: Path) -> None:
        text = wm("show", "--next-steps").stdout
        assert "wm evaluate doom-1" in text
        assert "make ui" in text
        assert "dvc repro report" in text
        Path("reports").mkdir()
        Path("reports/index.html").touch()
        assert "  reports/index.html" in wm("show", "--next-steps").stdout

    def test_json_tells_made_from_missing(self, project: Path) -> None:
        found = json.loads(wm("show", "--json").stdout)
        first = next(entry for entry in found["iterations"] if entry["key"] == "doom-1")
        assert first["scores"]["real"]["mean"] == 500
        assert first["stages"]["vision"] == {
            "made": True,
            "path": "artifacts/doom-1/vision.safetensors",
            "md5": "0123456789abcdef",
            "made_by": "dvc repro vision@doom-1",
        }
        assert not first["stages"]["memory"]["made"]
        assert "dvc repro evaluate@doom-1" not in found["missing"]
        assert "dvc repro memory@doom-1" in found["missing"]

    def test_an_empty_folder_is_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        result = wm("show", "--next-steps")
        assert result.exit_code == 0
        assert "make repro" in result.stdout

    def test_a_broken_lock_is_one_message(self, project: Path) -> None:
        Path("dvc.lock").write_text("<<<<<<< HEAD\n: [")
        result = wm("show")
        assert result.exit_code == 1
        assert "dvc.lock cannot be read" in result.stderr


class TestParams:
    def test_check_accepts_what_presets_hold(self, project: Path) -> None:
        for name in ("laptop", "quick"):
            assert wm("preset", name).exit_code == 0
            result = wm("check")
            assert result.exit_code == 0, result.stderr
            assert f"preset {name}, chain doom-1" in result.stdout

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("skill: 4", "skil: 4", "skil"),
            ("skill: 4", "skill: 9", "less than or equal to 5"),
            ("after: doom-1", "after: doom-2", "chain.doom-2"),
            ("after: doom-1", "after: doom-7", "doom-7"),
        ],
    )
    def test_check_refuses_a_bad_file_with_exit_code_2(self, project: Path, old: str, new: str, message: str) -> None:
        text = Path("params.yaml").read_text()
        assert old in text
        Path("params.yaml").write_text(text.replace(old, new, 1))
        result = wm("check")
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""

    def test_a_preset_replaces_another_preset(self, project: Path) -> None:
        result = wm("preset", "laptop")
        assert result.exit_code == 0, result.stderr
        assert Path("params.yaml").read_bytes() == Path("presets/laptop.yaml").read_bytes()

    def test_a_preset_does_not_overwrite_edits_unless_forced(self, project: Path) -> None:
        edited = Path("params.yaml").read_text().replace("seed: 0", "seed: 7", 1)
        Path("params.yaml").write_text(edited)
        result = wm("preset", "laptop")
        assert result.exit_code == 2
        assert "(seed)" in result.stderr
        assert "--force" in result.stderr
        assert Path("params.yaml").read_text() == edited
        assert wm("preset", "laptop", "--force").exit_code == 0
        assert Path("params.yaml").read_bytes() == Path("presets/laptop.yaml").read_bytes()

    def test_an_unknown_preset_names_near_ones(self, project: Path) -> None:
        result = wm("preset", "quik")
        assert result.exit_code == 2
        assert "`quick`" in result.stderr


class TestDoctor:
    @pytest.mark.parametrize("game", [{"kind": "vizdoom"}, {"kind": "carracing", "backend": "gymnasium"}])
    def test_rendering_is_tried_with_the_real_game(self, game: dict[str, str]) -> None:
        (verdict,) = doctor.check_rendering("game", game)
        assert verdict.status == "ok", verdict
        assert "steps/s" in verdict.detail

    def test_an_engine_that_fails_is_a_failure_with_its_reason(self) -> None:
        (verdict,) = doctor.check_rendering("game", {"kind": "vizdoom", "skill": "nine"})
        assert verdict.status == "fail"
        assert verdict.advice
        assert verdict.detail

    def test_a_missing_package_is_named_and_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "no-such-package-here"))
        first = next(iter(doctor.check_packages()))
        assert first.status == "fail"
        assert "no-such-package-here" in first.detail
        assert "numpy" not in first.detail

    def test_exit_code_is_1_where_something_required_fails(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        good, bad = doctor.Verdict("a", "ok", "fine"), doctor.Verdict("b", "fail", "broken", "mend it")
        warning = doctor.Verdict("c", "warn", "so so")
        monkeypatch.setattr(doctor, "examine", lambda root: iter([good, warning]))
        assert wm("doctor").exit_code == 0
        monkeypatch.setattr(doctor, "examine", lambda root: iter([good, bad]))
        result = wm("doctor")
        assert result.exit_code == 1
        assert "mend it" in result.stdout
        assert [entry["status"] for entry in json.loads(wm("doctor", "--json").stdout)] == ["ok", "fail"]

    def test_bad_params_and_a_folder_without_a_pipeline_are_failures(self, project: Path) -> None:
        Path("params.yaml").write_text("preset: 3\n")
        assert [verdict.status for verdict in doctor.check_params(Path())] == ["fail"]
        assert [verdict.status for verdict in doctor.check_dvc(Path())] == ["fail"]

    def test_a_store_that_is_not_made_yet_is_well_and_is_left_unmade(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (verdict,) = doctor.check_store(project)
        assert verdict.status == "ok", verdict
        assert not Path("mlflow.db").exists()

    def test_a_store_that_is_no_database_is_a_warning_with_advice(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("mlflow.db").write_bytes(b"not a database" * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
        (verdict,) = doctor.check_store(project)
        assert verdict.status == "warn"
        assert "wm track sync" in verdict.advice


class TestTrack:
    def test_the_pages_of_a_server_are_not_served_again(self, project: Path) -> None:
        result = wm("track", "ui", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
        assert result.exit_code == 2
        assert "open http://127.0.0.1:9" in result.stderr

    def test_sync_without_a_lock_names_the_command(self, project: Path) -> None:
        Path("dvc.lock").unlink()
        result = wm("track", "sync")
        assert result.exit_code == 1
        assert "make repro" in result.stderr


def test_the_root_is_found_from_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli_project.find_root() == Path()
    monkeypatch.chdir(project / "artifacts" / "doom-1")
    assert cli_project.find_root() == Path("../..")
