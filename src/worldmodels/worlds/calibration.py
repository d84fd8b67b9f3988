"""Is the dream as hard as the game? Blind policies in both, before anything evolves in the dream."""

from collections.abc import Mapping

import numpy as np

from worldmodels.worlds.dream import DreamWorld
from worldmodels.rollout.evaluation import CalibrationConfig
from worldmodels.rollout.policies import RandomPolicyConfig, ScriptedConfig, blind_policy
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.scores import summarise
from worldmodels.seeds import episode_seeds


def calibrate(
    world: DreamWorld,
    name: str,
    policy: RandomPolicyConfig | ScriptedConfig,
    real: Mapping[str, float],
    config: CalibrationConfig,
) -> dict[str, float | int | str]:
    """Dream a blind policy.

    Args:
        world: the dream, without lanes.
        name: of the policy.
        policy: what it does.
        real: mean and stderr of what it got in the game.
        config: the section.

    Returns:
        policy, real, real_stderr, dream, dream_stderr, ratio (dream / real), and kind: 1 where the dream is kinder than
        ``config.margin`` allows, by more than two standard errors.
    """
    dream = summarise(run_episodes(world, blind_policy(policy), episode_seeds("dream", config.dreams, stream="calibration")))
    allowed, error = config.margin * real["mean"], np.hypot(dream["stderr"], config.margin * real["stderr"])
    return {
        "policy": name,
        "real": real["mean"],
        "real_stderr": real["stderr"],
        "dream": dream["mean"],
        "dream_stderr": dream["stderr"],
        "ratio": dream["mean"] / real["mean"] if real["mean"] else float("nan"),
        "kind": int(real["mean"] > 0 and dream["mean"] - allowed > 2 * error),
    }
