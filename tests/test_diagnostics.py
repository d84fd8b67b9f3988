"""The figures by which V and M are judged, on cases whose answer is known."""

import math

import pytest
import torch

from worldmodels.memory.diagnostics import coverage, event_figures, memory_figures, open_loop_error
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.mixture import Mixture
from worldmodels.vision.training import active_dimensions


def normal(shape, std=1.0):
    """A mixture of two equal Gaussians: N(0, std)."""
    zeros = torch.zeros(*shape[:-1], 2, shape[-1])
    return Mixture(zeros, zeros, zeros + math.log(std))


def test_a_dimension_is_active_where_its_mean_varies():
    mean = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.2, 0.01])
    assert active_dimensions(mean) == 2


@pytest.mark.parametrize(("std", "expected"), [(1.0, 0.9), (0.5, 0.589), (3.0, 1.0)])
def test_coverage_tells_a_calibrated_distribution_from_one_too_narrow_or_too_wide(std, expected):
    z = torch.randn(20, 50, 8, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(20, 50, dtype=torch.bool)
    counted[10:] = False
    z[10:] = 99.0  # not counted
    assert coverage(normal(z.shape, std), z, counted) == pytest.approx(expected, abs=0.02)


def test_ends_are_counted_where_they_were_foretold_and_where_they_came():
    logit = torch.tensor([[2.0, 2.0, -2.0, -2.0, 9.0]])
    terminal = torch.tensor([[True, False, True, True, False]])
    counted = torch.tensor([[True, True, True, True, False]])
    figures = event_figures("done", logit, terminal, counted)
    assert figures == pytest.approx({"done_precision": 1 / 2, "done_recall": 1 / 3, "done_ratio": 2 / 3})
    nothing = event_figures("done", torch.full((1, 5), -9.0), torch.zeros(1, 5, dtype=torch.bool), counted)
    assert all(math.isnan(figure) for figure in nothing.values())


def flat_memory(reward="none"):
    """An M that always expects z' = 0 and a reward of 0."""
    memory = LSTMConfig(hidden=4, reward=reward).build(3, 1).requires_grad_(False)
    memory.head.bias.zero_()
    return memory


def test_a_dream_that_knows_nothing_is_as_far_off_as_the_mean_at_every_horizon():
    z = torch.randn(40, 13, 3, generator=torch.Generator().manual_seed(0))
    errors = open_loop_error(flat_memory(), z, torch.zeros(40, 12, 1), flat_memory().initial_state(40), 4, (1, 5, 9, 10))
    assert set(errors) == {"open_loop_1", "open_loop_5", "open_loop_9"}  # 4 real steps and 9 predicted ones are all 13
    assert all(error == pytest.approx(1.0, abs=0.3) for error in errors.values())


def test_a_dream_that_holds_what_it_saw_stays_with_a_world_that_stands_still():
    memory = flat_memory()
    z = torch.randn(40, 1, 3, generator=torch.Generator().manual_seed(0)).expand(-1, 13, -1)
    memory.head.bias[15:30] = 0.5  # the means of the mixture: it expects z' = 0.5
    near = open_loop_error(
        memory, torch.full_like(z, 0.5) + 0.01 * z, torch.zeros(40, 12, 1), memory.initial_state(40), 4, (9,)
    )
    far = open_loop_error(memory, torch.full_like(z, 2.0) + 0.01 * z, torch.zeros(40, 12, 1), memory.initial_state(40), 4, (9,))
    assert near["open_loop_9"] < 2
    assert far["open_loop_9"] > 1000


def test_the_explained_reward_is_zero_for_the_mean_and_one_for_the_truth():
    memory = flat_memory(reward="event")
    z = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    yes, no = torch.ones(4, 6, dtype=torch.bool), torch.zeros(4, 6, dtype=torch.bool)
    prediction, _, _ = memory(z, torch.zeros(4, 6, 1), no, memory.initial_state(4))
    reward = torch.tensor([-1.0, 1.0]).repeat(4, 3)
    figures = memory_figures(prediction, z, {"reward": reward, "terminal": no}, yes, yes)
    assert figures["reward_r2"] == pytest.approx(0.0, abs=1e-6)
    exact = memory_figures(prediction._replace(reward=reward), z, {"reward": reward, "terminal": no}, yes, yes)
    assert exact["reward_r2"] == 1.0


def test_the_figures_of_reward_events_stand_beside_those_of_ends():
    memory = flat_memory(reward="event")
    z = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    yes, no = torch.ones(4, 6, dtype=torch.bool), torch.zeros(4, 6, dtype=torch.bool)
    prediction, _, _ = memory(z, torch.zeros(4, 6, 1), no, memory.initial_state(4))
    reward = torch.tensor([-0.1, 3.0, -0.1]).repeat(4, 2)
    logit = torch.where(reward > 0, 4.0, -4.0)
    logit[0, 0] = 4.0  # one too many
    figures = memory_figures(prediction._replace(event=logit), z, {"reward": reward, "terminal": no}, yes, yes)
    assert figures["event_precision"] == pytest.approx(8 / 9)
    assert figures["event_recall"] == 1.0
    assert figures["event_ratio"] == pytest.approx((9 * 0.98201379 + 15 * 0.01798621) / 8, rel=1e-4)
