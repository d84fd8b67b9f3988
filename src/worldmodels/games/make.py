"""The registry of games: from the ``game`` section of params.yaml to games that run. A new game is one more class here."""

from typing import Annotated, get_args

from pydantic import Field

from worldmodels.games.any_gym import GymConfig
from worldmodels.games.base import Reference
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.doom import DoomConfig

Game = Annotated[DoomConfig | CarRacingConfig | GymConfig, Field(discriminator="kind")]


def reference(rules: str) -> Reference | None:
    """Return the paper's score under some rules, of whatever game; None if it has none.

    >>> reference("takecover-skill4-limit2100")
    Reference(mean=1092, std=556, n=100)
    """
    return next((kind.published[rules] for kind in get_args(get_args(Game)[0]) if rules in kind.published), None)
