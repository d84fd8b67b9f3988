"""The one rollout loop, policies and rules of an episode: every lane, refill and compaction."""

import numpy as np
import pytest
import torch

from worldmodels.errors import EnvironmentFault
from worldmodels.games.blind import RandomPolicyConfig, ScriptedConfig
from worldmodels.games.sight import Sight
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.rollout.collection import CollectConfig, collect_episodes
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.patience import PatientWorld, cut_when_decided
from worldmodels.rollout.policies import ExploringPolicy, RandomPolicy, ScriptedPolicy
from worldmodels.rollout.world import Step
from worldmodels.shapes import Episode, Job
from worldmodels.worlds.calibration import CalibrationConfig, calibrate
from worldmodels.worlds.dream import DreamWorld, Starts


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

    def visited(self):
        return None

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

        def visited(self):
            return None

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
    lost = cut_when_decided(episode(rewards, terminal=True), 20, 5, won=9.0)
    assert lost.rewards.tolist() == rewards[:8]
    assert lost.actions.tolist() == list(range(8))
    assert lost.frames.tolist() == list(range(9))
    assert (lost.terminal, lost.seed) == (True, 3)
    assert len(cut_when_decided(episode([-0.1] * 20, terminal=True), 20, 5, won=0.0).rewards) == 5
    for whole in (episode(rewards, terminal=False), episode(rewards[:-1], terminal=True)):
        assert cut_when_decided(whole, 20, 5, won=9.0) is whole


@pytest.mark.parametrize(("after", "terminal"), [([], True), ([-0.1] * 5, False), ([-0.1] * 20, True)])
def test_a_lap_that_is_done_is_cut_off_where_it_was_last_paid_and_m_learns_no_end(after, terminal):
    rewards = np.array([5.0, -0.1, 5.0, *after])
    whole = Episode(np.arange(len(rewards) + 1), np.arange(len(rewards)), rewards, terminal=terminal, seed=3)
    won = cut_when_decided(whole, 20, 5, won=7.5)
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


def dreamt(reward_of_a_step):
    """Return a dream whose episodes last 20 steps on average and give this at every step."""
    memory = LSTMConfig(hidden=4).build(2, 1)
    memory.head.bias.data[-1] = float(np.log(0.05 / 0.95))
    starts = Starts(torch.zeros(1, 2), torch.zeros(1, 2))
    return DreamWorld(memory, starts, "z", temperature=1.0, limit=400, worth=reward_of_a_step)


@pytest.mark.parametrize(
    ("a_step", "lived", "spread", "kind"),
    [
        (1.0, 20.0, 5.0, 0),
        (1.0, 16.0, 5.0, 0),  # 1.25 times
        (1.0, 10.0, 5.0, 1),  # twice
        (1.0, 2.0, 1.0, 1),
        (-1.0, -20.0, 5.0, 0),
        (-1.0, -60.0, 5.0, 1),  # the game takes three times as much as the dream
        (-1.0, -10.0, 5.0, 0),  # the dream is harder
        (1.0, 0.0, 5.0, 1),  # four times the spread of a game that gives nothing on average
        (1.0, 10.0, 60.0, 0),  # well within what one episode of the game gives and another does not
        (0.0, 0.0, 0.0, 0),
    ],
)
def test_a_dream_that_is_kinder_than_the_game_is_told_whatever_the_sign_of_returns(a_step, lived, spread, kind):
    still = ScriptedConfig(name="still", first=[0.0], second=[0.0], period=9)
    real = {"mean": lived, "std": spread, "stderr": 0.1}
    row = calibrate(dreamt(a_step), "still", still, real, CalibrationConfig(dreams=200, temperature=1.0))
    assert row["dream"] == pytest.approx(20 * a_step, abs=6)
    assert row["kind"] == kind
    size = max(abs(lived), spread)
    assert row["excess"] == pytest.approx((row["dream"] - lived) / size if size else 0.0)


class Shown:
    """Episodes of two steps whose frames are black, save for the ``good`` seeds."""

    feature_size, action_size = 0, 1

    def __init__(self, good):
        self.good, self.seeds, self.played = good, [], 0

    def start(self, seeds):
        self.seeds, self.played = list(seeds), 0

    def features(self):
        return torch.zeros(len(self.seeds), 0)

    def frames(self):
        frames = np.zeros((len(self.seeds), 64, 64, 3), np.uint8)
        for lane, seed in enumerate(self.seeds):
            frames[lane, : 9 * (1 + self.played)] = 255 if seed in self.good else 0
        return frames

    def step(self, actions):
        self.played += 1
        over = torch.full((len(self.seeds),), self.played == 2)
        return Step(torch.ones(len(self.seeds)), over, ~over & False)

    def visited(self):
        return None

    def keep(self, lanes):
        self.seeds = [self.seeds[lane] for lane in lanes.tolist()]


def collected(good, count):
    kept, sight = [], Sight()
    still = ScriptedPolicy(ScriptedConfig(name="still", first=[0.0], second=[0.0]))
    collect_episodes(Shown(good), still, range(count), sight=sight, keep=lambda episode: kept.append(episode.seed), lanes=8)
    sight.check("the collection")
    return kept


def test_a_collection_is_refused_if_no_episode_shows_anything_and_kept_if_one_does():
    assert collected({3}, 20) == list(range(20))
    with pytest.raises(EnvironmentFault, match="the collection: every frame is a single colour"):
        collected(set(), 20)
    with pytest.raises(EnvironmentFault, match="the first 100 episodes: every frame"):
        collected({150}, 200)  # a long collection is not played to its end for nothing


def test_collecting_needs_no_settings_and_refuses_impossible_ones():
    config = CollectConfig()
    assert config.random is None
    assert config.strengths == [0.0]
    for change in ({"random_share": 0.6, "rejected_share": 0.6}, {"episodes": -1}, {"lanes": 8}):
        with pytest.raises(ValueError, match=r"together at most 1|greater than|not permitted"):
            CollectConfig.model_validate(change)
    for holds in ([0], [2**63], []):
        with pytest.raises(ValueError, match="holds"):
            random_config(holds=holds)
