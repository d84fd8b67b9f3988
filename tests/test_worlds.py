"""The dream and the real world, with networks: no episode depends on the lanes beside it."""

from copy import deepcopy
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from worldmodels.compute.compiled import compiled
from worldmodels.controller.model import ControllerConfig, Controllers, parameter_count
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.errors import ParamsError
from worldmodels.games.base import EnvStep
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.patience import PatientWorld
from worldmodels.rollout.policies import ScriptedConfig, ScriptedPolicy
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import DreamWorld, Replay, Starts
from worldmodels.worlds.pay import SurvivalPay, paid
from worldmodels.worlds.real import RealWorld


@pytest.fixture(scope="module")
def models():
    generator = torch.Generator().manual_seed(0)
    vision = Vision(VisionConfig(latent=4))
    memory = LSTMConfig(hidden=8).build(4, 1)
    initialise(vision, generator)
    initialise(memory, generator)
    memory.head.weight.data[-1] *= 8  # hazards that differ from step to step
    memory.head.bias.data[-1] = -3.0  # so that dreams end, but not at once
    return vision.eval(), memory.eval()


def controllers(count, inputs, features="zch"):
    config = ControllerConfig(features=features, hidden=0, bias=False)
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(count, parameter_count(config, inputs, 1), generator=generator)
    return ControllerPolicy(Controllers(config, parameters, inputs, 1))


def dream(models, **changes):
    vision, memory = models
    generator = torch.Generator().manual_seed(2)
    starts = Starts(torch.randn(5, 4, generator=generator), torch.zeros(5, 4))
    options = {"temperature": 1.0, "limit": 90} | changes
    return DreamWorld(memory, starts, "zch", vision=vision, **options)


def test_a_dream_does_not_depend_on_the_lane_layout(models):
    seeds = list(range(40))
    whole = run_episodes(dream(models), controllers(3, 20), seeds, candidates=3)
    few = run_episodes(dream(models), controllers(3, 20), seeds, candidates=3, lanes=7)
    backwards = run_episodes(dream(models), controllers(3, 20), seeds[::-1], candidates=3)
    assert len(np.unique(whole.length)) > 3, "the episodes must differ for this to show anything"
    np.testing.assert_array_equal(whole.total, few.total)
    np.testing.assert_array_equal(whole.total, backwards.total[:, ::-1])


def test_all_candidates_dream_the_same_episodes(models):
    policy = controllers(1, 20)
    policy.controllers.parameters = policy.controllers.parameters.expand(4, -1)
    returns = run_episodes(dream(models), policy, range(10), candidates=4)
    assert (returns.total == returns.total[:1]).all()


def test_a_dream_without_a_done_head_lasts_to_its_limit():
    memory = LSTMConfig(hidden=8, done=False, reward="event").build(4, 1)
    initialise(memory, torch.Generator().manual_seed(0))
    memory.rewards.copy_(torch.tensor([-0.1, 3.0, 0.0]))
    world = DreamWorld(memory, Starts(torch.zeros(1, 4), torch.zeros(1, 4)), "zh", temperature=1.0, limit=12)
    returns = run_episodes(world, controllers(1, 12, "zh"), [1, 2, 3])
    assert (returns.length == 12).all()
    assert not returns.terminal.any()
    assert len(np.unique(returns.total)) == 3, "the reward is M's, not a constant"


def test_temperature_changes_the_dream_and_the_same_temperature_does_not(models):
    totals = [run_episodes(dream(models, temperature=t), controllers(1, 20), range(20)).total for t in (1.0, 1.0, 0.1)]
    np.testing.assert_array_equal(totals[0], totals[1])
    assert (totals[0] != totals[2]).any()


def test_a_sampled_end_comes_as_often_as_it_is_predicted_and_a_threshold_never_below_one_half():
    lengths = {}
    for ending in ("sampled", "threshold"):
        memory = LSTMConfig(hidden=4, ending=ending).build(2, 1)
        memory.head.bias.data[-1] = float(np.log(0.05 / 0.95))
        world = DreamWorld(memory, Starts(torch.zeros(1, 2), torch.zeros(1, 2)), "zh", temperature=1.0, limit=400)
        returns = run_episodes(world, controllers(1, 6, "zh"), range(600))
        lengths[ending] = returns.length
    assert (lengths["threshold"] == 400).all()
    assert lengths["sampled"].mean() == pytest.approx(20, abs=4 * 20 / 600**0.5)  # geometric: 1/p, standard deviation about 1/p


def test_expected_returns_have_the_mean_of_sampled_ones_and_less_noise():
    memory = LSTMConfig(hidden=8).build(4, 1)
    initialise(memory, torch.Generator().manual_seed(0))
    memory.head.weight.data[-1] *= 8  # risks that differ from step to step
    memory.head.bias.data[-1] = -3.0
    starts = Starts(torch.zeros(1, 4), torch.zeros(1, 4))
    total = {}
    for name, wrapped in {"sampled": lambda world: world, "expected": partial(SurvivalPay, floor=1e-6)}.items():
        world = wrapped(DreamWorld(memory, starts, "zch", temperature=1.0, limit=400))
        total[name] = run_episodes(world, controllers(1, 20), range(600)).total
    sampled, expected = total.values()
    assert expected.mean() == pytest.approx(sampled.mean(), abs=4 * sampled.std() / 600**0.5)
    assert 0 < expected.std() < 0.5 * sampled.std()


def test_a_step_that_lasts_four_tics_is_worth_four_in_the_dream_too():
    memory = LSTMConfig(hidden=4).build(2, 1)
    memory.head.bias.data[-1] = -30.0  # nobody dies
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    for pay in ("return", "survival"):
        world = paid(DreamWorld(memory, starts, "zch", temperature=1.0, limit=25, worth=4), pay)
        assert run_episodes(world, controllers(1, 10), range(2)).total == pytest.approx(100.0)


def test_if_the_hazard_is_paid_nobody_dies_and_a_step_costs_its_hazard():
    memory = LSTMConfig(hidden=8).build(4, 1)
    memory.head.bias.data[-1] = float(np.log(0.2 / 0.8))  # one in five dies at every step
    starts = Starts(torch.zeros(1, 4), torch.zeros(1, 4))
    world = paid(DreamWorld(memory, starts, "zch", temperature=1.0, limit=25, worth=4), "hazard", hazard_cost=10.0)
    returns = run_episodes(world, controllers(1, 20), range(6))
    assert (returns.length == 25).all()
    assert not returns.terminal.any()
    assert returns.total == pytest.approx(-10.0 * 0.2 * 25)


def test_a_dream_is_over_where_it_has_earned_its_goal_whether_deaths_are_sampled_or_expected():
    memory = LSTMConfig(hidden=4, reward="event").build(2, 1)
    memory.head.bias.data[-2:] = torch.tensor([30.0, -4.0])  # every step is an event, with an end in 2 % of them
    memory.rewards.copy_(torch.tensor([0.0, 2.0, 2.0]))
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    for pay in ("return", "survival"):
        limited = {}
        for goal in (0.0, 21.0):
            world = paid(DreamWorld(memory, starts, "zh", temperature=1.0, limit=50), pay, goal=goal)
            limited[goal] = run_episodes(world, controllers(1, 6, "zh"), range(60))
        free, won = limited.values()
        assert won.length.max() == 11
        assert free.length.max() == 50
        np.testing.assert_array_equal(won.length, np.minimum(free.length, 11))  # nothing else changes
        assert won.terminal[won.length == 11].all()
        if pay == "survival":
            assert won.total == pytest.approx(sum(2 * (1 - 1 / (1 + np.exp(4))) ** k for k in range(11)))


def test_what_every_step_costs_does_not_keep_a_dream_from_its_goal_but_counts_in_its_return():
    memory = LSTMConfig(hidden=4, done=False, reward="event").build(2, 1)
    memory.head.bias.data[-1] = 30.0  # every step is an event
    memory.rewards.copy_(torch.tensor([-0.5, 1.5, -0.5]))
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    world = paid(DreamWorld(memory, starts, "zh", temperature=1.0, limit=50), "return", goal=20.0)
    returns = run_episodes(world, controllers(1, 6, "zh"), range(3))
    assert (returns.length == 10).all()  # 2 points each for what is found, not the 1.5 that is left of them
    assert returns.total == pytest.approx(15.0)


def test_a_dream_from_the_middle_of_an_episode_begins_with_what_m_remembers_of_it(models):
    _, memory = models
    generator = torch.Generator().manual_seed(3)
    first = torch.zeros(50, dtype=torch.bool)
    first[[0, 9, 30]] = True  # episodes of 9, 21 and 20 frames
    latents = {
        "mean": torch.randn(50, 4, generator=generator),
        "action": torch.randn(50, 1, generator=generator),
        "first": first,
    }
    latents["log_variance"] = torch.full((50, 4), -30.0)
    replay = Replay.of(latents, share=1.0, context=12, newest=50)
    assert replay.rows.tolist() == [*range(21, 30), *range(42, 50)]
    assert Replay.of(latents, share=1.0, context=12, newest=6).rows.tolist() == [*range(44, 50)]
    world = DreamWorld(memory, replay, "zch", temperature=1.0, limit=5)
    world.start(range(40))
    features = world.features()
    row = [int((latents["mean"] - z).abs().sum(1).argmin()) for z in features[:, :4]]
    assert set(row) <= set(replay.rows.tolist())
    for lane in (0, 7, 39):
        past = slice(row[lane] - 12, row[lane])
        restart = torch.zeros(1, 12, dtype=torch.bool)
        _, state = memory.observe(latents["mean"][None, past], latents["action"][None, past], restart, memory.initial_state(1))
        torch.testing.assert_close(features[lane, 4:], memory.features("zch", state)[0])
    with pytest.raises(ParamsError, match="context"):
        Replay.of(latents, share=1.0, context=21, newest=50)


def test_dreams_begin_at_first_frames_and_at_moments_by_their_share():
    memory = LSTMConfig(hidden=8).build(latent=4, action=1)
    initialise(memory, torch.Generator().manual_seed(0))
    latents = {"mean": torch.arange(40.0)[:, None] * torch.ones(4), "action": torch.zeros(40, 1)}
    latents |= {"log_variance": torch.full((40, 4), -60.0), "first": torch.arange(40) % 20 == 0}
    world = DreamWorld(memory, Replay.of(latents, share=0.3, context=5, newest=40), "zch", temperature=1.0, limit=5)
    world.start(range(1000))
    row, remembered = world.features()[:, 0].round().int() % 20, world.features()[:, 4:].abs().sum(1)
    inside = row > 0
    assert set(row[inside].tolist()) == set(range(5, 20))
    assert bool((remembered[inside] > 0).all())
    assert not bool(remembered[~inside].any())
    assert abs(float(inside.float().mean()) - 0.3) < 0.05


class MovingPicture:
    """A game of noise frames: what it shows depends on the seed and all actions so far."""

    action_size = 1
    limit = 30
    preset = backend = "test"

    def __init__(self):
        self.lanes = []

    def _frame(self, lane):
        return np.random.default_rng([lane[0], lane[1], lane[2]]).integers(0, 256, (64, 64, 3), np.uint8)

    def start(self, seeds):
        fresh = [[seed, 0, 0] for seed in seeds]
        self.lanes += fresh
        return np.stack([self._frame(lane) for lane in fresh])

    def step(self, actions):
        for lane, action in zip(self.lanes, actions, strict=True):
            lane[1] += 1
            lane[2] += int(action[0] > 0)
        frames = np.stack([self._frame(lane) for lane in self.lanes])
        rewards = np.array([lane[2] for lane in self.lanes], np.float32)
        terminal = np.array([lane[1] >= lane[0] % 9 + 5 for lane in self.lanes])
        return EnvStep(frames, rewards, terminal, np.zeros(len(self.lanes), bool))

    def keep(self, lanes):
        self.lanes = [self.lanes[lane] for lane in lanes]

    def close(self):
        pass


@pytest.mark.parametrize("features", ["z", "zh", "zch"])
def test_reality_does_not_depend_on_the_lane_layout(models, features):
    vision, memory = models
    size = {"z": 4, "zh": 12, "zch": 20}[features]

    def play(lanes, seeds):
        world = RealWorld(MovingPicture(), vision, memory, features)
        assert world.feature_size == size
        return run_episodes(world, controllers(2, size, features), seeds, candidates=2, lanes=lanes)

    seeds = list(range(12))
    whole, few, one = play(None, seeds), play(5, seeds), play(1, seeds[3:4])
    np.testing.assert_array_equal(whole.total, few.total)
    np.testing.assert_array_equal(whole.total[:, 3:4], one.total)


def test_if_the_hazard_is_paid_the_game_costs_what_m_fears_and_a_death_is_cut_off(models):
    vision, memory = models
    memory = deepcopy(memory)
    memory.head.weight.data[-1] = 0
    memory.head.bias.data[-1] = float(np.log(0.2 / 0.8))  # M fears one death in five steps, whatever it sees
    seeds = list(range(12))
    plain, told = (
        run_episodes(paid(RealWorld(MovingPicture(), vision, memory, "zch"), pay, hazard_cost=10), controllers(1, 20), seeds)
        for pay in ("return", "hazard")
    )
    np.testing.assert_array_equal(told.length, plain.length)
    assert plain.terminal.all()
    assert not told.terminal.any()
    np.testing.assert_allclose(told.total, -10.0 * 0.2 * told.length, rtol=1e-5)


def test_what_m_does_not_foretell_is_not_paid(models):
    vision, memory = models
    endless = LSTMConfig(hidden=8, done=False).build(4, 1)
    dreamt = DreamWorld(endless, Starts(torch.zeros(1, 4), torch.zeros(1, 4)), "zh", temperature=1.0, limit=9)
    blind, played = RealWorld(MovingPicture(), vision, memory, "z"), RealWorld(MovingPicture(), vision, endless, "zh")
    for world, pay in product((dreamt, blind, played), ("survival", "hazard")):
        with pytest.raises(ValueError, match="done head"):
            paid(world, pay, hazard_cost=10)
    with pytest.raises(ValueError, match="above 0"):
        paid(RealWorld(MovingPicture(), vision, memory, "zh"), "hazard")


@pytest.mark.parametrize(("pay", "goal"), [("return", 9.0), ("survival", 0.0), ("survival", 9.0), ("hazard", 9.0)])
def test_what_c_is_paid_does_not_depend_on_the_lanes_beside_it(models, pay, goal):
    def play(seeds, lanes=None):
        return run_episodes(
            paid(dream(models), pay, hazard_cost=3.0, goal=goal), controllers(2, 20), seeds, candidates=2, lanes=lanes
        )

    whole, few, one = play(range(20)), play(range(20), 7), play([13])
    assert len(np.unique(whole.total)) > 3, "the episodes must differ for this to show anything"
    for name in ("total", "length", "terminal"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(few, name))
        np.testing.assert_array_equal(getattr(whole, name)[:, 13:14], getattr(one, name))


def test_an_episode_is_over_where_it_is_as_good_as_sure_that_it_has_ended():
    memory = LSTMConfig(hidden=4).build(2, 1)
    memory.head.bias.data[-1] = 0.0  # one in two dies at every step
    world = DreamWorld(memory, Starts(torch.zeros(1, 2), torch.zeros(1, 2)), "zh", temperature=1.0, limit=50)
    returns = run_episodes(paid(world, "survival"), controllers(1, 6, "zh"), range(3))
    assert (returns.length == 5).all()  # 1/32 is less than 0.05
    assert returns.terminal.all()
    assert returns.total == pytest.approx(1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16)


def test_a_wrapped_world_tells_what_m_sees_and_fears(models):
    for open_world in (lambda: dream(models), lambda: RealWorld(MovingPicture(), *models, "zch")):
        plain, wrapped = open_world(), PatientWorld(paid(open_world(), "survival", goal=99.0), 50)
        for world in (plain, wrapped):
            world.start([3, 4, 5])
            world.step(torch.tensor([[1.0], [-1.0], [0.5]]))
            world.keep(torch.tensor([0, 2]))
        for name in ("latents", "state", "hazard", "features"):
            assert torch.equal(getattr(plain, name)(), getattr(wrapped, name)())
        assert torch.equal(plain.features(), torch.cat([plain.latents(), models[1].features("zch", plain.state())], 1))
        assert bool((plain.hazard() >= 0).all())


def test_a_compiled_dream_is_the_same_dream():
    memory = LSTMConfig(hidden=16, reward="event").build(latent=16, action=1)
    initialise(memory, torch.Generator().manual_seed(2))
    memory.rewards.copy_(torch.tensor([-0.1, 3.0, 0.0]))
    starts = Starts(torch.zeros(1, 16), torch.zeros(1, 16))
    options = {"temperature": 1.1, "limit": 30}
    policy = ScriptedPolicy(ScriptedConfig(name="x", first=[1.0], second=[-1.0], period=3))
    plain, fused = (
        run_episodes(paid(DreamWorld(memory, starts, "zch", fused=fused, **options), "survival"), policy, range(24)).total
        for fused in (False, True)
    )
    assert not (plain == 0).all()
    np.testing.assert_allclose(fused, plain, rtol=1e-3)
    alone = run_episodes(paid(DreamWorld(memory, starts, "zch", fused=True, **options), "survival"), policy, [17]).total
    assert alone[0, 0] == fused[0, 17]


def test_what_cannot_be_compiled_runs_as_it_is(capsys, monkeypatch):
    def broken(*_, **__):
        def fast(x):
            raise RuntimeError("no C++ compiler")

        return fast

    monkeypatch.setattr(torch, "compile", broken)
    double = compiled(lambda x: 2 * x)
    assert double(torch.ones(1)) == double(torch.ones(1)) == 2
    assert capsys.readouterr().err.count("no C++ compiler") == 1


def test_a_dream_that_begins_in_the_middle_ends_with_the_episode():
    memory = new_memory(LSTMConfig(hidden=8, done=False, clock=10), latent=4, action=1, seed=0)
    latents = {"mean": torch.zeros(9, 4), "log_variance": torch.zeros(9, 4), "action": torch.zeros(9, 1)}
    latents["first"] = torch.arange(9) == 0
    world = DreamWorld(memory, Replay.of(latents, share=1.0, context=6, newest=9), "zch", temperature=1.0, limit=12)
    world.start([0, 1, 2, 3])
    begun = world.features()[:, 4 + 7] * 10  # the last cell
    assert set(begun.round().int().tolist()) <= {6, 7, 8}
    world.step(torch.zeros(len(begun), 1))
    torch.testing.assert_close(world.features()[:, 4 + 7] * 10, begun + 1)
