"""``wm``: exit codes, messages that help, output that machines can read, on real games and a small untrained agent."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from dvc.utils.serialize import load_yaml as dvc_yaml
from lab import answers, commit, make_project
from PIL import Image
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.cli import doctor, folder
from worldmodels.cli.main import app
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.params import load_yaml
from worldmodels.play.export import RUNTIME_FILES
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.layout import primary_out
from worldmodels.tracking.experiments import Experiment, Result
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import Starts

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = (REPOSITORY / "presets" / "quick.yaml").read_text()
LIMIT = 25


def wm(*arguments: str, env: dict[str, str] | None = None) -> Outcome:
    return CliRunner().invoke(app, list(arguments), env=env)


SMALL = LSTMConfig(hidden=8)
DOOM = {"kind": "vizdoom", "skill": 4, "limit": LIMIT, "resolution": "160x120"}


def make_agent(folder: Path, game: dict[str, Any] = DOOM, action: int = 1, memory: LSTMConfig = SMALL) -> None:
    """Write a small untrained agent, of Take Cover, whose real episodes last ``LIMIT`` steps at most."""
    torch.manual_seed(0)
    vision = Vision(VisionConfig(latent=4))
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    parameters = torch.randn(parameter_count(shape, 4 + 2 * 8, action))
    card = AgentCard(kind="world-model", environment=game["kind"], game=game, controller=shape.model_dump())
    starts = Starts(torch.randn(3, 4), torch.zeros(3, 4))
    save_agent(folder, Agent(card, vision, memory.build(latent=4, action=action), parameters, starts))


def summary(mean: float, n: int) -> dict[str, Any]:
    std = abs(mean) / 2
    return {"mean": mean, "std": std, "stderr": std / n**0.5, "n": n, "min": 0.0, "max": 2 * mean, "mean_length": mean,
            "seeds": [0, n - 1]}  # fmt: skip


def scores_of(key: str, mean: float, *, study: str = "none", temperature: float = 1.3) -> dict[str, Any]:
    """Return what ``evaluate`` writes of an agent of Take Cover."""
    dream = {"temperature": temperature, **summary(900, 30)}
    about = {"key": key, "environment": "doom", "world_model": "doom-1", "controller": "dream", "study": study}
    about |= {
        "preset": "quick",
        "rules": "takecover-skill4-limit2100",
        "backend": "vizdoom-1.3.2",
        "block": "test",
        "selection": None,
    }
    numbers = {"seed": 0, "controller_seed": 0, "parameters": 13, "steps": {"dream": 1000, "game": 0}, "gap": 900 - mean}
    return about | numbers | {"real": summary(mean, 20), "dream": dream, "random": summary(210, 20), "blind": None}


def write_scores(root: Path, key: str, mean: float, **about: Any) -> Path:
    path = root / "metrics" / f"{key}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(scores_of(key, mean, **about)))
    return path


def write_lock(root: Path, **outs: str) -> None:
    """Write a dvc.lock in which stages such as ``vision@doom-1`` made their first output, with these hashes."""
    stages = {}
    for stage, md5 in outs.items():
        path = primary_out(*stage.split("@")).as_posix()
        stages[stage] = {"cmd": "python", "outs": [{"path": path, "hash": "md5", "md5": md5, "size": 7}]}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


def commit_all() -> None:
    """Make the current folder a git repository with one commit."""
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command], check=True)


def python(code: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run code, or a module (``-m``), in a process of its own."""
    options = ["-m", code, *arguments] if arguments else ["-c", code]
    path = {"PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run([sys.executable, *options], capture_output=True, text=True, check=False, env=os.environ | path | env)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with params, presets, a finished agent, and the current folder in it."""
    shutil.copytree(REPOSITORY / "presets", tmp_path / "presets")
    shutil.copy(REPOSITORY / "presets" / "quick.yaml", tmp_path / "params.yaml")
    make_agent(tmp_path / "artifacts/agents/doom-1/agent")
    write_scores(tmp_path, "doom-1", 500)
    model = tmp_path / "artifacts/world_models/doom-1"
    model.mkdir(parents=True)
    (model / "vision.safetensors").write_bytes(b"weights")
    write_lock(tmp_path, **{"vision@doom-1": "0123456789abcdef"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestStart:
    def test_help_loads_nothing_heavy(self) -> None:
        code = (
            "import sys; from worldmodels.cli.main import main; sys.argv = ['wm', '--help']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            "heavy = {'torch', 'mlflow', 'matplotlib', 'pandas', 'numpy', 'pydantic', 'yaml', 'ruamel', 'rich', 'dvc'}\n"
            "loaded = sorted(heavy & set(sys.modules))\n"
            "assert not loaded, loaded"
        )
        done = python(code)
        assert done.returncode == 0, done.stderr
        for command in ("evaluate", "dream", "show", "preset", "check", "doctor", "track"):
            assert f"\n  {command} " in done.stdout

    @pytest.mark.parametrize(
        "command",
        ["evaluate", "dream", "play", "export web", "export weights", "show", "doctor", "ledger add", "ledger write", "preset",
         "check", "replicate", "sweep", "track sync", "track ui", "registry list", "registry compare", "registry promote",
         "registry rollback", "registry history"],
    )  # fmt: skip
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
            done = python("worldmodels.cli.main", *arguments)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            assert bool(done.stderr) == bool(code)
            assert bool(done.stdout) != bool(code)

    def test_a_reader_that_goes_is_no_failure(self, project: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "worldmodels.cli.main", "show"]
        env = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=env)
        os.close(write)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(
        ("typed", "offered"),
        [
            ("wm eval", ["evaluate"]),
            ("wm evaluate doom-", ["doom-1", "doom-2", "doom-9"]),
            ("wm preset lap", ["laptop"]),
            ("wm preset laptop --study ab", ["ablation"]),
        ],
    )
    def test_a_shell_completes_commands_agents_presets_and_studies(self, project: Path, typed: str, offered: list[str]) -> None:
        make_agent(project / "artifacts/agents/doom-9/agent")  # made, and not in params.yaml any more
        write_card(project / "artifacts/agents/doom-0/agent", AgentCard(kind="random", environment="doom", game=DOOM))
        words = {"_WM_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        code = "import sys; from worldmodels.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
        done = python(code, **words)
        assert done.stdout.split() == offered, done.stderr

    def test_completion_is_silent_if_params_are_broken(self, project: Path) -> None:
        Path("params.yaml").write_text("a: [")
        words = {"_WM_COMPLETE": "complete_bash", "COMP_WORDS": "wm evaluate d", "COMP_CWORD": "2"}
        result = CliRunner().invoke(app, [], prog_name="wm", env=words)
        assert result.output.strip() == ""

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
        write_card(project / "artifacts/agents/doom-0/agent", AgentCard(kind="random", environment="doom", game=DOOM))
        for command in (["evaluate", "doom-0"], ["dream", "doom-0"], ["export", "weights", "doom-0", "small"]):
            result = wm(*command)
            assert result.exit_code == 2
            assert "is the random policy" in result.stderr
        assert not Path("small").exists()

    @pytest.mark.parametrize("key", ["doom-2", "carracing-1-game"])
    def test_every_agent_of_params_is_known_by_its_key(self, project: Path, key: str) -> None:
        assert f"dvc repro controller@{key}" in wm("evaluate", key).stderr
        shutil.copytree("artifacts/agents/doom-1", f"artifacts/agents/{key}")
        assert wm("evaluate", key, "--world", "dream", "--episodes", "1").exit_code == 0

    def test_agents_that_params_name_no_more_are_known(self, project: Path) -> None:
        shutil.copytree("artifacts/agents/doom-1", "artifacts/agents/pong-7")
        assert "`pong-7`" in wm("evaluate", "pong-8").stderr
        assert wm("evaluate", "pong-7", "--world", "dream", "--episodes", "1").exit_code == 0

    def test_a_command_works_from_a_folder_below(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(project / "artifacts")
        assert "doom-1" in wm("show").stdout

    def test_a_damaged_agent_is_one_message(self, project: Path) -> None:
        path = project / "artifacts/agents/doom-1/agent/memory.safetensors"
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
        assert returns("artifacts/agents/doom-1/agent", 4, 0) == all_four
        assert returns("doom-1", 2, 2) == all_four[2:]

    def test_a_dream_takes_the_temperature_that_the_agent_was_evaluated_at(self, project: Path) -> None:
        arguments = ("evaluate", "doom-1", "--world", "dream", "--episodes", "2", "--json")
        found = json.loads(wm(*arguments).stdout)
        assert (found["temperature"], found["backend"]) == (1.3, "dream")
        assert json.loads(wm(*arguments, "--temperature", "0.5").stdout)["temperature"] == 0.5
        (project / "metrics/doom-1.json").unlink()
        assert json.loads(wm(*arguments).stdout)["temperature"] == 1
        (project / "metrics/doom-1.json").write_text("[" * 5000)
        result = wm(*arguments)
        assert result.exit_code == 1
        assert "metrics/doom-1.json is damaged" in result.stderr

    def test_a_dream_is_as_long_as_the_game_of_the_agents_card(self, project: Path) -> None:
        def length(*arguments: str) -> float:
            command = ("evaluate", "doom-1", "--world", "dream", "--episodes", "3", "--json", *arguments)
            return float(json.loads(wm(*command).stdout)["summary"]["mean_length"])

        agent = load_agent(project / "artifacts/agents/doom-1/agent")
        agent.memory.head.bias.data[-1] = -50.0  # it foresees no end
        save_agent(project / "artifacts/agents/doom-1/agent", agent)
        assert length() == LIMIT
        assert f" dreamt {LIMIT} steps " in wm("dream", "doom-1", "--out", "long.gif").stdout
        card = agent.card.model_copy(update={"game": {**DOOM, "limit": 7}})
        save_agent(project / "artifacts/agents/doom-1/agent", dataclasses.replace(agent, card=card))
        assert length() == 7
        assert " dreamt 7 steps " in wm("dream", "doom-1", "--out", "short.gif").stdout

    def test_a_dream_is_over_at_the_goal_of_the_agents_card(self, project: Path) -> None:
        def steps(goal: float) -> int:
            game = {"kind": "carracing", "limit": LIMIT, "goal": goal}
            make_agent(project / "driver", game, action=3, memory=LSTMConfig(hidden=8, reward="event", done=False))
            agent = load_agent(project / "driver")
            agent.memory.rewards[:] = torch.tensor([-0.1, 3.0, -100.0])  # a usual step, an event, an end
            save_agent(project / "driver", agent)
            return int(wm("dream", "driver", "--out", "dream.png").stdout.split(" dreamt ")[1].split()[0])

        assert steps(0.0) == LIMIT
        assert 1 <= steps(3.0) < LIMIT

    def test_the_text_names_error_and_rules_and_the_video_is_the_first_episode(self, project: Path) -> None:
        result = wm("evaluate", "artifacts/agents/doom-1", "--episodes", "2", "--video", "films/a.mp4")
        assert result.exit_code == 0, result.stderr
        for part in ("±", "2 episodes", "std", "takecover-skill4", "vizdoom-"):
            assert part in result.stdout
        with av.open("films/a.mp4") as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert f"(episode 0, return {len(frames) - 1})" in result.stdout  # Take Cover pays 1 a step
        assert frames[0].std() > 5

    def test_the_worst_episode_is_filmed_if_that_is_asked_for(self, project: Path) -> None:
        options = ("--world", "dream", "--episodes", "4", "--seed", "3", "--worst", "--video", "lost.mp4")
        told = wm("evaluate", "doom-1", *options).stdout
        returns = json.loads(wm("evaluate", "doom-1", *options[:-3], "--json").stdout)["returns"]
        worst = f"(episode {3 + returns.index(min(returns))}"
        assert told.split("lowest ")[1].split(",")[0].strip() == f"{min(returns):.0f} {worst})"
        assert f"lost.mp4 {worst}, return {min(returns):.0f})" in told

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--worst"], "add --video"),
            (["--episodes", "0"], "greater than or equal to 1"),
            (["--world", "moon"], "one of 'real', 'dream'"),
            (["--world", "training"], "one of 'real', 'dream'"),
            (["--world", "dream", "--temperature", "99"], "10"),
            (["--temperature", "1.0"], "--world dream"),
            (["--video", "a.webm"], ".mp4 or .gif"),
            (["--video", "folder.mp4"], "is a folder"),
            (["--video", "params.yaml/a.mp4"], "files cannot be written below"),
        ],
    )
    def test_a_bad_value_names_what_is_allowed(self, project: Path, arguments: list[str], message: str) -> None:
        Path("folder.mp4").mkdir()
        result = wm("evaluate", "doom-1", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_scores_are_printed_before_a_film_fails(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(path: Path, *_: Any, **__: Any) -> int:
            path.parent.mkdir()
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("worldmodels.report.video.write_video", fails)
        result = wm("evaluate", "doom-1", "--episodes", "1", "--json", "--video", "films/a.mp4")
        assert result.exit_code == 1
        assert "No space left" in result.stderr
        assert len(json.loads(result.stdout)["returns"]) == 1
        assert list(Path("films").iterdir()) == []

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


class TestExport:
    def test_half_the_size_the_same_agent_but_for_the_rounding(self, project: Path) -> None:
        result = wm("export", "weights", "doom-1", "small/doom")
        assert result.exit_code == 0, result.output
        whole, half = load_agent(project / "artifacts" / "agents" / "doom-1" / "agent"), load_agent(project / "small" / "doom")
        size = sum(path.stat().st_size for path in (project / "small" / "doom").glob("vision*"))
        assert size < 0.51 * (project / "artifacts" / "agents" / "doom-1" / "agent" / "vision.safetensors").stat().st_size
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

    def test_a_page_that_cannot_be_made_leaves_nothing(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = project / "runtime"
        runtime.mkdir()
        for file in RUNTIME_FILES:
            (runtime / file).touch()
        monkeypatch.setenv("WM_ONNXRUNTIME_WEB", str(runtime))
        monkeypatch.setitem(sys.modules, "onnx", None)
        result = wm("export", "web", "doom-1", "page")
        assert result.exit_code == 1
        assert "onnx is not installed" in result.stderr
        assert not Path("page").exists()

    def test_of_damaged_weights_nothing_is_written(self, project: Path) -> None:
        path = project / "artifacts" / "agents" / "doom-1" / "agent" / "memory.safetensors"
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

    def test_agents_of_studies_stand_in_the_same_table(self, project: Path) -> None:
        write_scores(project, "doom-2", 777)
        shutil.copytree("artifacts/agents/doom-1", "artifacts/agents/doom-cmaes")
        write_scores(project, "doom-cmaes", 444, study="learning")
        table = wm("show").stdout.split("\n\n")[0]
        for part in ("doom-1 ", "doom-2", "777 ± 87", "doom-cmaes", "learning"):
            assert part in table

    def test_the_next_steps_say_how_it_went_and_are_of_the_best_agents_that_are_in_no_study(self, project: Path) -> None:
        text = wm("show", "--next-steps").stdout
        assert "Take Cover: doom-1 gets 500 ± 56 a game: worse than the paper's agent (1,092 ± 56" in text
        assert "wm play doom-1 " in text
        assert "dvc repro report" in text
        assert "0123456" not in text  # hashes are for `wm show`
        write_scores(project, "doom-2", 777)
        shutil.copytree("artifacts/agents/doom-1", "artifacts/agents/zzz")
        write_scores(project, "zzz", 999, study="learning")
        Path("reports").mkdir()
        Path("reports/index.html").touch()
        text = wm("show", "--next-steps").stdout
        assert "wm play doom-2 " in text
        assert "open reports/index.html in a browser" in text

    @pytest.mark.parametrize("number", range(3))
    def test_the_commands_of_the_next_steps_work_as_printed(self, project: Path, number: int) -> None:
        """In a shell in which no virtual environment is active, as after `make repro`."""
        plain = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        plain |= {"PATH": "/usr/bin:/bin", "HOME": str(project), "PYTHONPATH": str(REPOSITORY / "src"), "BROWSER": "true"}
        lines = re.findall(r"^  (\S*wm .+)$", wm("show", "--next-steps", env={"VIRTUAL_ENV": ""}).stdout, flags=re.M)
        assert len(lines) == 3
        log = project / "log"
        with log.open("w") as out:
            own = {"stdout": out, "stderr": out, "env": plain, "start_new_session": True}
            process = subprocess.Popen(["/bin/sh", "-c", f"exec {lines[number]}"], **own)
        try:
            if " evaluate " in lines[number]:
                assert process.wait(300) == 0, log.read_text()
                assert Path("doom-1.mp4").stat().st_size
            else:  # a server: it says where, and answers
                deadline = time.monotonic() + 240
                while not (said := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) or not answers(said[0]):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(60)

    def test_json_tells_made_from_missing(self, project: Path) -> None:
        found = json.loads(wm("show", "--json").stdout)
        agent = next(entry for entry in found["agents"] if entry["key"] == "doom-1")
        assert agent["scores"]["real"]["mean"] == 500
        assert not agent["stages"]["film"]["made"]
        model = next(entry for entry in found["world_models"] if entry["key"] == "doom-1")
        assert model["stages"]["vision"] == {
            "made": True,
            "path": "artifacts/world_models/doom-1/vision.safetensors",
            "md5": "0123456789abcdef",
            "made_by": "dvc repro vision@doom-1",
        }
        assert not model["stages"]["memory"]["made"]
        assert "dvc repro evaluate@doom-1" not in found["missing"]
        assert {"dvc repro memory@doom-1", "dvc repro initialise@doom", "dvc repro film@doom-2"} <= set(found["missing"])

    def test_scores_that_are_not_those_of_the_lock_are_marked(self, project: Path) -> None:
        path = project / "metrics/doom-1.json"
        write_lock(project, **{"evaluate@doom-1": hashlib.md5(path.read_bytes()).hexdigest()})
        assert "CHANGED" not in wm("show").stdout
        path.write_text(path.read_text().replace("500", "5000", 1))
        text = wm("show").stdout
        assert re.search(r"^doom-1 .*CHANGED", text, flags=re.M)
        assert "do not trust the scores above: doom-1." in text

    def test_a_project_without_params_is_no_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("dvc.yaml").touch()
        result = wm("show", "--next-steps")
        assert result.exit_code == 0
        assert "make repro" in result.stdout

    @pytest.mark.parametrize("command", ["show", "check", "preset quick", "sweep seed=1", "track sync", "ledger write"])
    def test_in_a_wrong_folder_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
        monkeypatch.chdir(tmp_path)
        result = wm(*command.split())
        assert result.exit_code == 2
        assert "inside a clone of the project" in result.stderr

    @pytest.mark.parametrize("content", [b"<<<<<<< HEAD\n: [", b"\xff\xfe", b"[" * 5000, b"stages: {a: 1}", b"stages: 3", None])
    def test_a_broken_lock_is_one_message(self, project: Path, content: bytes | None) -> None:
        if content is None:
            Path("dvc.lock").unlink()
            Path("dvc.lock").mkdir()
        else:
            Path("dvc.lock").write_bytes(content)
        result = wm("show")
        if content == b"stages: {a: 1}":  # a stage of somebody else
            assert result.exit_code == 0
            return
        assert result.exit_code == 1
        assert "dvc.lock is damaged" in result.stderr

    @pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"key": "doom-1"}', "[" * 5000, '{"real": 1e999}', "\x00"])
    def test_broken_scores_are_one_message_with_the_command(self, project: Path, content: str) -> None:
        Path("metrics/doom-1.json").write_text(content)
        result = wm("show")
        assert result.exit_code == 1
        assert "metrics/doom-1.json" in result.stderr
        assert "dvc repro evaluate@doom-1" in result.stderr


class TestParams:
    def test_check_accepts_what_presets_hold(self, project: Path) -> None:
        for name in ("laptop", "paper", "quick"):
            assert wm("preset", name).exit_code == 0
            result = wm("check")
            assert result.exit_code == 0, result.stderr
            assert f"preset {name}, " in result.stdout
        assert "3 world models, 4 agents (doom-1, doom-2, carracing-1, carracing-1-game)" in result.stdout

    def test_check_says_how_long_a_run_takes_by_the_rates_of_known_machines(self, project: Path) -> None:
        assert "takes about" not in wm("check").stdout
        Path("results").mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "results/rates.csv", "results/rates.csv")
        said = wm("check").stdout
        assert "A run from nothing on one core of an Intel Xeon with AVX-512, float32 takes about:" in said
        assert re.search(r"^all +\d+ min +\d+ min$", said, flags=re.M)

    def test_check_shows_the_frames_of_each_game(self, project: Path) -> None:
        params = QUICK.replace("scenario: take_cover, frame_skip: 4", "scenario: take_cover, frame_skip: 4, limit: 120")
        Path("params.yaml").write_text(params.replace("kind: carracing", "kind: carracing, limit: 30"))
        result = wm("check", "--frames", "seen/frames.png")
        assert result.exit_code == 0, result.stderr
        assert "seen/frames.png shows random play of doom and carracing." in result.stdout
        with Image.open("seen/frames.png") as picture:
            assert picture.width > 8 * 128
            assert 2 * 128 < picture.height < 3 * 128
        assert "cannot write a file with the suffix '.txt'" in wm("check", "--frames", "frames.txt").stderr

    def test_check_notes_more_threads_than_cores(self, project: Path) -> None:
        Path("params.yaml").write_text(QUICK.replace("threads: 1", "threads: 1024"))
        assert "compute.threads is 1024" in wm("check").stdout

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("frame_skip: 4", "frame_skp: 4", "frame_skp"),
            ("frame_skip: 4", "frame_skip: 4, skill: 9", "less than or equal to 5"),
            ("after: doom-1", "after: doom-2", "world_models.doom-2"),
            ("after: doom-1", "after: doom-7", "doom-7"),
            ("seed: 0 #", "seed: 0\nseed: 1 #", 'duplicate key "seed"'),
            ("seed: 0 #", "seed: yes #", "`seed` = 'yes'"),
            ("environments: [doom", "environments: [a, b", "names 'b'"),
            ("batch: 16", "batch: 65536", "takes 4,194,304 frames at a time, and doom-1 has 526,000 at most"),
            ("first_episodes: 720", "first_episodes: 4", "frames at a time, and carracing-1 has 1,004"),
            ("pay: survival }", "pay: survival, moments: { share: 0.5, context: 250 } }", "carracing-1 has 250 steps at most"),
        ],
    )
    def test_check_refuses_a_bad_file_with_exit_code_2(self, project: Path, old: str, new: str, message: str) -> None:
        assert old in QUICK
        Path("params.yaml").write_text(QUICK.replace(old, new, 1))
        result = wm("check")
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""

    def test_params_are_read_as_dvc_reads_them(self, project: Path) -> None:
        text = "a: 3e-05\nb: 0777\nc: yes\nd: 0o17\ne: 1e5\nf: 12:30:45\ng: {<<: &x {h: 1, i: 2}, i: 3}\nj: *x\n"
        Path("params.yaml").write_text(text)
        assert load_yaml() == dvc_yaml("params.yaml")
        assert load_yaml()["a"] == 0.00003

    def test_a_preset_replaces_another_preset_and_keeps_its_comments(self, project: Path) -> None:
        result = wm("preset", "laptop")
        assert result.exit_code == 0, result.stderr
        assert Path("params.yaml").read_bytes() == Path("presets/laptop.yaml").read_bytes()
        assert sorted(path.name for path in Path().iterdir()) == ["artifacts", "dvc.lock", "metrics", "params.yaml", "presets"]

    @pytest.mark.parametrize("name", ["laptop", "laptop --study ablation", "quick --study learning --study temperature"])
    def test_a_preset_does_not_overwrite_edits_unless_forced(self, project: Path, name: str) -> None:
        assert wm("preset", *name.split()).exit_code == 0
        edited = Path("params.yaml").read_text().replace("seed: 0", "seed: 7", 1)
        Path("params.yaml").write_text(edited)
        result = wm("preset", "laptop")
        assert result.exit_code == 2
        assert "(seed)" in result.stderr
        assert "wm preset laptop --force" in result.stderr
        assert Path("params.yaml").read_text() == edited
        assert wm("preset", "laptop", "--force").exit_code == 0
        assert Path("params.yaml").read_bytes() == Path("presets/laptop.yaml").read_bytes()

    def test_an_unknown_preset_or_study_names_near_ones(self, project: Path) -> None:
        for arguments, near in ((["quik"], "`quick`"), (["quick", "--study", "ablatio"], "`ablation`")):
            result = wm("preset", *arguments)
            assert result.exit_code == 2
            assert near in result.stderr

    @pytest.mark.parametrize("study", ["ablation", "game", "hybrid", "learning", "temperature"])
    def test_a_study_adds_its_agents_to_a_preset_and_changes_nothing_else(self, project: Path, study: str) -> None:
        result = wm("preset", "laptop", "--study", study)
        assert result.exit_code == 0, result.stderr
        assert "preset laptop+" + study in wm("check").stdout
        plain, studied = load_yaml(Path("presets/laptop.yaml")), load_yaml()
        added = {key: agent for key, agent in studied["agents"].items() if key not in plain["agents"]}
        assert {agent["study"] for agent in added.values()} == {study}
        for key in added:
            del studied["agents"][key]
        for name in plain["environments"]:
            own = plain[name]["controllers"]
            studied[name]["controllers"] = {key: studied[name]["controllers"][key] for key in own}
        assert studied == plain | {"preset": f"laptop+{study}"}
        assert "&id" not in Path("params.yaml").read_text()

    def test_another_preset_follows_a_preset_with_studies(self, project: Path) -> None:
        assert wm("preset", "quick", "--study", "learning", "--study", "hybrid").exit_code == 0
        assert wm("preset", "laptop").exit_code == 0

    def test_a_study_that_does_not_fit_is_refused_and_nothing_is_written(self, project: Path) -> None:
        studies = Path("presets/studies")
        agent = "{{ env: doom, world_model: {}, begin: doom-0, controller: search, seed: {}, study: mine }}"
        (studies / "lacking.yaml").write_text(f"agents:\n  mine: {agent.format('doom-9', 0)}\n")
        (studies / "pong.yaml").write_text("pong:\n  controllers: {}\n")
        (studies / "other.yaml").write_text(f"agents:\n  doom-1: {agent.format('doom-1', 3)}\n")
        (studies / "wrong.yaml").write_text(f"agents:\n  mine: {agent.format('doom-1', -1)}\n")
        for study, message in (
            ("lacking", "no `world_models.doom-9`, which `agents.mine` needs"),
            ("pong", "no `pong`"),
            ("other", "`agents.doom-1.seed` is there already"),
            ("wrong", "`agents.mine.seed` = -1"),
        ):
            result = wm("preset", "quick", "--study", study)
            assert result.exit_code == 2
            assert message in result.stderr
        assert Path("params.yaml").read_text() == QUICK

    def test_a_full_disk_leaves_the_old_params(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("worldmodels.storage.files.os.fsync", full)
        result = wm("preset", "laptop")
        assert result.exit_code == 1
        assert "No space left" in result.stderr
        assert Path("params.yaml").read_text() == QUICK
        assert not list(Path().glob("*.partial"))


class TestSweep:
    @pytest.fixture(autouse=True)
    def _committed(self, project: Path) -> None:
        commit_all()

    @pytest.mark.parametrize(
        ("assignment", "values"),
        [
            ("seed=0,1,2", ["0", "1", "2"]),
            ("doom.vision.loss.kl_tolerance=0.5,1", ["0.5", "1"]),
            ("doom.memory.model.ending=threshold", ["threshold"]),  # at its default in params.yaml
            ("doom.controllers.learn.phases.learn.updates=50,100", ["50", "100"]),
            ("doom.controllers.learn.phases.learn.learning_rate=3e-05,1e-4", ["3e-05", "1e-4"]),
            ("agents.doom-2.seed=1", ["1"]),
            ("doom.collect.strengths=[0.1,0.2],[0.3]", ["[0.1,0.2]", "[0.3]"]),
        ],
    )
    def test_every_key_of_the_config_classes_can_be_swept(self, assignment: str, values: list[str]) -> None:
        result = wm("sweep", assignment, "--dry", "--json")
        assert result.exit_code == 0, result.output
        last = assignment.partition("=")[0].split(".")[-1]
        assert [(row[last], row["state"]) for row in json.loads(result.stdout)] == [(value, "would run") for value in values]

    @pytest.mark.parametrize(
        "assignment",
        [
            "seed=[1", "seed={", "seed='", 'seed="', "seed=$x", "seed=${x}", "seed=(1", "seed=choice(1", "seed=1]", "seed={a",
            "seed=1 2", "seed=nan", "seed=1e400", "seed=null", "seed=", "seed=1,1", "seed,seed=1", "=1", "a", "seed.x=1",
            "doom=1", "sede=1", "doom.vision.los.kl_tolerance=1", "x;touch hacked=1", "a..b=1", "agents.a b.seed=1", "~seed=1",
            "seed=\\",
        ],
    )  # fmt: skip
    def test_what_cannot_be_set_is_one_message(self, assignment: str) -> None:
        result = wm("sweep", assignment, "--dry")
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("wm: ")
        assert not Path("hacked").exists()

    def test_a_misspelt_key_names_the_one_that_is_meant(self) -> None:
        assert "`kl_tolerance`" in wm("sweep", "doom.vision.loss.kl_tolerence=1", "--dry").stderr

    @pytest.mark.parametrize("target", ["nope", "evaluate@doom-9", "vision@carracing-1-game", "report@doom-1", ""])
    def test_a_target_that_is_no_stage_is_refused(self, target: str) -> None:
        result = wm("sweep", "seed=1", "--target", target, "--dry")
        assert result.exit_code == 2
        assert "there is no stage" in result.stderr

    @pytest.mark.parametrize("target", ["evaluate@carracing-1-game", "evaluate", "vision@doom-1", "report", "initialise@doom"])
    def test_a_target_that_is_a_stage_is_taken(self, target: str) -> None:
        assert wm("sweep", "seed=1", "--target", target, "--dry").exit_code == 0

    @pytest.mark.parametrize("kept", [True, False])
    def test_results_decide_whether_an_experiment_is_run_again(self, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
        (row,) = json.loads(wm("sweep", "seed=1", "--target", "evaluate@doom-1", "--dry", "--json").stdout)
        there = Experiment(row["experiment"], "0" * 40, "1" * 40)
        found = Result({}, {"doom-1": scores_of("doom-1", 500)} if kept else {}, {})
        ran: list[str] = []
        monkeypatch.setattr("worldmodels.cli.sweep.list_experiments", lambda _: [there])
        monkeypatch.setattr("worldmodels.cli.sweep.read_result", lambda *_: found)
        monkeypatch.setattr("worldmodels.cli.sweep._dvc", lambda _, *what: (ran.append(" ".join(what[:2])), (0, "nothing"))[1])
        result = wm("sweep", "seed=1", "--target", "evaluate@doom-1", env={"WM_TRACKING": "off"})
        assert ran == ([] if kept else ["exp remove", "exp run"])
        assert ("not run again" in result.stderr) == kept
        assert result.exit_code == (0 if kept else 1)
        assert kept or "DVC kept no scores of doom-1" in result.stdout

    def test_an_experiment_that_dvc_cannot_run_fails_the_sweep_with_its_reason(self) -> None:
        result = wm("sweep", "seed=1", env={"WM_TRACKING": "off"})  # there is no .dvc here
        assert result.exit_code == 1
        assert re.search(r"seed-1-\w+ failed: ERROR: you are not inside of a DVC repository", result.stdout), result.output


def test_a_shallow_clone_is_told_before_a_sweep_runs_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path / "whole", load_yaml(REPOSITORY / "presets/quick.yaml"))
    (tmp_path / "whole" / "more").touch()
    commit(tmp_path / "whole", "More")
    clone = ["git", "clone", "-q", "--depth", "1", f"file://{tmp_path}/whole", str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    monkeypatch.chdir(tmp_path / "clone")
    result = wm("sweep", "seed=1")
    assert result.exit_code == 1
    assert "`git fetch --unshallow`" in result.stderr
    assert "clone" in [each.name for each in doctor.check_dvc(Path()) if each.status == "warn"]
    subprocess.run(["git", "fetch", "-q", "--unshallow"], check=True)
    assert wm("sweep", "seed=1", "--dry").exit_code == 0
    assert "clone" not in [each.name for each in doctor.check_dvc(Path())]


class TestDoctor:
    @pytest.mark.parametrize("game", [{"kind": "vizdoom"}, {"kind": "carracing", "backend": "gymnasium"}])
    def test_rendering_is_tried_with_the_real_game(self, game: dict[str, str]) -> None:
        verdict = doctor.check_rendering("game", game)
        assert verdict.status == "ok", verdict
        assert "steps/s" in verdict.detail

    def test_an_engine_that_fails_is_a_failure_with_its_reason(self) -> None:
        verdict = doctor.check_rendering("game", {"kind": "vizdoom", "skill": "nine"})
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
        assert doctor.check_params(Path()).status == "fail"
        assert [verdict.status for verdict in doctor.check_dvc(Path())] == ["fail"]

    def test_a_download_without_git_fails_and_an_odd_folder_is_a_warning(self, tmp_path: Path) -> None:
        for name, odd in (("plain", ""), ("Größe #1", "# ß ö")):
            place = tmp_path / name
            (place / ".dvc").mkdir(parents=True)
            (place / "dvc.yaml").touch()
            (verdict,) = doctor.check_dvc(place)
            assert verdict.status == "fail"
            assert "git" in verdict.detail
            (place / ".git").mkdir()
            *warnings, last = doctor.check_dvc(place)
            assert last.status == "ok"
            assert [(each.status, each.detail) for each in warnings] == ([("warn", f"its path holds {odd}")] if odd else [])

    @pytest.mark.parametrize(("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
    def test_pythons_that_the_games_have_packages_for(
        self, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], status: str
    ) -> None:
        monkeypatch.setattr(sys, "version_info", (*version, 0))
        verdict = doctor.check_python()
        assert verdict.status == status
        assert status == "ok" or "3.11 to 3.13" in verdict.advice

    def test_the_way_to_make_room_keeps_experiments(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
        verdict = doctor.check_disk(Path())
        assert verdict.status == "fail"
        assert "dvc gc -w --all-experiments" in verdict.advice

    def test_a_store_that_is_not_made_yet_is_well_and_is_left_unmade(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        verdict = doctor.check_store(project)
        assert verdict.status == "ok", verdict
        assert not Path("mlflow.db").exists()

    def test_a_store_that_is_no_database_is_a_warning_with_advice(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("mlflow.db").write_bytes(b"not a database" * 100)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
        verdict = doctor.check_store(project)
        assert verdict.status == "warn"
        assert "wm track sync" in verdict.advice


class TestTrack:
    def test_the_pages_of_a_server_that_is_down_are_not_served_instead(self, project: Path) -> None:
        result = wm("track", "ui", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
        assert result.exit_code == 1
        assert "Start its server" in result.stderr

    def test_sync_without_a_lock_names_the_command(self, project: Path) -> None:
        Path("dvc.lock").unlink()
        result = wm("track", "sync")
        assert result.exit_code == 1
        assert "make repro" in result.stderr


class TestLedger:
    def test_scores_of_a_run_are_added_and_the_pages_follow(self, project: Path) -> None:
        for name in ("results/ledger.csv", "results/headlines.csv", "docs/results.md", "README.md"):
            Path(name).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, name)
        result = wm("ledger", "add", "--run", "mine", "--hardware", "a machine")
        assert result.exit_code == 0, result.output
        row = next(line for line in Path("results/ledger.csv").read_text().splitlines() if line.startswith("mine,"))
        assert row.startswith("mine,quick,take_cover,doom-1,0,0,test,20,500,250,55.9,900,,a machine,")
        assert wm("ledger", "write").exit_code == 0
        assert "| mine | doom-1 | quick | test | 500 ± 56 |" in Path("docs/results.md").read_text()

    @pytest.mark.parametrize(
        "arguments",
        [["--run", "two words"], ["--run", ""], ["--run", "a,b"], ["--run", "a", "--replicas", "quick"]],
    )
    def test_what_cannot_be_used_is_refused(self, project: Path, arguments: list[str]) -> None:
        assert wm("ledger", "add", *arguments).exit_code == 2
        assert not Path("results").exists()


def test_the_root_is_found_from_below(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.find_root() == Path()
    monkeypatch.chdir(project / "artifacts" / "agents")
    assert folder.find_root() == Path("../..")
