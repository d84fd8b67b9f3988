"""The registry of games: from the ``game`` section of params.yaml to games that run. A new game is one more class here."""

from typing import Annotated, get_args

from pydantic import Field

from worldmodels.games.any_gym import GymConfig
from worldmodels.games.base import Reference
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.doom import DoomConfig

Game = Annotated[DoomConfig | CarRacingConfig | GymConfig, Field(discriminator="kind")]


def references(rules: str) -> tuple[Reference, ...]:
    """Return the published scores under some rules, of whatever game.

    >>> [reference.mean for reference in references("takecover-skill4-limit2100")]
    [1092, 210]
    """
    return next((kind.published[rules] for kind in get_args(get_args(Game)[0]) if rules in kind.published), ())
