"""Recordings: the format, damaged and hostile ones, play by hand, and the real chain that learns from one."""

import io
import json
import pickle
import re
import shutil
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lab import WAIT, answers, environment, free_port, make_project, page_at, run, serving
from numpy.lib import format as npy
from pydantic import TypeAdapter
from tiny import ROOT, SEARCH, agent

from worldmodels.cli.record import how_to_learn, import_play
from worldmodels.cli.recordings import look
from worldmodels.errors import ArtifactError, ParamsError, WorldModelsError
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.doom import DoomConfig
from worldmodels.games.frames import resize
from worldmodels.games.make import Game
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.prediction import MemoryLossConfig, memory_loss
from worldmodels.play.hand import Hand
from worldmodels.project import load_project
from worldmodels.recordings.episodes import NO_SEED, Recording
from worldmodels.recordings.files import About, EpisodeFile, write_about, write_episode
from worldmodels.recordings.minari import MinariData
from worldmodels.recordings.writing import RecordingWriter, arrays_of
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode
from worldmodels.storage.weights import load_tensors
from worldmodels.tracking.plan import read_plan

CARTPOLE: dict[str, Any] = {"kind": "gym", "id": "CartPole-v1", "limit": 20}
STEPS = 7


def game(**settings: Any) -> Any:
    return TypeAdapter(Game).validate_python(CARTPOLE | settings)


def arrays(drawn: int = 0, steps: int = STEPS, **other: Any) -> dict[str, Any]:
    """Return a good episode of CartPole; of ``other``, what is None is left out."""
    random = np.random.default_rng(drawn)
    found = {
        "frames": random.integers(0, 256, (steps + 1, 40, 60, 3), np.uint8),
        "actions": random.integers(0, 2, steps),
        "rewards": np.ones(steps),
        "terminal": np.array(True),
    }
    return {name: each for name, each in (found | other).items() if each is not None}


def recorded(folder: Path, *episodes: dict[str, Any]) -> Path:
    for number, episode in enumerate(episodes):
        write_episode(folder / f"{number}.npz", episode)
    return folder


def one(folder: Path, rules: Any = None, **other: Any) -> Episode:
    """Return the only episode of a recording, as the game would have played it."""
    (episode,) = Recording(recorded(folder, arrays(**other)), rules or game()).episodes()
    return episode


class TestAsPlayed:
    def test_an_episode_has_the_frames_actions_rewards_and_end_of_the_game(self, tmp_path):
        given = arrays()
        episode = one(tmp_path)
        np.testing.assert_array_equal(episode.frames, resize(given["frames"]))
        assert episode.actions.tolist() == [[1, -1] if not option else [-1, 1] for option in given["actions"]]
        assert (episode.actions.dtype, episode.rewards.dtype) == (np.float32, np.float32)
        assert episode.rewards.tolist() == [1.0] * STEPS
        assert (episode.terminal, episode.seed) == (True, NO_SEED)

    def test_what_numpy_saves_is_an_episode(self, tmp_path):
        np.savez(tmp_path / "a.npz", **arrays())
        np.savez_compressed(tmp_path / "b.npz", **arrays())
        first, second = Recording(tmp_path, game()).episodes()
        np.testing.assert_array_equal(first.frames, second.frames)

    def test_pictures_are_cropped_as_the_game_s_unless_they_are_frames(self, tmp_path):
        given = arrays()["frames"]
        cut = game(crop=(0.5, 0.0, 0.0, 0.25))
        np.testing.assert_array_equal(one(tmp_path / "a", cut).frames, resize(given[:, 20:, :45]))
        frames = resize(given)
        np.testing.assert_array_equal(one(tmp_path / "b", cut, frames=frames).frames, frames)
        grey = one(tmp_path / "c", frames=given[..., :1]).frames
        assert (grey[..., :1] == grey).all()

    def test_pictures_are_as_bright_as_the_game_s(self, tmp_path):
        given = arrays()["frames"]
        told = {"actions": np.zeros((STEPS, 1)), "terminal": np.array(False)}
        frames = one(tmp_path, DoomConfig(crop=(0, 0, 0, 0), gamma=2.0), frames=given, **told).frames
        np.testing.assert_allclose(frames / 255, (resize(given) / 255) ** 0.5, atol=0.002)

    def test_carracing_pictures_lose_the_dashboard(self, tmp_path):
        given = np.random.default_rng(0).integers(0, 256, (STEPS + 1, 96, 96, 3), np.uint8)
        told = {"frames": given, "actions": np.zeros((STEPS, 3)), "terminal": np.array(False)}
        episode = one(tmp_path, CarRacingConfig(), **told)
        np.testing.assert_array_equal(episode.frames, resize(given[:, :84]))

    def test_large_pictures_are_read_some_at_a_time(self, tmp_path, monkeypatch):
        whole = one(tmp_path / "a")
        monkeypatch.setattr("worldmodels.recordings.files.BATCH_BYTES", 2 * 40 * 60 * 3 + 1)
        assert [len(part) for part in EpisodeFile(tmp_path / "a" / "0.npz").pictures()] == [2] * 4
        np.testing.assert_array_equal(one(tmp_path / "b").frames, whole.frames)

    @pytest.mark.parametrize(
        ("terminal", "frames", "steps", "ended"),
        [
            (True, STEPS + 1, STEPS, True),
            (False, STEPS + 1, STEPS, False),
            (None, STEPS + 1, STEPS - 1, False),  # the last step may have ended it, those before did not
            (True, STEPS, STEPS, True),  # an end needs no picture
            (False, STEPS, STEPS - 1, False),
            (None, STEPS, STEPS - 1, False),
            ([False] * (STEPS - 1) + [True], STEPS + 1, STEPS, True),
        ],
    )
    def test_only_steps_whose_outcome_is_known_are_kept(self, tmp_path, terminal, frames, steps, ended):
        told = None if terminal is None else np.array(terminal)
        episode = one(tmp_path, terminal=told, frames=arrays()["frames"][:frames])
        assert (len(episode.actions), len(episode.rewards), len(episode.frames)) == (steps, steps, steps + 1)
        assert episode.terminal is ended

    def test_rewards_are_those_of_the_rules_or_not_known(self, tmp_path):
        assert np.isnan(one(tmp_path / "a", rewards=None).rewards).all()
        assert one(tmp_path / "b", game(reward="survival", frame_skip=2), rewards=None).rewards.tolist() == [2.0] * STEPS
        assert one(tmp_path / "c", game(reward="none")).rewards.tolist() == [0.0] * STEPS

    def test_an_episode_ends_at_the_limit_of_the_game(self, tmp_path):
        episode = one(tmp_path, game(limit=4))
        assert (len(episode.frames), episode.terminal) == (5, False)

    def test_an_episode_that_is_paid_no_more_is_lost(self, tmp_path):
        rewards = np.array([0, 1, 0, 0, 0, 0, 0])
        episode = one(tmp_path / "a", game(patience=3), rewards=rewards, terminal=np.array(False))
        assert (len(episode.rewards), episode.terminal) == (2, True)
        assert len(one(tmp_path / "b", game(patience=3), rewards=None).rewards) == STEPS

    def test_numbers_are_scaled_from_their_range(self, tmp_path):
        pendulum = game(id="Pendulum-v1")
        actions = np.linspace(-2, 2, STEPS).reshape(-1, 1)
        told = {"actions": actions, "low": np.array([-2.0]), "high": np.array([2.0])}
        assert one(tmp_path, pendulum, **told).actions.ravel() == pytest.approx(actions.ravel() / 2)

    def test_what_a_recording_lacks_is_known_before_its_pictures_are_read(self, tmp_path):
        whole = Recording(recorded(tmp_path / "a", arrays(), arrays(1, 30)), game()).contents
        assert (whole.episodes, whole.frames, whole.longest, whole.rewards, whole.ends) == (2, 8 + 21, 20, True, True)
        bare = recorded(tmp_path / "b", arrays(rewards=None, terminal=None))
        assert not any(vars(Recording(bare, game()).contents)[name] for name in ("rewards", "ends"))
        assert Recording(bare, game(reward="survival")).contents.rewards

    def test_the_same_episode_has_the_same_bytes(self, tmp_path):
        first, second = (recorded(tmp_path / name, arrays()) / "0.npz" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


WRONG = {
    "frames": [
        (np.zeros((STEPS + 1, 40, 60, 3)), r"`frames` is float64 of shape \(8, 40, 60, 3\); uint8 of shape"),
        (np.zeros((STEPS + 1, 40, 60), np.uint8), r"`frames` is uint8 of shape \(8, 40, 60\)"),
        (np.zeros((STEPS + 1, 3, 40, 60), np.uint8), r"`frames` is uint8 of shape \(8, 3, 40, 60\)"),
        (np.zeros((STEPS + 1, 0, 60, 3), np.uint8), "1 to 4096 pixels"),
        (np.zeros((STEPS + 2, 4, 6, 3), np.uint8), "it has 9 frames and 7 actions; 8 frames are needed, or 7"),
        (None, "it has no `frames`"),
    ],
    "actions": [
        (np.array([0, 1, 2, 0, 0, 0, 0]), "the action of step 2 takes option 2, and there are 0 to 1"),
        (np.array([0, -1, 0, 0, 0, 0, 0]), "the action of step 1 takes option -1"),
        (np.zeros((STEPS, 2), int), "has 2 choices a step, and the game has 1"),
        (np.zeros((STEPS, 3)), "`actions` has 3 numbers a step, and the game takes 2, or 1 integers"),
        (np.full((STEPS, 2), np.nan), "`actions` holds NaN or infinity at step 0"),
        (np.full((STEPS, 2), 1.5), r"the action of step 0 has 1.5, which is not in \[-1, 1\]: scale it"),
        (np.zeros((0,), int), "it has 8 frames and 0 actions"),
        (np.array(["left"] * STEPS), "`actions` is <U4"),
        (None, "it has no `actions`"),
    ],
    "rewards": [
        (np.array([0, 0, 0, np.nan, 0, 0, 0]), "`rewards` holds NaN or infinity at step 3"),
        (np.ones(STEPS + 1), r"`rewards` is float64 of shape \(8,\); 7 numbers are needed"),
        (np.full(STEPS, 1e300), "`rewards` holds NaN or infinity at step 0"),
    ],
    "terminal": [
        (np.array(1), "`terminal` is int64"),
        (np.array([True] + [False] * (STEPS - 1)), "the game ended at step 0, and goes on after it"),
    ],
    "seed": [
        (np.array(3), "it is of the seed 3, a test episode of this project: nothing may be trained on those"),
        (np.array(2.5), "`seed` is float64"),
    ],
    "low": [(np.array([-1.0, -1.0]), "`low` and `high` come together")],
    "reward": [(np.ones(STEPS), "`reward` is no array of a recording: there are frames, actions, rewards, ")],
}  # fmt: skip


class TestWrong:
    @pytest.mark.parametrize(("name", "value", "said"), [(name, *case) for name, cases in WRONG.items() for case in cases])
    def test_one_message_names_the_file_the_episode_and_what_is_wrong(self, tmp_path, name, value, said):
        recorded(tmp_path, arrays(), arrays(**{name: value}), arrays())
        with pytest.raises(ArtifactError, match=rf"^episode 2 of 3, {tmp_path}/1\.npz: .*{said}"):
            Recording(tmp_path, game())

    def test_all_episodes_with_a_problem_are_named_up_to_twenty(self, tmp_path):
        recorded(tmp_path, *[arrays(rewards=np.zeros(3))] * 25)
        with pytest.raises(ArtifactError) as caught:
            Recording(tmp_path, game())
        lines = str(caught.value).splitlines()
        assert len(lines) == 21
        assert lines[-1] == "and 5 more episodes"

    def test_a_range_that_is_none_is_named(self, tmp_path):
        told = {"actions": np.zeros((STEPS, 2)), "low": np.array([0.0, 1.0]), "high": np.array([1.0, 1.0])}
        with pytest.raises(ArtifactError, match="`low` must be below `high`"):
            one(tmp_path, **told)

    def test_integers_are_no_numbers_of_a_game(self, tmp_path):
        with pytest.raises(ArtifactError, match="`actions` are integers, and the game takes 1 numbers"):
            one(tmp_path, game(id="Pendulum-v1"))

    def test_an_episode_of_which_no_step_is_known_is_named(self, tmp_path):
        with pytest.raises(ArtifactError, match="it is too short: of 1 actions, none is left"):
            one(tmp_path, steps=1, terminal=None)

    def test_an_empty_and_a_missing_folder_are_named(self, tmp_path):
        with pytest.raises(ArtifactError, match="holds no episode"):
            Recording(tmp_path, game())
        with pytest.raises(ArtifactError, match=r"nothing does not exist\. `wm record` makes one"):
            Recording(tmp_path / "nothing", game())

    def test_play_under_other_rules_is_refused(self, tmp_path):
        recorded(tmp_path, arrays())
        write_about(tmp_path, About(rules=game(limit=9).rules, frame_skip=1, player="someone"))
        with pytest.raises(ArtifactError, match=r"under the rules cartpole-v1-limit9 .* the game's are cartpole-v1-limit20"):
            Recording(tmp_path, game())
        (tmp_path / "recording.json").write_text('{"rules": 3}')
        with pytest.raises(ArtifactError, match=r"recording\.json: .*`frame_skip` is missing"):
            Recording(tmp_path, game())


class Bomb:
    def __reduce__(self):
        return (Path("/tmp/worldmodels-was-unpickled").touch, ())


class TestDamaged:
    def test_pickled_arrays_are_refused_and_nothing_is_run(self, tmp_path):
        mark = Path("/tmp/worldmodels-was-unpickled")
        mark.unlink(missing_ok=True)
        with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
            for name, array in arrays(actions=None).items():
                archive.writestr(f"{name}.npy", npy_bytes(array))
            header = io.BytesIO()
            npy.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (STEPS,)})
            archive.writestr("actions.npy", header.getvalue() + pickle.dumps(Bomb()))
        with pytest.raises(ArtifactError, match="`actions` holds pickled objects, which could run code"):
            Recording(tmp_path, game())
        assert not mark.exists()

    def test_of_a_header_that_promises_more_than_there_is(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
            for name, array in arrays(actions=None).items():
                archive.writestr(f"{name}.npy", npy_bytes(array))
            header = io.BytesIO()
            npy.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)})
            archive.writestr("actions.npy", header.getvalue() + bytes(80))
        with pytest.raises(ArtifactError, match="`actions` is not as long as its header says"):
            Recording(tmp_path, game())

    def test_a_file_that_was_cut_off_anywhere_is_named(self, tmp_path):
        path = recorded(tmp_path, arrays()) / "0.npz"
        content = path.read_bytes()
        for end in range(0, len(content), 997):
            path.write_bytes(content[:end])
            with pytest.raises(ArtifactError, match=rf"{path}: it is not a whole \.npz file"):
                Recording(tmp_path, game())

    def test_a_flipped_bit_is_named_or_changes_nothing(self, tmp_path):
        path = recorded(tmp_path, arrays(frames=np.zeros((STEPS + 1, 8, 8, 3), np.uint8))) / "0.npz"
        content, random, said = path.read_bytes(), np.random.default_rng(0), list[str]()
        (whole,) = Recording(tmp_path, game()).episodes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << random.integers(8)]) + content[place + 1 :])
            try:
                (found,) = Recording(tmp_path, game()).episodes()
            except ArtifactError as error:
                said.append(str(error))
                continue
            assert all(np.array_equal(vars(found)[name], vars(whole)[name]) for name in vars(whole))
        assert len(said) > len(content) / 3
        assert all(str(path) in each for each in said)


def npy_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    npy.write_array(content, array, allow_pickle=False)
    return content.getvalue()


def test_the_seeds_of_recorded_play_are_not_those_that_judge(tmp_path):
    (seed,) = episode_seeds("collection", 1, stream="recording/x")
    assert one(tmp_path, seed=np.array(seed)).seed == seed


def minari_data(folder: Path, observations: Any, pictures: Any, action_space: Any, actions: Any) -> Path:
    """Write a Minari data set of two episodes of five steps; the game ended the second."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder.mkdir()
    storage = MinariStorage.new(folder, observations, action_space, data_format="hdf5", jpeg_encoding=False)
    ends = {"terminations": [False] * 4 + [True], "truncations": [False] * 5}
    cut = {"terminations": [False] * 5, "truncations": [False] * 4 + [True]}
    told = {"observations": pictures, "actions": actions, "rewards": [1.0] * 5, "seed": 3}
    storage.update_episodes([EpisodeBuffer(**told, **cut), EpisodeBuffer(**told, **ends)])
    storage.update_metadata({"dataset_id": "test/pole-v0", "minari_version": "0.5.4"})
    return folder


class TestMinari:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("minari", reason="minari is not installed")
        pytest.importorskip("h5py", reason="h5py is not installed")

    def test_a_data_set_is_a_recording_of_the_game(self, tmp_path):
        from gymnasium.spaces import Box, Dict, Discrete

        pictures = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3), np.uint8)
        space = Dict({"picture": Box(0, 255, (40, 60, 3), np.uint8), "place": Box(-1, 1, (2,))})
        seen = {"picture": list(pictures), "place": [np.zeros(2, np.float32)] * 6}
        data = minari_data(tmp_path / "data", space, seen, Discrete(2, start=1), [1, 2, 2, 1, 2])
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"environments": ["pole"], "pole": {"game": CARTPOLE}}))
        said = import_play(tmp_path, "pole", str(data), tmp_path / "out", picture="", episodes=None)
        assert "2 episodes, 12 frames." in said
        first, second = Recording(tmp_path / "out", game()).episodes()
        np.testing.assert_array_equal(first.frames, resize(pictures))
        assert first.actions[:, 1].tolist() == [-1, 1, 1, -1, 1]
        assert (first.terminal, second.terminal) == (False, True)
        assert second.rewards.tolist() == [1.0] * 5
        with pytest.raises(ParamsError, match="another folder"):
            RecordingWriter(tmp_path / "out", game(), "someone else")

    def test_numbers_and_their_bounds_are_taken(self, tmp_path):
        from gymnasium.spaces import Box

        pictures, actions = np.zeros((6, 40, 60), np.uint8), np.linspace(-2, 2, 5, dtype=np.float32).reshape(5, 1)
        data = minari_data(tmp_path / "data", Box(0, 255, (40, 60), np.uint8), pictures, Box(-2, 2, (1,)), actions)
        found = next(MinariData(str(data)).episodes())
        write_episode(tmp_path / "out" / "0.npz", found)
        (episode,) = Recording(tmp_path / "out", game(id="Pendulum-v1")).episodes()
        assert episode.actions.ravel().tolist() == [-1, -0.5, 0, 0.5, 1]

    def test_a_data_set_without_pictures_and_one_that_is_damaged_are_refused(self, tmp_path):
        from gymnasium.spaces import Box, Discrete

        data = minari_data(tmp_path / "data", Box(-1, 1, (4,)), np.zeros((6, 4), np.float32), Discrete(2), [0] * 5)
        with pytest.raises(ParamsError, match="there is no picture"):
            MinariData(str(data))
        with pytest.raises(ArtifactError, match=r"nothing is no Minari data set"):
            MinariData(str(tmp_path / "nothing"))
        (data / "metadata.json").write_text("{")
        with pytest.raises(ArtifactError, match="cannot be read by Minari"):
            MinariData(str(data))


def params_of(folder: str = "recordings/pole") -> dict[str, Any]:
    """Return the smallest params of a world model that learns from a recording alone, and of an agent in it."""
    section = {
        "game": dict(CARTPOLE),
        "collect": {"first_episodes": 0, "episodes": 2},
        "vision": {"model": {"latent": 4}, "optimiser": {"updates": 2, "batch": 8}},
        "memory": {
            "model": {"hidden": 8, "reward": "event"},
            "sequence": 4,
            "optimiser": {"updates": 2, "batch": 4},
        },
        "calibrate": {"dreams": 2},
        "controllers": {"dream": {"model": {"features": "zh"}, "order": ["search"], "phases": {"search": dict(SEARCH)}}},
        "evaluate": {"block": "test", "episodes": 2, "dreams": 2},
    }
    return {
        "preset": "tiny",
        "seed": 0,
        "compute": {"threads": 1, "compile": False},
        "cluster": {},
        "environments": ["pole"],
        "recordings": {"pole-recorded": {"env": "pole", "folder": folder}},
        "world_models": {"pole-1": {"env": "pole", "after": "pole-recorded", "player": "pole-0", "explorer": "pole-0"}},
        "agents": {"pole-1": agent("pole", "pole-1", "pole-0", "dream")},
        "pole": section,
    }


WM = (sys.executable, "-m", "worldmodels.cli.main")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose only world model and agent learned from what `wm record` recorded."""
    folder = make_project(tmp_path_factory.mktemp("recorded") / "project", params_of())
    said = run(folder, *WM, "record", "pole", "--episodes", "6").stdout
    assert re.search(r"recordings/pole: 6 episodes, \d+ frames\.", said)
    assert "pole-recorded: 6 episodes" in run(folder, *WM, "check").stdout
    run(folder, "dvc", "repro", "controller@pole-1")
    return folder


class TestChain:
    def test_v_m_and_c_learn_from_a_recording_alone(self, project):
        models = project / "artifacts/world_models"
        recorded, learned = (json.loads((models / key / "data.json").read_text()) for key in ("pole-recorded", "pole-1"))
        assert (recorded["episodes"], learned["episodes"], learned["frames"]) == (6, 0, 0)
        assert learned["shards"] == recorded["shards"]
        rows, about = load_tensors(models / "pole-1/latents.safetensors")
        assert len(rows["first"]) == recorded["frames"] == learned["all_frames"]
        assert (int(rows["first"].sum()), about["choices"]) == (6, [2])
        assert (project / "artifacts/agents/pole-1/agent/agent.json").is_file()

    def test_what_is_learned_on_is_what_was_recorded(self, project):
        rows, _ = load_tensors(project / "artifacts/world_models/pole-1/latents.safetensors")
        first = EpisodeFile(project / "recordings/pole/episode-00000.npz")
        taken = rows["action"][: first.steps].argmax(1)
        assert taken.tolist() == first.read("actions").tolist()
        assert bool(rows["terminal"][first.steps - 1]) == bool(first.read("terminal"))

    def test_dvc_sees_a_changed_recording(self, project, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(project, folder, symlinks=True)
        assert "up to date" in run(folder, "dvc", "status", "recording@pole-recorded").stdout
        run(folder, *WM, "record", "pole", "--episodes", "1")
        assert re.search(r"modified: +recordings/pole", run(folder, "dvc", "status", "recording@pole-recorded").stdout)
        left = read_plan(folder, "recording@pole-recorded", ["controller@pole-1"]).left
        after = [f"{stage}@pole-1" for stage in ("collect", "vision", "encode", "memory", "controller")]
        assert left == ["recording@pole-recorded", *after]
        run(folder, "dvc", "repro", "recording@pole-recorded")
        assert json.loads((folder / "artifacts/world_models/pole-recorded/data.json").read_text())["episodes"] == 7

    def test_a_recording_that_is_made_again_is_the_same(self, project, tmp_path):
        run(project, *WM, "record", "pole", "--episodes", "6", "--out", str(tmp_path / "pole"))
        for path in sorted((project / "recordings/pole").iterdir()):
            assert path.read_bytes() == (tmp_path / "pole" / path.name).read_bytes()

    def test_a_damaged_recording_stops_before_anything_is_learned(self, project, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(project, folder, symlinks=True)
        path = folder / "recordings/pole/episode-00002.npz"
        path.write_bytes(path.read_bytes()[:-9])
        stage = (sys.executable, "-m", "pipeline.recording", "key=pole-recorded", "env=pole", "folder=recordings/pole")
        for command in ((*WM, "check"), stage):
            done = run(folder, *command, check=False)
            assert done.returncode == 1
            assert "episode 3 of 6, recordings/pole/episode-00002.npz: it is not a whole .npz file" in done.stderr
            assert "Traceback" not in done.stderr


class TestParams:
    def written(self, folder: Path, *changes: tuple[str, Any]) -> Path:
        params = params_of()
        for key, value in changes:
            *path, last = key.split(".")
            node = params
            for part in path:
                node = node[part]
            node[last] = value
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        return folder / "params.yaml"

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("recordings", {"pole-rec": {"env": "pole", "folder": "x"}}, "the key of a recording, and no other, ends with"),
            ("recordings.pole-recorded.env", "pong", "env = 'pong' is not one of `environments`"),
            ("recordings.pole-recorded.folder", "a b; rm", "`recordings.pole-recorded.folder` = 'a b; rm'"),
            ("world_models.pole-1.after", "other-recorded", "not one of `world_models`: name one of them, or of `recordings`"),
            ("world_models.pole-1.player", "pole-recorded", "player = 'pole-recorded' is not one of `agents`"),
            ("world_models.pole-1.after", "pole-0", "first_episodes` is 0, and pole-1 goes on from nothing"),
        ],
    )
    def test_what_cannot_be_is_refused(self, tmp_path, key, value, said):
        with pytest.raises(ParamsError, match=re.escape(said)):
            load_project(self.written(tmp_path, (key, value)))

    @pytest.mark.parametrize(
        ("lacking", "changes", "said"),
        [
            ("rewards", [], "pole-recorded has no rewards: set it to `none`"),
            ("terminal", [], "pole-recorded does not say how its episodes ended: set it to false"),
            ("rewards", [("pole.collect.first_episodes", 2)], None),  # M learns rewards from the random policy's play
            ("rewards", [("pole.game.reward", "survival")], None),  # they are known
            (
                "rewards",
                [
                    ("pole.memory.model.reward", "none"),
                    ("pole.evaluate.dreams", 0),
                    ("pole.controllers.dream.phases.search", {**SEARCH, "pay": "hazard"}),
                ],
                None,
            ),
            ("terminal", [("pole.memory.model.done", False)], None),
            ("", [("pole.vision.optimiser.batch", 500)], "takes 500 frames at a time, and pole-1 has 16 at most"),
        ],
    )
    def test_what_a_recording_cannot_teach_is_refused_before_training(self, tmp_path, lacking, changes, said):
        for number in range(2):
            write_episode(tmp_path / f"recordings/pole/{number}.npz", arrays(number, **({lacking: None} if lacking else {})))
        project = load_project(self.written(tmp_path, *changes))
        if said is None:
            assert look(tmp_path, project)["pole-recorded"].episodes == 2
        else:
            with pytest.raises(ParamsError, match=re.escape(said)):
                look(tmp_path, project)

    def test_a_recording_that_is_not_here_is_named(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"`recordings\.pole-recorded`: the recording .*recordings/pole does not exist"):
            look(tmp_path, load_project(self.written(tmp_path)))

    def test_the_lines_that_wm_record_prints_are_params(self, tmp_path):
        write_episode(tmp_path / "recordings/pole/0.npz", arrays())
        said = how_to_learn(tmp_path, "pole", tmp_path / "recordings/pole", game())
        told = yaml.safe_load("\n".join(line.strip() for line in said.splitlines() if line.startswith("  ")))
        assert told == {name: params_of()[name] for name in ("recordings", "world_models")}


class TestUnknownRewards:
    def memory(self):
        memory = LSTMConfig(hidden=4, reward="event").build(2, 1)
        memory.draw_weights(torch.Generator().manual_seed(0))
        return memory

    def test_they_do_not_count_in_the_loss_of_m(self):
        memory, random = self.memory(), torch.Generator().manual_seed(1)
        z, action = torch.randn(2, 5, 2, generator=random), torch.zeros(2, 5, 1)
        no = torch.zeros(2, 5, dtype=torch.bool)
        prediction, _, _ = memory(z, action, no, memory.initial_state(2))
        told = prediction, z
        reward = torch.tensor([[1.0, 0, 0, 1, 0], [torch.nan] * 5])
        found = memory_loss(*told, reward, no, ~no, MemoryLossConfig())
        only = memory_loss(*told, reward.nan_to_num(), no, ~no & reward.isfinite(), MemoryLossConfig())
        assert found.reward == pytest.approx(float(only.reward))
        assert bool(found.total.isfinite())

    def test_what_steps_are_worth_is_learned_from_those_that_are_known(self):
        memory, reward = self.memory(), torch.tensor([0.0, torch.nan, 3, -1])
        memory.learn_rewards(reward, torch.tensor([False, True, False, True]))
        assert memory.rewards.tolist() == [0, 3, -1]
        with pytest.raises(WorldModelsError, match="no step of the recordings has one"):
            memory.learn_rewards(reward[1:2], torch.tensor([False]))


class TestByHand:
    @pytest.fixture
    def hand(self, tmp_path):
        writer, rules = RecordingWriter(tmp_path, game(limit=4), "hand"), game(limit=4)
        env = rules.make()

        def keep(episode: Episode) -> None:
            writer.write(next(writer.numbers()), arrays_of(episode, rules.choices))

        yield Hand(rules, env, lambda: writer.seed(next(writer.numbers())), keep)
        env.close()

    def test_episodes_that_end_or_are_cut_are_kept(self, hand, tmp_path):
        hand.step()  # nothing is played yet
        hand.start()
        hand.hold([-1, 1])
        for _ in range(4):
            hand.step()
        assert not hand.playing
        hand.start()
        hand.cut()  # without a step
        hand.start()
        hand.step()
        hand.cut()
        first, second = Recording(tmp_path, game(limit=4)).files
        assert (first.steps, second.steps, hand.kept) == (4, 1, 2)
        assert first.read("actions").tolist() == [1] * 4
        assert int(first.read("seed")) != int(second.read("seed"))


@contextmanager
def by_hand(folder: Path) -> Iterator[str]:
    """Serve `wm record --by hand` in a folder while the block runs, then end it by Ctrl-C; its log is the file `log`."""
    (folder / "params.yaml").write_text(yaml.safe_dump({"environments": ["pole"], "pole": {"game": CARTPOLE}}))
    port, own = free_port(), environment(folder) | {"PYTHONPATH": str(ROOT / "src")}
    command, address = [*WM, "record", "pole", "--by", "hand", "--rate", "20", "--port", str(port)], f"http://127.0.0.1:{port}"
    with serving(command, lambda: answers(address), folder / "log", cwd=folder, env=own) as process:
        yield address
        process.send_signal(signal.SIGINT)
        process.wait(120)


def test_a_page_plays_and_a_second_one_and_one_of_another_site_do_not(tmp_path):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with by_hand(tmp_path) as address:
        place = f"ws{address.removeprefix('http')}/play"
        with pytest.raises(InvalidStatus, match="403"):
            connect(place, origin="http://evil.example")
        with connect(place, max_size=None, ping_interval=None) as socket:
            assert header(socket)["idle"] == [1.0, -1.0]
            with connect(place, max_size=None, ping_interval=None) as other:
                assert "Another page plays already" in header(other)["text"]
            for order in ({"do": "hold", "action": [1, 2, 3]}, {"do": "dance"}, {"do": "start"}):
                socket.send(json.dumps(order))
            said = [header(socket)]
            while not said[-1].get("kept"):
                said.append(header(socket))
    assert [each["text"] for each in said if "text" in each] == [
        "this is no order: an action has 2 numbers",
        "this is no order: 'dance'",
    ]
    assert len(list((tmp_path / "recordings/pole").glob("*.npz"))) == 1
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_person_plays_in_a_browser_and_what_was_played_is_kept(browser, tmp_path):
    with by_hand(tmp_path) as address, page_at(browser, address) as page:
        page.wait_for_function("document.querySelectorAll('#pads button').length === 2")
        page.keyboard.down("2")
        page.wait_for_selector("#pads button.held")
        page.keyboard.press(" ")
        page.wait_for_function("document.getElementById('count').textContent.includes('kept: 1')")
        page.keyboard.up("2")
    assert "recordings/pole: 1 episode, " in (tmp_path / "log").read_text()
    (file,) = Recording(tmp_path / "recordings/pole", game()).files
    assert set(file.read("actions").tolist()) == {1}  # the key was held all the time
    assert bool(file.read("terminal"))  # and the pole fell


def header(socket: Any) -> dict[str, Any]:
    """Return the header of the next message."""
    content = socket.recv(timeout=WAIT)
    found: dict[str, Any] = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    return found
