"""PPO on C: the lanes it plays in, that it begins at C, and that it learns."""

import numpy as np
import pytest
import torch
from fakes import FakeWorlds, context

from worldmodels.controller.config import ControllerSection
from worldmodels.controller.model import ControllerConfig, Controllers, first_parameters, parameter_count
from worldmodels.controller.phases.ppo import PPOConfig
from worldmodels.controller.phases.vec_env import WorldVecEnv
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import Step

PHASE = PPOConfig(
    world="game",
    updates=20,
    critic_updates=1,
    num_envs=4,
    num_steps=32,
    epochs=10,
    batch_size=32,
    learning_rate=0.01,
    discount=0.5,
    noise=0.3,
)


class Follow:
    """The action should follow the first feature; an episode lasts as many steps as its seed's last digit, and three."""

    feature_size, action_size = 2, 1

    def __init__(self):
        self.seeds, self.played = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)

    def start(self, seeds):
        self.seeds = torch.cat([self.seeds, torch.tensor(seeds, dtype=torch.int64)])
        self.played = torch.cat([self.played, torch.zeros(len(seeds), dtype=torch.int64)])

    def features(self):
        return torch.stack([torch.sin(self.seeds * 1.7 + self.played), torch.ones(len(self.seeds))], 1)

    def step(self, actions):
        reward = 1 - (actions[:, 0] - self.features()[:, 0] * 0.7).abs()
        self.played = self.played + 1
        over = self.played >= self.seeds % 10 + 3
        odd = self.seeds % 2 == 1
        return Step(reward, over & odd, over & ~odd)

    def visited(self):
        return None

    def keep(self, lanes):
        self.seeds, self.played = self.seeds[lanes], self.played[lanes]

    def close(self):
        pass


def score(config, parameters):
    policy = ControllerPolicy(Controllers(config, torch.from_numpy(parameters).float()[None], 2, 1))
    returns = run_episodes(Follow(), policy, range(40))
    return returns.total.sum() / returns.length.sum()


def learner(config, start, phase=PHASE):
    return phase.open(context(FakeWorlds(lambda _: Follow()), config), start)


def test_lanes_go_on_with_the_next_episode_and_give_what_the_rollout_gives():
    env = WorldVecEnv(Follow(), 3, iter(range(100)), 0.1)
    features = env.reset()
    np.testing.assert_allclose(features[:, 0], np.sin(np.arange(3) * 1.7), rtol=1e-5)
    weights = np.array([[0.4, 0.1]], np.float32)
    policy = ControllerPolicy(
        Controllers(ControllerConfig(features="z", hidden=0, bias=False), torch.from_numpy(weights), 2, 1)
    )
    paid, ended, cut, finished = 0.0, 0, [], []
    order, episode, following = [0, 1, 2], {0: 0, 1: 1, 2: 2}, 3  # the world's lanes, and the episode of each
    for _ in range(40):
        before = features
        env.step_async(features @ weights.T)
        features, rewards, over, infos = env.step_wait()
        paid += float(rewards.sum())
        ended += int(over.sum())
        gone = [lane for lane in order if over[lane]]
        for lane in gone:
            cut.append(infos[lane]["TimeLimit.truncated"])
            assert not np.allclose(infos[lane]["terminal_observation"], features[lane])
            finished.append(episode[lane])
            episode[lane] = following
            following += 1
        order = [lane for lane in order if not over[lane]] + gone
        assert not np.allclose(before, features)
    assert ended == len(env.finished) == len(cut) > 12
    assert {True, False} == set(cut)
    expected = run_episodes(Follow(), policy, range(100)).total[0]
    np.testing.assert_allclose(env.finished, expected[finished], atol=1e-4)  # each that of its own episode
    assert paid == pytest.approx(0.1 * env.paid, rel=1e-5)
    assert paid == pytest.approx(0.1 * (sum(env.finished) + env._total.sum()), rel=1e-4)


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_it_begins_at_c_and_learns(hidden, bias):
    config = ControllerConfig(features="z", hidden=hidden, bias=bias)
    start = np.random.default_rng(0).normal(size=parameter_count(config, 2, 1)) * 0.3
    ppo = learner(config, start)
    np.testing.assert_allclose(ppo.parameters, start, rtol=1e-6)
    first = ppo.generation(0)
    np.testing.assert_array_equal(first.parameters, start.astype(np.float32))  # the critic learns first
    assert first.steps == 4 * 32
    assert len(first.returns)
    for number in range(1, PHASE.updates):
        last = ppo.generation(number)
    assert score(config, last.parameters) > max(0.8, score(config, start) + 0.1)
    assert last.told["noise"] < first.told["noise"]


class Cents(Follow):
    """Everything is worth a hundredth."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(reward=step.reward / 100)


def test_what_is_learned_does_not_depend_on_the_unit_of_the_rewards():
    config, learned = ControllerConfig(features="z", hidden=0, bias=True), []
    for world, spread in ((Follow, 10.0), (Cents, 0.1)):
        ppo = PHASE.open(context(FakeWorlds(lambda _, world=world: world(), spread=spread), config), np.zeros(3))
        for number in range(3):
            last = ppo.generation(number)
        learned.append(last.parameters)
    np.testing.assert_allclose(*learned, atol=1e-3)


class Choose(Follow):
    """The first of two choices should be its third option if the first feature is above 0, else its first."""

    action_size = 5

    def step(self, actions):
        taken = actions[:, :3].argmax(1)
        assert ((actions == 1).sum(1) == 2).all() or not isinstance(self, Counted)
        reward = (taken == torch.where(self.features()[:, 0] > 0, 2, 0)).float()
        return super().step(torch.zeros(len(actions), 1))._replace(reward=reward)


class Counted(Choose):
    """It is played by PPO, which takes one option of each choice."""


@pytest.mark.parametrize("hidden", [0, 6])
def test_if_actions_are_choices_an_option_of_each_is_drawn_and_the_largest_number_learns_to_win(hidden):
    config = ControllerConfig(features="z", hidden=hidden, bias=True)
    worlds = FakeWorlds(lambda _: Counted(), choices=(3, 2))
    start = first_parameters(config, 2, 5, 0)
    ppo = PHASE.open(context(worlds, config), start)
    np.testing.assert_allclose(ppo.parameters, start, rtol=1e-6)
    first = ppo.generation(0)
    for number in range(1, PHASE.updates):
        last = ppo.generation(number)
    policy = ControllerPolicy(Controllers(config, torch.from_numpy(last.parameters).float()[None], 2, 5))
    returns = run_episodes(Choose(), policy, range(40))
    assert returns.total.sum() / returns.length.sum() > 0.9
    assert "noise" not in last.told
    assert last.told["entropy"] < first.told["entropy"] == pytest.approx(np.log(6), rel=0.02)


@pytest.mark.parametrize("choices", [(), (3, 2)])
def test_a_state_taken_over_goes_on_alike(choices):
    config = ControllerConfig(features="z", hidden=0, bias=True)
    worlds = FakeWorlds(lambda _: Choose() if choices else Follow(), choices=choices)
    start = np.zeros(parameter_count(config, 2, worlds.action_size))
    one = PHASE.open(context(worlds, config), start)
    for number in range(3):
        one.generation(number)
    other = PHASE.open(context(worlds, config), start)
    other.state = one.state
    np.testing.assert_array_equal(one.generation(3).parameters, other.generation(3).parameters)


def test_the_hazard_as_pay_is_refused_in_the_game_if_c_sees_nothing_of_m():
    phases = {"learn": {"kind": "ppo", "updates": 1, "world": "game", "pay": "hazard"}}
    section = {"model": {"features": "zh"}, "order": ["learn"], "phases": phases}
    assert ControllerSection(**section).phases["learn"].pay == "hazard"
    with pytest.raises(ValueError, match="features with h"):
        ControllerSection(**section | {"model": {"features": "z"}})


def test_a_hidden_layer_begins_at_weights_that_gradients_pass_and_a_linear_c_at_zeros():
    shape = ControllerConfig(features="z", hidden=50, bias=True)
    one, same, other = (first_parameters(shape, 400, 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.shape == (parameter_count(shape, 400, 3),)
    assert one[:20_000].std() == pytest.approx(0.05, rel=0.03)
    assert one[20_050:20_200].std() == pytest.approx(0.1, rel=0.2)
    assert not one[20_000:20_050].any()
    assert not one[20_200:].any()
    assert not first_parameters(ControllerConfig(features="z", hidden=0, bias=True), 400, 3, 1).any()
    small = ControllerConfig(features="z", hidden=6, bias=True)
    start = first_parameters(small, 2, 1, 0)
    ppo = learner(small, start)
    for number in range(PHASE.updates):
        last = ppo.generation(number)
    assert score(small, last.parameters) > max(0.8, score(small, start) + 0.1)


def test_the_learning_rate_falls_in_a_straight_line_and_the_updates_follow_it():
    falling = PHASE.model_copy(update={"updates": 3, "final_learning_rate": 0.002})
    assert [falling.learning_rate_at(number) for number in range(3)] == pytest.approx([0.01, 0.006, 0.002])
    assert [PHASE.learning_rate_at(number) for number in (0, 19)] == [0.01, 0.01]
    config = ControllerConfig(features="z", hidden=0, bias=True)
    ppo = learner(config, np.zeros(3), falling.model_copy(update={"final_learning_rate": 1e-12}))
    steps = []
    before = ppo.parameters
    for number in range(3):
        after = ppo.generation(number).parameters
        steps.append(np.abs(after - before).max())
        before = after
    assert steps[1] > 1e-3
    assert steps[2] < 1e-8
