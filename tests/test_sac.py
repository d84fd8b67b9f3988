"""SAC on C: it begins at C, learns, and goes on from a checkpoint."""

import numpy as np
from fakes import FakeWorlds, context
from test_ppo import Follow, score

from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.controller.phases.base import Given
from worldmodels.controller.phases.sac import SACConfig
from worldmodels.games.any_gym import GymConfig
from worldmodels.memory.lstm import LSTMConfig

PHASE = SACConfig(
    updates=7,
    critic_updates=1,
    num_envs=4,
    num_steps=32,
    gradient_steps=2,
    batch_size=64,
    learning_rate=0.02,
    discount=0.5,
    noise=0.3,
    remembered=300,
)


def learner(config, start, phase=PHASE):
    return phase.open(context(FakeWorlds(lambda _: Follow()), config), start)


def test_it_begins_at_c_and_learns():
    config = ControllerConfig(features="z", hidden=6, bias=True)
    start = np.random.default_rng(0).normal(size=parameter_count(config, 2, 1)) * 0.3
    sac = learner(config, start)
    np.testing.assert_allclose(sac.parameters, start, rtol=1e-6)
    first = sac.generation(0)
    np.testing.assert_array_equal(first.parameters, start.astype(np.float32))  # the critics learn first
    assert first.steps == 4 * 32
    assert len(first.returns) == first.told["ended"] > 10
    for number in range(1, PHASE.updates):
        last = sac.generation(number)
    assert score(config, last.parameters) > score(config, start) + 0.1


def test_a_state_taken_over_goes_on_alike():
    config = ControllerConfig(features="z", hidden=0, bias=True)
    for before in (1, 3):  # its memory of steps is half full; it is full, and the oldest are overwritten
        one = learner(config, np.zeros(3))
        for number in range(before):
            one.generation(number)
        other = learner(config, np.zeros(3))
        other.state = {name: tensor.clone() for name, tensor in one.state.items()}
        np.testing.assert_array_equal(one.generation(before).parameters, other.generation(before).parameters)
        assert all((one.state[name] == other.state[name]).all() for name in one.state)


def test_choices_are_refused():
    given = Given(GymConfig(id="CartPole-v1", limit=50), LSTMConfig(hidden=4), ControllerConfig(features="zh"), 8)
    assert "take ppo" in PHASE.check(given)[0]
    assert not PHASE.check(given._replace(game=GymConfig(id="Pendulum-v1", limit=50)))
