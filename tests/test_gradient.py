"""Value gradients: the coordinates, the lanes that are played, that C begins where it was and learns, and what is refused."""

from itertools import count, product

import numpy as np
import pytest
import torch
from fakes import FakeWorlds, context

from worldmodels.controller.basis import played_features
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.imitation import imitate
from worldmodels.controller.model import ControllerConfig, Controllers, act, first_layer, first_parameters, parameter_count
from worldmodels.controller.phases.base import Given
from worldmodels.controller.phases.critic import Critic, Lesson
from worldmodels.controller.phases.value_gradient import ValueGradientConfig
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.controller.whitening import Whitening
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.rollout.loop import run_episodes
from worldmodels.worlds.dream import DreamWorld, Starts

PHASE = ValueGradientConfig(
    updates=8,
    critic_updates=2,
    num_envs=8,
    num_steps=60,
    gradient_steps=10,
    learning_rate=0.02,
    final_learning_rate=0.0,
    discount=0.9,
    reward_weight=1.0,
    drought_cost=0.0,
    hazard_cost=3.0,
    loss_cost=1.0,
    replay_share=0.3,
    peril_share=0.3,
    remembered=3,
)
LINEAR = ControllerConfig(features="zh", hidden=0, bias=True)


@pytest.fixture(scope="module")
def drift():
    """Return M of a game, and its data: a point drifts, is pushed by the action, paid near 1, and lost below -1.2."""
    draw = np.random.default_rng(0)
    place, action, rows = 0.0, 0.0, []
    for step in range(6000):
        action = np.clip(draw.normal() if step % 8 == 0 else action, -1, 1)
        first = not rows or rows[-1][3] or rows[-1][4] == 39
        place, age = (draw.normal() * 0.3, 0) if first else (place, rows[-1][4] + 1)
        after = 0.8 * place + 0.4 * action + 0.1 * draw.normal()
        rows.append((place, action, float(abs(after - 1) < 0.4), after < -1.2, age))
        place = after
    place, action, reward, lost, age = (np.array(column) for column in zip(*rows, strict=True))
    data = {
        "mean": torch.from_numpy(np.stack([place, draw.normal(size=len(place))], 1)).float(),
        "log_variance": torch.full((len(place), 2), -6.0),
        "action": torch.from_numpy(action[:, None]).float(),
        "reward": torch.from_numpy(reward).float(),
        "terminal": torch.from_numpy(lost),
        "first": torch.from_numpy(age == 0),
    }
    training = MemoryTraining(
        model=LSTMConfig(hidden=16, reward="event"),
        optimiser=OptimiserConfig(updates=300, learning_rate=0.01, final_learning_rate=0.001),
        sequence=16,
    )
    memory = new_memory(training.model, 2, 1, 0)
    train_memory(memory, data, training, seed=0, updates=range(300), observe=lambda *_: None)
    return memory, data


def game(drift, features, limit=30):
    memory, data = drift
    return DreamWorld(memory, Starts.of(data), features, temperature=1.0, limit=limit)


def learner(drift, model, start, won=0.0, **changes):
    memory, data = drift
    seen = played_features(model.features, memory, data)
    worlds = FakeWorlds(lambda _: game(drift, model.features), memory=memory, seen=seen, won=won)
    return PHASE.model_copy(update=changes).open(context(worlds, model), start)


def score(drift, model, parameters):
    world = game(drift, model.features)
    policy = ControllerPolicy(Controllers(model, torch.from_numpy(parameters).float()[None], world.feature_size, 1))
    returns = run_episodes(world, policy, range(5000, 5064))
    return returns.total.mean() / 30


@pytest.mark.parametrize(("features", "hidden"), [("z", 0), ("zh", 12), ("zch", 0)])
def test_it_begins_at_c_and_learns(drift, features, hidden):
    model = ControllerConfig(features=features, hidden=hidden, bias=True)
    start = first_parameters(model, game(drift, features).feature_size, 1, 0)
    start[-1] = -0.3
    one = learner(drift, model, start)
    np.testing.assert_allclose(one.parameters, start, atol=1e-5)
    for number in range(PHASE.updates):
        last = one.generation(number)
        if number < PHASE.critic_updates:
            np.testing.assert_allclose(last.parameters, start, atol=1e-5)  # the critic learns first
    assert last.steps == 8 * 60
    before, after = score(drift, model, start), score(drift, model, last.parameters)
    assert before < 0.2
    assert after > 0.4


def test_lanes_go_on_with_the_next_episode_and_earn_what_the_rollout_earns(drift):
    start = np.full(parameter_count(LINEAR, 18, 1), 0.05)
    one = learner(drift, LINEAR, start, won=3.0, noise=1e-9, loss_cost=7.0, replay_share=0.0)
    with torch.inference_mode():
        (_, state, restart), lesson, returns = one._play(torch.Generator().manual_seed(0), count())
    world = game(drift, "zh")
    policy = ControllerPolicy(Controllers(LINEAR, torch.from_numpy(start).float()[None], world.feature_size, 1))
    expected = run_episodes(world, policy, range(60))
    assert len(returns) == int(lesson.over.sum()) > 15
    seeds, began, fresh, wanted = list(range(8)), [0] * 8, count(8), []
    for step, lane in product(range(1, 61), range(8)):
        if step - began[lane] == expected.length[0, seeds[lane]]:
            wanted.append(expected.total[0, seeds[lane]])
            seeds[lane], began[lane] = next(fresh), step
    assert np.diff(np.sort(wanted)).max() > 0.1, "the returns must differ for this to show anything"
    np.testing.assert_allclose(returns, wanted, atol=2e-2)
    assert torch.equal(restart[1:], lesson.over[:-1])
    assert bool(restart[0].all())
    assert bool((state[restart] == 0).all())
    assert len(lesson.ends) == int(lesson.over[:-1].sum()) + 8
    assert int(lesson.lost.sum()) > 0
    assert not bool((lesson.lost & ~lesson.over).any())
    assert lesson.worth[lesson.lost].max() < -6
    assert lesson.worth[~lesson.lost].min() > -5


def test_what_was_lost_is_played_again_until_it_is_won(drift):
    one = learner(drift, LINEAR, np.zeros(19), replay_share=0.9, remembered=2)
    asked = []
    one._world.start = lambda seeds, start=one._world.start: (asked.append(list(seeds)), start(seeds))
    one.generation(0)
    first, lost, begun = [seed for seeds in asked for seed in seeds], set(one._hard), len(asked)
    assert 0 < len(lost) <= len(set(first)) < len(first)
    one.generation(1)
    one.generation(2)
    assert len(one._lessons) == len(one._perils) == 2
    assert all(len(peril.restart) > 0 for peril in one._perils)
    assert lost & {seed for seeds in asked[begun:] for seed in seeds}
    never = learner(drift, LINEAR, np.zeros(19), replay_share=0.0)
    told = never.generation(0)
    assert len(told.returns) == int(never._lessons[-1].over.sum())
    assert len(never._hard) > 0


def test_returns_are_those_of_the_book(drift):
    draw = torch.Generator().manual_seed(4)
    critic = Critic(3, 0.9, draw)
    over = torch.tensor([[0, 0, 1, 0, 1, 0]], dtype=torch.bool).T
    lost = torch.tensor([[0, 0, 1, 0, 0, 0]], dtype=torch.bool).T
    x, ends, worth = (torch.randn(size, 1, 3, generator=draw).half() for size in (6, 3, 6))
    lesson = Lesson(x, ends[:, 0], worth[..., 0].float(), lost, over)
    value, at_end = critic.value(x.float())[:, 0], critic.value(ends[:, 0].float())
    reward = lesson.worth[:, 0]
    third = reward[2]  # lost: nothing follows
    second = reward[1] + 0.9 * (0.05 * value[2] + 0.95 * third)
    fifth = reward[4] + 0.9 * at_end[1]  # cut off
    sixth = reward[5] + 0.9 * at_end[2]  # the collection ends
    first = reward[0] + 0.9 * (0.05 * value[1] + 0.95 * second)
    fourth = reward[3] + 0.9 * (0.05 * value[4] + 0.95 * fifth)
    expected = torch.stack([first, second, third, fourth, fifth, sixth])[:, None]
    torch.testing.assert_close(critic.returns(lesson), expected.detach(), atol=1e-4, rtol=1e-4)


def test_the_critic_foresees_what_several_collections_have_in_common():
    draw = torch.Generator().manual_seed(0)
    critic = Critic(2, 0.5, draw)
    over = torch.ones(200, 10, dtype=torch.bool)
    lessons = []
    for _ in range(3):
        x = torch.randn(200, 10, 2, generator=draw)
        lessons.append(Lesson(x.half(), x.flatten(0, 1).half(), 3 * x[..., 0], over, over))
    assert critic.learn(lessons, 20, draw) < 0.1
    assert critic.learn(lessons, 1, draw) > 0.95


def test_a_state_taken_over_goes_on_alike(drift):
    one = learner(drift, LINEAR, np.zeros(19))
    for number in range(4):
        one.generation(number)
    other = learner(drift, LINEAR, np.zeros(19))
    other.state = one.state
    np.testing.assert_array_equal(one.generation(4).parameters, other.generation(4).parameters)


def test_white_coordinates_are_uncorrelated_and_c_says_there_what_it_said(drift):
    seen = played_features("zh", *drift)
    white = Whitening.of(seen)
    x = (seen - white.mean) @ white.matrix
    covariance = x.T @ x / len(x)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-6
    assert np.diag(covariance).max() <= 1.0
    model = ControllerConfig(features="zh", hidden=5, bias=True)
    start = np.random.default_rng(1).normal(size=parameter_count(model, 18, 1))
    inside = white.enter(start, first_layer(model, 1))
    policies = [Controllers(model, torch.from_numpy(each)[None], 18, 1) for each in (start, inside)]
    said = []
    for policy, features in zip(policies, (seen, x), strict=True):
        (weight, bias), _ = policy.alone
        said.append(features @ weight[0].numpy().T + bias[0].numpy())
    np.testing.assert_allclose(*said, atol=1e-8)


def test_what_m_does_not_foretell_cannot_be_paid_for():
    def wrong(**heads):
        return PHASE.model_copy(update={"drought_cost": 1.0}).check(
            Given(CarRacingConfig(), LSTMConfig(hidden=8, **heads), LINEAR, 18)
        )

    assert "event head" in wrong()[0]
    assert "done head" in wrong(done=False, reward="event")[0]
    assert not wrong(reward="event")


def test_it_needs_a_c_with_biases():
    section = {"order": ["one"], "phases": {"one": {"kind": "value_gradient", "updates": 3}}}
    assert ControllerSection(**section, model={"features": "zh"}).generations == 3
    with pytest.raises(ValueError, match="bias"):
        ControllerSection(**section, model={"features": "zh", "bias": False})


def test_a_c_of_another_shape_acts_alike(drift):
    seen = {features: played_features(features, *drift) for features in ("zh", "zch")}
    linear = np.random.default_rng(2).normal(size=parameter_count(LINEAR, 18, 1)) * 0.5
    teacher = Controllers(LINEAR, torch.from_numpy(linear).float()[None], 18, 1)
    wide = ControllerConfig(features="zch", hidden=9, bias=True)
    found = imitate(teacher, seen["zh"], wide, seen["zch"], seed=0, updates=1500)
    student = Controllers(wide, torch.from_numpy(found).float()[None], 34, 1)
    acts = [act(torch.from_numpy(seen[who.config.features][::50][:500]).float(), who.alone) for who in (teacher, student)]
    assert acts[0].std() > 0.2
    assert (acts[1] - acts[0].clamp(-0.97, 0.97)).square().mean().sqrt() < 0.03
