"""From the ``environment`` section of params.yaml to games that run."""

from typing import Annotated

from pydantic import Field

from worldmodels.games.any_gym import GymConfig, action_map, gym_env, open_game
from worldmodels.games.base import BatchEnv
from worldmodels.games.carracing import ACTION_SIZE, CarRacingConfig, EnvPoolCarRacing, gymnasium_carracing
from worldmodels.games.doom import DoomConfig, DoomEnv

EnvironmentConfig = Annotated[DoomConfig | CarRacingConfig | GymConfig, Field(discriminator="kind")]


def make_env(config: EnvironmentConfig, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
    """Make a game's environment, without lanes.

    Args:
        config: a validated ``environment`` section.
        scoring: take the backend whose scores are reported (CarRacing: gymnasium), whatever trains.
        threads: cores to use.

    Raises:
        ParamsError: where a Gymnasium environment is unknown or its action space is of another kind.
    """
    if isinstance(config, DoomConfig):
        return DoomEnv(config, threads)
    if isinstance(config, GymConfig):
        return gym_env(config)
    if scoring or config.backend == "gymnasium":
        return gymnasium_carracing(config)
    return EnvPoolCarRacing(config, threads)


def action_size(config: EnvironmentConfig) -> int:
    """Return A, how many numbers one action has. A Gymnasium Box has to be asked; the others are known."""
    if isinstance(config, DoomConfig):
        return DoomEnv.action_size
    if isinstance(config, CarRacingConfig):
        return ACTION_SIZE
    game = open_game(config)
    try:
        return action_map(game.action_space, config)[1]
    finally:
        game.close()
