"""Worlds and the one rollout loop: every lane, refill and compaction, without and with networks."""

import numpy as np
import pytest
import torch

from worldmodels.engine.calibration import calibrate
from worldmodels.engine.dream import DreamWorld, Replay, Starts
from worldmodels.engine.driver import ControllerPolicy
from worldmodels.engine.evaluation import CalibrationConfig
from worldmodels.engine.noise import EpisodeNoise
from worldmodels.engine.patience import PatientWorld, cut_when_decided
from worldmodels.engine.policies import ExploringPolicy, RandomPolicy, RandomPolicyConfig, ScriptedConfig, ScriptedPolicy
from worldmodels.engine.real import RealWorld
from worldmodels.engine.recorders import EpisodeRecorder
from worldmodels.engine.rollout import run_episodes
from worldmodels.engine.world import Step
from worldmodels.envs.base import EnvStep
from worldmodels.errors import ParamsError
from worldmodels.models.compiled import compiled
from worldmodels.models.controller import ControllerConfig, Controllers, parameter_count
from worldmodels.models.initialisation import initialise
from worldmodels.models.memory import Memory, MemoryConfig
from worldmodels.models.vision import Vision, VisionConfig
from worldmodels.shapes import Episode, Job


class CountingWorld:
    """Feature: steps taken. Reward: the seed. An episode lasts ``seed % 7 + 1`` steps, and is truncated if that is 7."""

    feature_size = 1
    action_size = 1

    def __init__(self):
        self.seeds = torch.zeros(0)
        self.taken = torch.zeros(0)
        self.most = 0

    def start(self, seeds):
        self.seeds = torch.cat([self.seeds, torch.tensor(seeds, dtype=torch.float32)])
        self.taken = torch.cat([self.taken, torch.zeros(len(seeds))])
        self.most = max(self.most, len(self.seeds))

    def features(self):
        return self.taken[:, None]

    def frames(self):
        return np.broadcast_to(self.taken.numpy().astype(np.uint8)[:, None, None, None], (len(self.taken), 64, 64, 3))

    def step(self, actions):
        assert torch.equal(actions[:, 0], self.taken), "an action reached another lane than its own"
        self.taken = self.taken + 1
        over = self.taken >= self.seeds % 7 + 1
        truncated = over & (self.seeds % 7 == 6)
        return Step(self.seeds.clone(), over & ~truncated, truncated)

    def keep(self, lanes):
        self.seeds, self.taken = self.seeds[lanes], self.taken[lanes]

    def close(self):
        pass


class Echo:
    """Acts its feature, and checks that it is told of every lane that comes and goes."""

    def __init__(self):
        self.jobs = []

    def start(self, jobs):
        self.jobs += jobs

    def act(self, features):
        assert len(features) == len(self.jobs)
        return features

    def keep(self, lanes):
        self.jobs = [self.jobs[lane] for lane in lanes.tolist()]


@pytest.mark.parametrize("lanes", [None, 1, 2, 5, 100])
@pytest.mark.parametrize("candidates", [1, 3])
def test_every_episode_is_played_once_to_its_end_whatever_the_lanes(lanes, candidates):
    seeds = list(range(20))
    world = CountingWorld()
    returns = run_episodes(world, Echo(), seeds, candidates=candidates, lanes=lanes)
    length = np.array(seeds) % 7 + 1
    assert returns.total.shape == (candidates, 20)
    np.testing.assert_array_equal(returns.length, np.tile(length, (candidates, 1)))
    np.testing.assert_array_equal(returns.total, np.tile(length * np.array(seeds), (candidates, 1)))
    np.testing.assert_array_equal(returns.terminal, np.tile(np.array(seeds) % 7 != 6, (candidates, 1)))
    assert world.most <= min(lanes or 10**9, 20 * candidates)
    assert returns.steps == int(length.sum()) * candidates


@pytest.mark.parametrize("lanes", [None, 3])
def test_a_recorder_sees_every_frame_action_and_reward_of_an_episode(lanes):
    episodes = []
    run_episodes(CountingWorld(), Echo(), [4, 9, 13], lanes=lanes, recorder=EpisodeRecorder(episodes.append))
    assert sorted(episode.seed for episode in episodes) == [4, 9, 13]
    for episode in episodes:
        steps = episode.seed % 7 + 1
        assert episode.frames.shape == (steps + 1, 64, 64, 3)
        assert episode.frames[:, 0, 0, 0].tolist() == list(range(steps + 1))
        assert episode.actions[:, 0].tolist() == list(range(steps))
        assert episode.rewards.tolist() == [episode.seed] * steps
        assert episode.terminal == (episode.seed != 13)


def test_noise_belongs_to_the_episode_not_to_the_lane():
    alone = EpisodeNoise("test", 3)
    alone.start([7])
    expected = torch.stack([alone.draw()[0] for _ in range(150)])
    crowd = EpisodeNoise("test", 3)
    crowd.start([1, 7, 7])
    seen = []
    for step in range(150):
        if step == 70:
            crowd.start([8])
            crowd.draw(3)
        if step == 100:
            crowd.keep(torch.tensor([1, 3]))
        row = 1 if step < 100 else 0
        seen.append(crowd.draw()[row])
    assert torch.equal(torch.stack(seen), expected)
    assert abs(expected.mean()) < 0.3
    assert 0.8 < expected.std() < 1.2


@pytest.fixture(scope="module")
def models():
    generator = torch.Generator().manual_seed(0)
    vision = Vision(VisionConfig(latent=4))
    memory = Memory(MemoryConfig(hidden=8, mixtures=3, done=True, reward=False), 4, 1)
    initialise(vision, generator)
    initialise(memory, generator)
    memory.head.bias.data[-1] = -0.3  # so that dreams end, but not at once
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


def test_a_dream_without_a_done_head_lasts_to_its_limit(models):
    memory = Memory(MemoryConfig(hidden=8, mixtures=3, done=False, reward="value"), 4, 1)
    initialise(memory, torch.Generator().manual_seed(0))
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
        memory = Memory(MemoryConfig(hidden=4, mixtures=1, done=True, reward=False, ending=ending), 2, 1)
        memory.head.bias.data[-1] = float(np.log(0.05 / 0.95))
        world = DreamWorld(memory, Starts(torch.zeros(1, 2), torch.zeros(1, 2)), "zh", temperature=1.0, limit=400)
        returns = run_episodes(world, controllers(1, 6, "zh"), range(600))
        lengths[ending] = returns.length
    assert (lengths["threshold"] == 400).all()
    assert lengths["sampled"].mean() == pytest.approx(20, abs=4 * 20 / 600**0.5)  # geometric: 1/p, standard deviation about 1/p


def test_expected_returns_have_the_mean_of_sampled_ones_and_less_noise():
    memory = Memory(MemoryConfig(hidden=8, mixtures=2, done=True, reward=False, ending="sampled"), 4, 1)
    initialise(memory, torch.Generator().manual_seed(0))
    memory.head.weight.data[-1] *= 8  # risks that differ from step to step
    memory.head.bias.data[-1] = -3.0
    starts = Starts(torch.zeros(1, 4), torch.zeros(1, 4))
    total = {}
    for survival in (0.0, 1e-6):
        world = DreamWorld(memory, starts, "zch", temperature=1.0, limit=400, survival=survival)
        total[survival] = run_episodes(world, controllers(1, 20), range(600)).total
    sampled, expected = total.values()
    assert expected.mean() == pytest.approx(sampled.mean(), abs=4 * sampled.std() / 600**0.5)
    assert 0 < expected.std() < 0.5 * sampled.std()


def test_a_dream_is_over_where_it_has_earned_its_goal_whether_deaths_are_sampled_or_expected():
    memory = Memory(MemoryConfig(hidden=4, mixtures=1, done=True, reward="value", ending="sampled"), 2, 1)
    memory.head.bias.data[-2:] = torch.tensor([2.0, -4.0])  # 2 points a step, an end in 2 % of them
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    for survival in (0.0, 0.1):
        limited = {}
        for goal in (0.0, 21.0):
            world = DreamWorld(memory, starts, "zh", temperature=1.0, limit=50, survival=survival, goal=goal)
            limited[goal] = run_episodes(world, controllers(1, 6, "zh"), range(60))
        free, won = limited.values()
        assert won.length.max() == 11
        assert free.length.max() == 50
        np.testing.assert_array_equal(won.length, np.minimum(free.length, 11))  # nothing else changes
        assert won.terminal[won.length == 11].all()
        if survival:
            assert won.total == pytest.approx(sum(2 * (1 - 1 / (1 + np.exp(4))) ** k for k in range(11)))


def test_what_every_step_costs_does_not_keep_a_dream_from_its_goal_but_counts_in_its_return():
    memory = Memory(MemoryConfig(hidden=4, mixtures=1, done=False, reward="event", ending="sampled"), 2, 1)
    memory.head.bias.data[-1] = 30.0  # every step is an event
    memory.rewards.copy_(torch.tensor([-0.5, 1.5, -0.5]))
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    world = DreamWorld(memory, starts, "zh", temperature=1.0, limit=50, goal=20.0)
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
        torch.testing.assert_close(features[lane, 4:], torch.cat([state.c, state.h], 1)[0])
    with pytest.raises(ParamsError, match="context"):
        Replay.of(latents, share=1.0, context=21, newest=50)


def test_dreams_begin_at_first_frames_and_at_moments_by_their_share():
    memory = Memory(MemoryConfig(hidden=8, mixtures=2, done=True, reward=False), latent=4, action=1)
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


def random_config(**changes):
    return RandomPolicyConfig(**{"holds": [1, 20], "walks": [0.0], "mean": [0.0], "scale": [1.0], "bias": [0.5]} | changes)


def test_random_actions_depend_on_the_seed_alone_are_held_and_stay_in_range():
    def actions(seeds, lane, config, steps=400):
        policy = RandomPolicy(config)
        policy.start([Job(0, seed) for seed in seeds])
        return np.array([policy.act(torch.zeros(len(seeds), 0))[lane, 0].item() for _ in range(steps)])

    held = actions([3], 0, random_config(holds=[20]))
    np.testing.assert_array_equal(held, actions([1, 3], 1, random_config(holds=[20])))
    assert abs(held).max() <= 1
    changes = (np.diff(held) != 0).sum()
    assert 25 < changes < 60, "400 steps with holds of 1 to 20 have 38 changes on average"
    assert (np.diff(actions([3], 0, random_config(holds=[1], bias=[0.0]))) != 0).all()


def test_a_walk_wanders_with_the_same_spread_and_an_episode_keeps_its_way():
    def actions(walk, seed=3):
        policy = RandomPolicy(random_config(holds=[1], walks=[walk], bias=[0.0], scale=[0.3]))
        policy.start([Job(0, seed)])
        return np.array([policy.act(torch.zeros(1, 0)).item() for _ in range(4000)])

    fresh, walked = actions(0.0), actions(0.95)
    assert abs(np.corrcoef(fresh[1:], fresh[:-1])[0, 1]) < 0.05
    assert np.corrcoef(walked[1:], walked[:-1])[0, 1] > 0.9
    assert walked.std() == pytest.approx(fresh.std(), rel=0.15)
    labels = {RandomPolicy(random_config(walks=[0.0, 0.9])).label(seed) for seed in range(20)}
    assert labels == {"random, walk 0", "random, walk 0.9"}
    loud = ExploringPolicy(Echo(), RandomPolicy(random_config()), [0.0, 0.5])
    for seed in range(8):
        lane = ExploringPolicy(Echo(), RandomPolicy(random_config()), [0.0, 0.5])
        lane.start([Job(0, seed)])
        undisturbed = torch.equal(lane.act(torch.tensor([[0.25]])), torch.tensor([[0.25]]))
        assert loud.label(seed) == ("strength 0" if undisturbed else "strength 0.5")


def test_exploration_of_strength_zero_is_the_policy_itself():
    base, random = Echo(), RandomPolicy(random_config())
    policy = ExploringPolicy(base, random, [0.0])
    policy.start([Job(0, 1), Job(0, 2)])
    features = torch.tensor([[0.25], [-0.5]])
    assert torch.equal(policy.act(features), features)
    loud = ExploringPolicy(Echo(), RandomPolicy(random_config()), [1.0])
    loud.start([Job(0, 1), Job(0, 2)])
    assert not torch.equal(loud.act(features), features)


def test_a_patient_world_ends_an_episode_that_is_not_paid_for_so_long_whatever_lane_it_is_in():
    class Unpaid:
        """Episodes are paid at their second step where the seed is even, and never end."""

        feature_size, action_size = 1, 1
        seeds = played = torch.zeros(0, dtype=torch.int64)

        def start(self, seeds):
            self.seeds = torch.cat([self.seeds, torch.tensor(seeds)])
            self.played = torch.cat([self.played, torch.zeros(len(seeds), dtype=torch.int64)])

        def features(self):
            return torch.zeros(len(self.seeds), 1)

        def step(self, actions):
            self.played = self.played + 1
            never = torch.zeros(len(self.seeds), dtype=torch.bool)
            return Step(torch.where((self.seeds % 2 == 0) & (self.played == 2), 3.0, -0.1), never, self.played >= 6)

        def keep(self, lanes):
            self.seeds, self.played = self.seeds[lanes], self.played[lanes]

    policy = ScriptedPolicy(ScriptedConfig(name="still", first=[0.0], second=[0.0], period=1))
    for lanes in (1, 3, None):
        returns = run_episodes(PatientWorld(Unpaid(), 4), policy, range(5), lanes=lanes)
        assert returns.length.tolist() == [[6, 4, 6, 4, 6]]
        assert returns.terminal.all()
        assert returns.total[0] == pytest.approx([2.5, -0.4, 2.5, -0.4, 2.5])
    short = run_episodes(PatientWorld(Unpaid(), 5), policy, range(5))
    assert short.terminal.tolist() == [[False, True, False, True, False]]  # what is cut off at its limit was not stuck


def test_an_episode_that_was_lost_ends_where_it_was_last_paid_and_others_stay_whole():
    def episode(rewards, terminal):
        steps = len(rewards)
        return Episode(np.arange(steps + 1), np.arange(steps), np.array(rewards), terminal=terminal, seed=3)

    rewards = [1.0, -0.1, 1.0] + [-0.1] * 20
    lost = cut_when_decided(episode(rewards, terminal=True), 20, 5, goal=9.0)
    assert lost.rewards.tolist() == rewards[:8]
    assert lost.actions.tolist() == list(range(8))
    assert lost.frames.tolist() == list(range(9))
    assert (lost.terminal, lost.seed) == (True, 3)
    assert len(cut_when_decided(episode([-0.1] * 20, terminal=True), 20, 5, goal=0.0).rewards) == 5
    for whole in (episode(rewards, terminal=False), episode(rewards[:-1], terminal=True)):
        assert cut_when_decided(whole, 20, 5, goal=9.0) is whole


@pytest.mark.parametrize(("after", "terminal"), [([], True), ([-0.1] * 5, False), ([-0.1] * 20, True)])
def test_a_lap_that_is_done_is_cut_off_where_it_was_last_paid_and_m_learns_no_end(after, terminal):
    rewards = np.array([5.0, -0.1, 5.0, *after])
    whole = Episode(np.arange(len(rewards) + 1), np.arange(len(rewards)), rewards, terminal=terminal, seed=3)
    won = cut_when_decided(whole, 20, 5, goal=7.5)
    assert (won.rewards.tolist(), won.actions.tolist(), won.frames.tolist()) == ([5.0, -0.1, 5.0], [0, 1, 2], [0, 1, 2, 3])
    assert not won.terminal


def test_a_scripted_policy_holds_two_actions_in_turn_and_lanes_count_apart():
    policy = ScriptedPolicy(ScriptedConfig(name="sweep 2", first=[1.0], second=[-1.0], period=2))
    policy.start([Job(0, 0)])
    acted = [policy.act(torch.zeros(1, 1))[:, 0].tolist()]
    policy.start([Job(0, 1)])
    acted += [policy.act(torch.zeros(2, 1))[:, 0].tolist() for _ in range(3)]
    assert acted == [[1], [1, 1], [-1, 1], [-1, -1]]
    policy.keep(torch.tensor([1]))
    assert policy.act(torch.zeros(1, 1)).tolist() == [[-1]]


@pytest.mark.parametrize(("lived", "kind"), [(20.0, 0), (2.0, 1)])
def test_a_dream_that_is_kinder_than_the_game_is_told(lived, kind):
    memory = Memory(MemoryConfig(hidden=4, mixtures=1, done=True, reward=False, ending="sampled"), 2, 1)
    memory.head.bias.data[-1] = float(np.log(0.05 / 0.95))
    world = DreamWorld(memory, Starts(torch.zeros(1, 2), torch.zeros(1, 2)), "z", temperature=1.0, limit=400)
    config = CalibrationConfig(dreams=200, temperature=1.0, limit=400, margin=1.5)
    still = ScriptedConfig(name="still", first=[0.0], second=[0.0], period=9)
    row = calibrate(world, "still", still, {"mean": lived, "stderr": 0.1}, config)
    assert row["dream"] == pytest.approx(20, abs=6)
    assert row["ratio"] == pytest.approx(row["dream"] / lived)
    assert row["kind"] == kind


def test_a_compiled_dream_is_the_same_dream():
    memory = Memory(MemoryConfig(hidden=16, mixtures=3, done=True, reward="value", ending="sampled"), latent=16, action=1)
    initialise(memory, torch.Generator().manual_seed(2))
    starts = Starts(torch.zeros(1, 16), torch.zeros(1, 16))
    options = {"temperature": 1.1, "limit": 30, "survival": 0.1}
    policy = ScriptedPolicy(ScriptedConfig(name="x", first=[1.0], second=[-1.0], period=3))
    plain, fused = (
        run_episodes(DreamWorld(memory, starts, "zch", fused=fused, **options), policy, range(24)).total
        for fused in (False, True)
    )
    assert not (plain == 0).all()
    np.testing.assert_allclose(fused, plain, rtol=1e-3)
    alone = run_episodes(DreamWorld(memory, starts, "zch", fused=True, **options), policy, [17]).total
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
    memory = Memory(MemoryConfig(hidden=8, mixtures=3, done=False, reward=False, clock=10), latent=4, action=1)
    memory.set_clock()
    latents = {"mean": torch.zeros(9, 4), "log_variance": torch.zeros(9, 4), "action": torch.zeros(9, 1)}
    latents["first"] = torch.arange(9) == 0
    world = DreamWorld(memory, Replay.of(latents, share=1.0, context=6, newest=9), "zch", temperature=1.0, limit=12)
    world.start([0, 1, 2, 3])
    begun = world.features()[:, 4 + 7] * 10  # the last cell
    assert set(begun.round().int().tolist()) <= {6, 7, 8}
    world.step(torch.zeros(len(begun), 1))
    torch.testing.assert_close(world.features()[:, 4 + 7] * 10, begun + 1)
