"""A computation that is cut off and goes on gives the same bytes as one that was left alone."""

from functools import partial
from itertools import count

import numpy as np
import pytest
import torch

from worldmodels.controller.arena import WorldArena
from worldmodels.controller.model import ControllerConfig
from worldmodels.controller.phases.cmaes import EvolutionConfig
from worldmodels.controller.phases.config import DreamPhase, GradientPhase, MomentsConfig, PPOPhase, RealPhase
from worldmodels.controller.phases.ppo import Refinement
from worldmodels.controller.phases.value_gradient import ValueGradients
from worldmodels.controller.selection import SelectionConfig
from worldmodels.controller.training import ControllerTraining, train_controller
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.prediction import MemoryLossConfig
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.shapes import Episode
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_json
from worldmodels.vision.model import VisionConfig, VisionLossConfig
from worldmodels.vision.training import VisionTraining, new_vision, train_vision
from worldmodels.worlds.dream import DreamWorld, Starts

UPDATES = 12


class CutOff(Exception):
    """Stands for a kill: nothing after it runs."""


def killer(at):
    def observe(metrics, step):
        if step == at:
            raise CutOff

    return observe


def quiet(metrics, step):
    """Observe nothing."""


@pytest.fixture(autouse=True)
def always_due(monkeypatch):
    monkeypatch.setenv("WM_CHECKPOINT_SECONDS", "0")


def optimiser():
    return OptimiserConfig(
        updates=UPDATES,
        warm_updates=1,
        batch=8,
        learning_rate=1e-2,
        warm_learning_rate=1e-3,
        final_learning_rate=1e-3,
        clip=100.0,
    )


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


def vision(frames, checkpoint, observe):
    loss = VisionLossConfig(kl_tolerance=0.5, pixel_weight=1.0)
    config = VisionTraining(model=VisionConfig(latent=4), loss=loss, optimiser=optimiser(), warm_start=False, refresh=0.0)
    model = new_vision(config.model, 1)
    curve = train_vision(
        model, FrameReader(frames), config, seed=1, updates=range(UPDATES), observe=observe, checkpoint=checkpoint
    )
    return model.state_dict(), curve


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
    config = MemoryTraining(
        model=LSTMConfig(hidden=8, reward="event"),
        loss=MemoryLossConfig(done_weight=1.0, end_weight=1.0, reward_weight=1.0),
        optimiser=optimiser(),
        sequence=12,
    )
    model = new_memory(config.model, 3, 1, 1)
    curve = train_memory(model, rows, config, seed=1, updates=range(UPDATES), observe=observe, checkpoint=checkpoint)
    return model.state_dict(), curve


class Nightfall:
    """A place to play that closes for good, and counts who played."""

    def __init__(self, arena, plays):
        self.arena, self.plays, self.played = arena, plays, []
        self.feature_size, self.action_size, self.close = arena.feature_size, arena.action_size, arena.close

    def play(self, config, candidates, seeds, lanes):
        if len(self.played) == self.plays:
            raise CutOff
        self.played.append((len(candidates), list(seeds)))
        return self.arena.play(config, candidates, seeds, lanes)


def controller(_, checkpoint, observe, learned=0, runs=1, risk=0.0, game=None, gradient=False):
    shape = ControllerConfig(features="zh", hidden=0, bias=True)
    alike = {
        "critic_generations": 1,
        "lanes": 2,
        "limit": 10,
        "patience": 0,
        "epochs": 2,
        "batch": 5,
        "learning_rate": 0.01,
        "final_learning_rate": 0.0,
        "discount": 0.9,
        "noise": 0.5,
    }
    graded = GradientPhase(
        generations=learned if gradient else 0,
        runs=1,
        goal=0,
        updates=2,
        horizon=3,
        pay=0.0,
        drought=0.0,
        drought_steps=1,
        risk=1.0,
        loss=1.0,
        hard=0.5,
        peril=0.5,
        remembered=2,
        **alike,
    )
    ppo = PPOPhase(world="real", generations=0 if gradient else learned // runs, runs=runs, risk=risk, **alike)
    config = ControllerTraining(
        model=shape,
        evolution=EvolutionConfig(
            population=5, sigma=0.5, warm_sigma=0.5, covariance="full", components=2, warm_components=2, seed=0
        ),
        dream=DreamPhase(
            generations=UPDATES // 2 - learned,
            rollouts=2,
            limit=20,
            temperature=1.0,
            survival=0.0,
            goal=0.0,
            moments=MomentsConfig(share=0.5, random_play=False, context=3, newest=1000),
        ),
        real=RealPhase(generations=UPDATES // 2, rollouts=2, limit=30, lanes=10, patience=0, sigma=0.1),
        ppo=ppo,
        gradient=graded,
        selection=SelectionConfig(episodes=8 if runs > 1 else 0, every=3, halvings=2, limit=30, lanes=10),
        games="training",
        warm_start=False,
    )
    dreamer = LSTMConfig(hidden=4).build(3, 1)
    initialise(dreamer, torch.Generator().manual_seed(0))

    def open_world(limit, features="zh"):
        starts = Starts(torch.zeros(1, 3), torch.zeros(1, 3))
        return DreamWorld(dreamer, starts, features, temperature=1.0, limit=limit)

    def open_learner(start, run):
        begin = np.full(8, 0.1 * run) if start is None else start
        seed = partial(int.__add__, 5 + 100 * run)
        if gradient:
            seen = np.random.default_rng(0).normal(size=(30, 7))
            how = {"seed": seed, "episodes": lambda g: count(100 * g)}
            return ValueGradients(graded, shape, open_world(7, "zch"), dreamer, begin, seen, **how)
        return Refinement(ppo, shape, open_world(7), begin, seed=seed, episodes=lambda g: count(100 * g))

    def open_arena(of):
        arena = WorldArena(open_world(of.limit))
        return game(arena) if game and isinstance(of, SelectionConfig) else arena

    parameters, rejected, curve = train_controller(
        config,
        open_arena,
        None,
        np.eye(2, 7),
        seed=1,
        stream="s",
        generations=range(UPDATES),
        observe=observe,
        checkpoint=checkpoint,
        open_learner=open_learner,
    )
    return {"parameters": parameters, "rejected": rejected}, curve


refined = partial(controller, learned=4)
several = partial(controller, learned=4, runs=2)
derived = partial(controller, learned=4, gradient=True)


@pytest.mark.parametrize("train", [vision, memory, controller, refined, several, derived])
def test_cut_off_twice_and_resumed_it_ends_with_the_same_bytes(train, frames, tmp_path):
    expected, expected_curve = train(frames, None, quiet)
    for at in (3, 10):
        with pytest.raises(CutOff):
            train(frames, Checkpoint(tmp_path / "state", "same"), killer(at))
    seen = []
    weights, curve = train(frames, Checkpoint(tmp_path / "state", "same"), lambda _, step: seen.append(step))
    assert train not in (vision, memory) or min(seen) >= 8, "the updates before the last checkpoint were not done again"
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
        None, Checkpoint(tmp_path / "state", "same"), lambda _, g: learned.append(g), game=closing_after(9)
    )
    seeds = [[seed for _, seeds in game.played for seed in seeds] for game in games]
    # Contestants after generations 2, 5, 8, 9 (a run ends), 11; of 5, 3 and 2 play 2, 4 and 8 episodes in all.
    assert [[many for many, _ in game.played] for game in games] == [[5, 3], [2]]
    assert [len(each) for each in seeds] == [4, 4]
    assert not set(seeds[0]) & set(seeds[1])
    assert max(learned) == 7, "PPO learned anew"
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert curve == expected_curve
    assert sorted(row["episodes"] for row in curve[UPDATES:]) == [2, 2, 4, 8, 8]


@pytest.mark.parametrize("risk", [0.0, 1.0])
def test_what_risks_cost_is_no_return(risk):
    _, curve = controller(None, None, quiet, learned=4, risk=risk)
    assert [("mean" in row, "reward" in row) for row in curve if row["phase"] == "ppo"] == [(risk == 0, True)] * 4


def test_every_phase_and_run_closes_its_world(monkeypatch):
    closed = []

    def close(world):
        closed.append(world)

    monkeypatch.setattr(DreamWorld, "close", close)
    several(None, None, quiet)
    assert len(set(map(id, closed))) == len(closed) == 5  # dream, game, two runs of PPO, selection


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
