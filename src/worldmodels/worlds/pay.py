"""What C is paid with: wrappers of worlds that change the rewards, or what ends an episode."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from worldmodels.rollout.world import ModelWorld, Step, WorldWrapper
from worldmodels.worlds.curiosity import Curious, Paying

Pay = Literal["return", "survival", "hazard", Curious]
"""``return``: the rewards. ``survival``: the rewards, weighted by the probability of being alive (``SurvivalPay``). ``hazard``:
no reward, but what the hazard costs (``HazardPay``). The others: no reward, but what curiosity is paid (``curiosity.py``)."""

FLOOR = 0.05
"""Probability of being alive below which an episode is over."""


class SurvivalPay(WorldWrapper[ModelWorld]):
    """Each reward is weighted by the probability that the episode gets to it; no episode ends by chance.

    An episode ends if that probability falls below ``floor``. The return is the expected one, given the latents: the same mean
    (but for what is cut off) with a fraction of the variance. ValueError if no M foretells ends in that world.
    """

    begin = 1.0

    def __init__(self, world: ModelWorld, floor: float = FLOOR) -> None:
        super().__init__(world)
        world.spare()
        self._floor = floor

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        reward = step.reward * self.tally
        self.tally = self.tally * (1 - self.hazard().cpu())  # probability that an episode gets to the next step
        gone = self.tally < self._floor
        return Step(reward, step.terminal | gone, step.truncated & ~gone)


class HazardPay(WorldWrapper[ModelWorld]):
    """Each step costs ``cost`` times the probability that the episode ends with it, instead of any reward.

    So what was done wrong shows where it was done, and not in all that never comes. If M is calibrated, the mean is what ends
    would cost, with a fraction of the variance. No dream ends by chance; a game that ends is cut off, with nothing more to pay.
    ValueError if no M foretells ends in that world, or the cost is not above 0.
    """

    def __init__(self, world: ModelWorld, cost: float) -> None:
        if cost <= 0:
            raise ValueError(f"the cost of the hazard must be above 0, not {cost:g}")
        super().__init__(world)
        world.spare()
        self._cost = cost

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        return super().step(actions)._replace(reward=-self._cost * self.hazard().cpu())


class GoalWorld(WorldWrapper[ModelWorld]):
    """An episode is over if the sum of its rewards, without what every step costs, gets to a goal.

    So a lap is over when its tiles are paid: M does not count tiles and would pay for driving on, and C would learn to drive
    faster than a lap ever needs. What a step costs still counts in the return: a lap in fewer steps is worth more. The world
    must pay the rewards themselves, not what another wrapper makes of them.
    """

    def __init__(self, world: ModelWorld, goal: float) -> None:
        super().__init__(world)
        self._goal, self._usual = goal, world.usual_reward

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        self.tally = self.tally + (step.reward - self._usual)  # sum of rewards so far, without what every step costs
        won = self.tally >= self._goal
        return Step(step.reward, step.terminal | won, step.truncated & ~won)


def paid(
    world: ModelWorld, pay: Pay, *, hazard_cost: float = 0.0, goal: float = 0.0, curiosity: Paying | None = None
) -> ModelWorld:
    """Return a world that pays C in a way.

    Args:
        world: a dream, or the game as V and M know it.
        pay: see ``Pay``.
        hazard_cost: what a certain end costs, above 0 with ``hazard``.
        goal: sum of rewards, without what every step costs, that ends an episode (``GoalWorld``); 0: none does.
        curiosity: what makes the world pay, with a pay for curiosity.

    Raises:
        ValueError: ``survival`` or ``hazard``, and no M foretells ends in that world.
    """
    world = GoalWorld(world, goal) if goal else world
    if pay == "survival":
        return SurvivalPay(world)
    if curiosity is not None:
        return curiosity(world)
    return HazardPay(world, hazard_cost) if pay == "hazard" else world


def open_paid(open_world: Callable[[], ModelWorld], pay: Pay, **how: Any) -> ModelWorld:
    """Return ``paid`` of the world that ``open_world`` opens."""
    return paid(open_world(), pay, **how)
