"""A computation that is cut off and goes on gives the same bytes as one that was left alone."""

from functools import partial

import numpy as np
import pytest
import torch
from fakes import FakeWorlds

from worldmodels.compute.engine import LocalEngine
from worldmodels.controller.arena import Arena
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.training import train_controller
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.shapes import Episode
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_json
from worldmodels.vision.joint import JointConfig
from worldmodels.vision.model import VisionConfig, VisionLossConfig
from worldmodels.vision.training import VisionTraining, new_vision, train_vision
from worldmodels.worlds.dream import DreamWorld, Starts

UPDATES = 12


class CutOff(Exception):
    """Stands for a kill: nothing after it runs."""


def killer(at):
    def observe(row):
        if next(iter(row.values())) == at:
            raise CutOff

    return observe


def quiet(row):
    """Observe nothing."""


@pytest.fixture(autouse=True)
def always_due(monkeypatch):
    monkeypatch.setenv("WM_CHECKPOINT_SECONDS", "0")


def optimiser():
    return OptimiserConfig(updates=UPDATES, batch=8, learning_rate=1e-2, final_learning_rate=1e-3)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(0)
    write_json(folder / "none.json", {"shards": []})
    writer = EpisodeWriter(folder / "episodes", actions=1)
    for seed in range(3):
        pictures = random.integers(0, 255, (90, 64, 64, 3), np.uint8)
        writer.write(Episode(pictures, np.zeros((89, 1), np.float32), np.ones(89, np.float32), True, seed), "random")
    writer.finish(folder / "data.json", folder / "none.json")
    return folder / "data.json"


def vision(frames, checkpoint, observe, joint=None):
    loss = VisionLossConfig(kl_tolerance=0.5, pixel_weight=1.0)
    config = VisionTraining(model=VisionConfig(latent=4), loss=loss, optimiser=optimiser(), joint=joint)
    model = new_vision(config.model, 1)
    curve = train_vision(
        model, FrameReader(frames), config, seed=1, updates=range(UPDATES), observe=observe, checkpoint=checkpoint
    )
    return model.state_dict(), curve


def joint(frames, checkpoint, observe):
    return vision(frames, checkpoint, observe, JointConfig(weight=10.0))


def memory(_, checkpoint, observe):
    time = torch.arange(300)
    rows = {
        "mean": 3 * torch.sin(time[:, None] * torch.tensor([0.1, 0.2, 0.3])),
        "log_variance": torch.full((300, 3), -6.0),
        "action": torch.zeros(300, 1),
        "reward": torch.ones(300),
        "terminal": time % 60 == 58,
        "first": time % 60 == 0,
    }
    config = MemoryTraining(model=LSTMConfig(hidden=8, reward="event"), optimiser=optimiser(), sequence=12)
    model = new_memory(config.model, 3, 1, 1)
    curve = train_memory(model, rows, config, seed=1, updates=range(UPDATES), observe=observe, checkpoint=checkpoint)
    return model.state_dict(), curve


class Nightfall:
    """A place to play that closes for good, and counts who played."""

    def __init__(self, arena, plays):
        self.arena, self.plays, self.played = arena, plays, []
        self.close = arena.close

    def play(self, config, candidates, seeds, lanes):
        if len(self.played) == self.plays:
            raise CutOff
        self.played.append((len(candidates), list(seeds)))
        return self.arena.play(config, candidates, seeds, lanes)


class SmallWorlds(FakeWorlds):
    """Dreams of a tiny M, wherever a phase plays; ``game`` wraps the places of the selection."""

    def __init__(self, game=None):
        dreamer = new_memory(LSTMConfig(hidden=4), 3, 1, 0)
        starts = Starts(torch.zeros(1, 3), torch.zeros(1, 3))
        super().__init__(
            lambda steps: DreamWorld(dreamer, starts, "zh", temperature=1.0, limit=steps or 30),
            memory=dreamer,
            seen=np.random.default_rng(0).normal(size=(30, 7)),
        )
        self._game = game

    def arena(self, open_world, told=None):
        arena = Arena(LocalEngine(1), open_world, told)
        return self._game(arena) if self._game and not open_world.args[0] else arena


SEARCH = {"kind": "cmaes", "population": 5, "rollouts": 2, "sigma": 0.5, "components": 2, "num_steps": 20}
LEARN = {"critic_updates": 1, "num_envs": 2, "num_steps": 10, "learning_rate": 0.01, "discount": 0.9}
PPO = {**LEARN, "kind": "ppo", "world": "game", "epochs": 2, "batch_size": 5, "noise": 0.5}
GRADIENT = {**LEARN, "kind": "value_gradient", "gradient_steps": 2, "drought_cost": 0.0, "hazard_cost": 1.0, "remembered": 2}
GRADIENT |= {"reward_weight": 0.0, "loss_cost": 1.0, "peril_share": 0.5, "noise": 0.5}


def controller(_, checkpoint, observe, phases=None, episodes=0, game=None, worlds=None):
    phases = phases or {"dream": {**SEARCH, "generations": 6}, "play": {**SEARCH, "world": "game", "generations": 6}}
    selection = {"episodes": episodes, "every": 3, "halvings": 2 if episodes else 0}
    config = ControllerSection(model={"features": "zh"}, order=list(phases), phases=phases, selection=selection)
    parameters, rejected, curve = train_controller(
        config,
        worlds or SmallWorlds(game),
        None,
        seed=1,
        stream="s",
        controller_seed=0,
        generations=range(UPDATES + 9),
        observe=observe,
        checkpoint=checkpoint,
    )
    return {"parameters": parameters, "rejected": rejected}, curve


SEARCHES = {"dream": {**SEARCH, "generations": 2}, "play": {**SEARCH, "world": "game", "generations": 6}}
refined = partial(controller, phases=SEARCHES | {"learn": {**PPO, "updates": 4}})
several = partial(controller, phases=SEARCHES | {"learn": {**PPO, "updates": 2, "runs": 2}}, episodes=8)
derived = partial(controller, phases=SEARCHES | {"learn": {**GRADIENT, "updates": 4}})


@pytest.mark.parametrize("train", [vision, joint, memory, controller, refined, several, derived])
def test_cut_off_twice_and_resumed_it_ends_with_the_same_bytes(train, frames, tmp_path):
    expected, expected_curve = train(frames, None, quiet)
    for at in (3, 10):
        with pytest.raises(CutOff):
            train(frames, Checkpoint(tmp_path / "state", "same"), killer(at))
    seen = []
    weights, curve = train(frames, Checkpoint(tmp_path / "state", "same"), lambda row: seen.append(next(iter(row.values()))))
    assert train not in (vision, joint, memory) or min(seen) >= 8, "the updates before the last checkpoint were not done again"
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    np.testing.assert_equal(curve, expected_curve)
    columns = [list(row) for row in curve]
    assert columns == [list(row) for row in expected_curve], "their order is part of the bytes"


def test_a_selection_that_was_cut_off_goes_on_with_the_round_that_it_was_in(tmp_path):
    expected, expected_curve = several(None, None, quiet)
    games = []

    def closing_after(plays):
        return lambda arena: games.append(Nightfall(arena, plays)) or games[-1]

    with pytest.raises(CutOff):
        several(None, Checkpoint(tmp_path / "state", "same"), quiet, game=closing_after(2))
    learned = []
    weights, curve = several(
        None, Checkpoint(tmp_path / "state", "same"), lambda row: learned.append(row["generation"]), game=closing_after(9)
    )
    seeds = [[seed for _, seeds in game.played for seed in seeds] for game in games]
    # Contestants after generations 1 (a phase ends), 2, 5, 7 (a phase ends), 8, 9 (a run ends), 11; of 7, 4 and 2 play on.
    assert [[many for many, _ in game.played] for game in games] == [[7, 4], [2]]
    assert [len(each) for each in seeds] == [4, 4]
    assert not set(seeds[0]) & set(seeds[1])
    assert not learned, "what was learned is not learned anew"
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    np.testing.assert_equal(curve, expected_curve)
    assert sorted(row["episodes"] for row in curve[UPDATES:]) == [2, 2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("pay", ["return", "hazard"])
def test_what_the_hazard_costs_is_no_return(pay):
    _, curve = controller(None, None, quiet, phases=SEARCHES | {"learn": {**PPO, "updates": 4, "pay": pay}})
    assert [("mean" in row, "reward" in row) for row in curve if row["phase"] == "learn"] == [(pay == "return", True)] * 4


def test_every_phase_and_run_closes_its_world(monkeypatch):
    closed, worlds = [], SmallWorlds()

    def close(world):
        closed.append(world)

    monkeypatch.setattr(DreamWorld, "close", close)
    several(None, None, quiet, worlds=worlds)
    assert list(map(id, closed)) == list(map(id, worlds.opened))
    assert len(closed) == 5  # dream, game, two runs of PPO, selection


def test_generations_that_were_played_are_not_played_again(tmp_path, monkeypatch):
    with pytest.raises(CutOff):
        controller(None, Checkpoint(tmp_path / "state", "same"), killer(8))
    played = []
    start = DreamWorld.start
    monkeypatch.setattr(DreamWorld, "start", lambda self, seeds: (played.append(seeds), start(self, seeds)))
    controller(None, Checkpoint(tmp_path / "state", "same"), quiet)
    assert len(played) == UPDATES - 8


def test_a_checkpoint_of_another_computation_is_left_alone(tmp_path, capsys):
    Checkpoint(tmp_path / "state", "one").save({"a": torch.ones(2)}, {"updates": 5})
    assert Checkpoint(tmp_path / "state", "two").load() == ({}, {})
    tensors, values = Checkpoint(tmp_path / "state", "one").load()
    assert (tensors["a"].tolist(), values) == ([1, 1], {"updates": 5})
    assert "going on from" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "flipped", "pickle"])
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path, capsys, damage):
    path = tmp_path / "state"
    Checkpoint(path, "one").save({"a": torch.ones(200)}, {"updates": 5})
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes({"truncated": content[:-50], "flipped": content, "pickle": b"\x80\x04K\x01."}[damage])
    assert Checkpoint(path, "one").load() == ({}, {})
    assert f"{path} is damaged" in capsys.readouterr().err


def test_where_no_checkpoint_can_be_written_the_stage_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    expected, _ = memory(None, None, quiet)
    weights, _ = memory(None, Checkpoint(tmp_path / "file" / "state", "one"), quiet)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert "no checkpoint" in capsys.readouterr().err


def test_a_selection_says_how_much_it_plays_and_how_far_it_is():
    announced, told = [], []

    def choosing(episodes):
        announced.append(episodes)
        return lambda steps, ended: told.append((steps, ended))

    section = ControllerSection(
        model={"features": "zh"},
        order=["dream"],
        phases={"dream": {**SEARCH, "generations": 4}},
        selection={"episodes": 8, "every": 1, "halvings": 2},
    )
    how = {"seed": 1, "stream": "s", "controller_seed": 0, "generations": range(4), "observe": lambda row: None}
    train_controller(section, SmallWorlds(), None, choosing=choosing, **how)
    assert announced == [4 * 2 + 2 * 2]  # then one is left, and need not play on
    assert sum(ended for _, ended in told) == announced[0]
    assert all(steps > 0 for steps, _ in told)
