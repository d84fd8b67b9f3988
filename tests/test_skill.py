"""M foretells the next action, and C begins with the skill that M has absorbed."""

import math

import numpy as np
import pytest
import torch
from fakes import FakeWorlds, context
from test_ppo import Follow

from worldmodels.controller.basis import played_features, played_skill
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.model import ControllerConfig, Controllers, act
from worldmodels.controller.phases.base import Given
from worldmodels.controller.phases.skill import SkillConfig
from worldmodels.games.choices import option
from worldmodels.games.doom import DoomConfig
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import memory_from_description, new_memory
from worldmodels.memory.training import MemoryTraining, train_memory

COUNT = 1200
PHASE = torch.arange(COUNT) % 6  # what is seen goes round in six steps
TAKEN = PHASE // 2  # and decides which of three options is taken


def rows_of(choices):
    angle = PHASE * (2 * math.pi / 6)
    action = torch.tensor([option(each, 3) for each in TAKEN.tolist()]) if choices else torch.sin(angle)[:, None]
    first = torch.arange(COUNT) % 120 == 0
    action[first.roll(-1)] = 0  # nothing is done on an episode's last frame
    return {
        "mean": 3 * torch.stack([torch.sin(angle), torch.cos(angle)], 1),
        "log_variance": torch.full((COUNT, 2), -8.0),
        "action": action,
        "reward": torch.zeros(COUNT),
        "terminal": torch.zeros(COUNT, dtype=torch.bool),
        "first": first,
    }


def learned(rows, choices, **shape):
    config = MemoryTraining(
        model=LSTMConfig(hidden=16, done=False, **shape),
        optimiser=OptimiserConfig(updates=120, batch=16, learning_rate=0.02, final_learning_rate=0.02),
        sequence=16,
    )
    memory = new_memory(config.model, 2, rows["action"].shape[1], 0, choices)
    curve = train_memory(memory, rows, config, seed=0, updates=range(120), observe=lambda *_: None)
    return memory, curve


@pytest.fixture(scope="module")
def skilled():
    rows = rows_of(choices=True)
    return rows, *learned(rows, (3,), next_action=True)


def test_an_m_that_is_not_asked_for_actions_is_as_it_was():
    memory, curve = learned(rows_of(choices=False), ())
    assert "next_action" not in memory.describe()["config"]
    assert not any("action" in name for name in memory.state_dict())
    assert all("action" not in row for row in curve)
    asked = LSTMConfig(hidden=16, done=False, next_action=True).build(2, 1)
    plain, told = dict(memory.named_parameters()), dict(asked.named_parameters())
    assert {name for name in told if name not in plain} == {"action_head.weight", "action_head.bias", "action_log_std"}
    again = memory_from_description(asked.describe())
    again.load_state_dict(asked.state_dict())


def test_it_learns_which_option_is_taken_next_and_says_so_in_nats(skilled):
    _, _, curve = skilled
    told = [row["action"] for row in curve if row["split"] == "validation"]
    assert told[-1] < 0.05
    assert told[0] > told[-1]
    assert curve[0]["action"] == pytest.approx(math.log(3), abs=0.7)


def test_it_learns_numbers_too_and_a_density_is_better_than_one_of_the_mean():
    _, curve = learned(rows_of(choices=False), (), next_action=True)
    alone = 0.5 * math.log(2 * math.pi * math.e * 0.5)  # a normal distribution of the numbers' own variance
    assert [row["action"] for row in curve if row["split"] == "validation"][-1] < alone - 1


def test_probabilities_of_options_sum_to_one_over_all_actions_and_numbers_are_normal():
    memory = new_memory(LSTMConfig(hidden=4, next_action=True), 2, 5, 0, (3, 2))
    foretold = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    every = [[*option(one, 3), *option(other, 2)] for one in range(3) for other in range(2)]
    likely = torch.stack([memory.action_log_prob(foretold, torch.tensor(each).expand(7, -1)) for each in every]).exp()
    torch.testing.assert_close(likely.sum(0), torch.ones(7))
    best = torch.tensor(every)[likely.argmax(0)]
    said = [[*option(int(row[:3].argmax()), 3), *option(int(row[3:].argmax()), 2)] for row in memory.skill(foretold)]
    assert best.tolist() == said
    plain = new_memory(LSTMConfig(hidden=4, next_action=True), 2, 2, 0)
    with torch.no_grad():
        plain.action_log_std.copy_(torch.tensor([0.3, -9.0]))
    mean, action = torch.tensor([[0.2, -0.4]]), torch.tensor([[0.5, -0.45]])
    scale = torch.tensor([0.3, -3.0]).exp()
    expected = torch.distributions.Normal(mean, scale).log_prob(action).sum(-1)
    torch.testing.assert_close(plain.action_log_prob(mean, action), expected)


def test_m_foretells_what_was_done_at_the_frames_that_c_saw(skilled):
    rows, memory, _ = skilled
    seen, actions = played_skill("zh", memory, rows, 0)
    assert seen.shape == (len(actions), 2 + 16)
    phase = np.round(np.arctan2(seen[:, 0], seen[:, 1]) / (2 * math.pi / 6)).astype(int) % 6
    right = actions.argmax(1).numpy() == phase // 2
    assert right.mean() > 0.97
    assert bool((actions.abs() <= 1).all())
    all_seen = played_features("zh", memory, rows, 0)
    assert len(seen) < len(all_seen)  # first frames are left out


def test_c_begins_with_what_m_has_absorbed(skilled):
    rows, memory, _ = skilled
    features, actions = played_skill("zh", memory, rows, 0)
    worlds = FakeWorlds(lambda _: Follow())
    worlds.feature_size, worlds.action_size = features.shape[1], 3
    worlds.skill = lambda seed, newest: (features, actions)
    shape = ControllerConfig(features="zh", hidden=12)
    learner = SkillConfig().open(context(worlds, shape), None)
    result = learner.generation(0)
    one = Controllers(shape, torch.from_numpy(result.parameters).float()[None], features.shape[1], 3)
    some = torch.from_numpy(features[:800]).float()
    taken = act(some, one.alone).argmax(1)
    assert float((taken == actions[:800].argmax(1)).float().mean()) > 0.97
    assert result.told["imitation_error"] < 0.05
    np.testing.assert_array_equal(SkillConfig().open(context(worlds, shape), None).generation(0).parameters, result.parameters)


def test_an_m_without_the_head_and_a_c_without_biases_are_refused():
    game, shape = DoomConfig(), ControllerConfig(features="zh")
    without, having = (Given(game, LSTMConfig(hidden=4, next_action=on), shape, 8) for on in (False, True))
    assert "memory.model.next_action: true" in SkillConfig().check(without)[0]
    assert not SkillConfig().check(having)
    phases = {"begin": {"kind": "skill"}}
    assert ControllerSection(model={"features": "zh"}, order=["begin"], phases=phases).generations == 1
    with pytest.raises(ValueError, match="needs a C with biases"):
        ControllerSection(model={"features": "zh", "bias": False}, order=["begin"], phases=phases)
