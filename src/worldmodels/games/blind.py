"""Policies that do not look, as data: what a game declares of them. ``rollout/policies.py`` plays them."""

from typing import Annotated

from pydantic import Field, model_validator

from worldmodels.params import Config

Number = Annotated[float, Field(ge=-100, le=100)]


class RandomPolicyConfig(Config):
    """Random actions, held for a while.

    An action component is ``mean + bias * u_episode + scale * u``, clipped to [-1, 1], with u uniform in [-1, 1], or walking.
    """

    # an episode draws one of these; each of its actions is then held for 1 to that many steps (uniform)
    holds: list[Annotated[int, Field(ge=1, le=1_000_000)]] = Field(default=[1], min_length=1)
    # an episode draws one of these, w: 0 draws each u afresh; above, u wanders (Brownian, w near 1), as ``w * u + sqrt(1 -
    # w^2) * (a fresh one)``
    walks: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[0.0], min_length=1)
    mean: list[Number] = Field(min_length=1)  # centre, one for each action component
    scale: list[Number] = Field(min_length=1)  # half width, one for each action component
    bias: list[Number] = Field(min_length=1)  # half width of an offset that an episode keeps, one for each action component

    @model_validator(mode="after")
    def _same_sizes(self) -> "RandomPolicyConfig":
        if len({len(self.mean), len(self.scale), len(self.bias)}) != 1:
            raise ValueError("mean, scale and bias need one number for each action component, the same count in all three")
        return self


class ScriptedConfig(Config):
    """A policy that takes two actions in turn.

    Attributes:
        first, second: the actions, one number for each component.
    """

    name: str = Field(min_length=1)  # in tables and figures
    first: list[Number] = Field(min_length=1)
    second: list[Number] = Field(min_length=1)
    period: int = Field(default=1, ge=1, le=1_000_000)  # steps for which each is held

    @model_validator(mode="after")
    def _same_sizes(self) -> "ScriptedConfig":
        if len(self.first) != len(self.second):
            raise ValueError("first and second need one number for each action component, the same count in both")
        return self


Blind = RandomPolicyConfig | ScriptedConfig
