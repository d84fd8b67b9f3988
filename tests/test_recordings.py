"""Recordings: the format, damaged and hostile ones, and the real chain that learns from one."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy
from pydantic import TypeAdapter

from worldmodels.errors import ArtifactError
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.frames import resize
from worldmodels.games.make import Game
from worldmodels.recordings.episodes import NO_SEED, Recording
from worldmodels.recordings.files import About, EpisodeFile, write_about, write_episode
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode

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
