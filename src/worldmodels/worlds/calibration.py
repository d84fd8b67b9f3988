"""Is the dream as hard as the game? Blind policies in both, before anything is learned in the dream."""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from worldmodels.games.blind import Blind
from worldmodels.params import Config
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.policies import blind_policy
from worldmodels.rollout.scores import summarise
from worldmodels.seeds import episode_seeds
from worldmodels.worlds.dream import DreamWorld

COLUMNS = ("policy", "real", "real_stderr", "dream", "dream_stderr", "excess", "kind")
MARGIN = 0.5
"""Share of a return's size by which the dream may exceed it without a warning."""


class CalibrationConfig(Config):
    """The ``calibrate`` section of an environment."""

    dreams: int = Field(default=100, ge=2, le=100_000)  # episodes of a policy
    temperature: float = Field(default=1.0, gt=0, le=10)  # tau


def calibrate(
    world: DreamWorld, name: str, policy: Blind, real: Mapping[str, float], config: CalibrationConfig
) -> dict[str, float | int | str]:
    """Dream a blind policy, and compare.

    Returns may have any sign, so the dream's excess over the game is measured by the size of the game's returns: their mean
    without its sign, or their standard deviation if that is larger.

    Args:
        world: the dream, without lanes.
        name: of the policy.
        policy: what it does.
        real: mean, std and stderr of what it got in the game.
        config: the section.

    Returns:
        policy, real, real_stderr, dream, dream_stderr, excess (dream - real, in sizes of the game's returns), and kind: 1 if
        the excess is more than ``MARGIN``, by more than two standard errors.
    """
    dream = summarise(run_episodes(world, blind_policy(policy), episode_seeds("dream", config.dreams, stream="calibration")))
    size = max(abs(real["mean"]), real["std"])
    more = dream["mean"] - real["mean"]
    error = float(np.hypot(dream["stderr"], (1 + MARGIN) * real["stderr"]))
    return {
        "policy": name,
        "real": real["mean"],
        "real_stderr": real["stderr"],
        "dream": dream["mean"],
        "dream_stderr": dream["stderr"],
        "excess": more / size if size else float(np.sign(more)),
        "kind": int(more - MARGIN * size > 2 * error),
    }
