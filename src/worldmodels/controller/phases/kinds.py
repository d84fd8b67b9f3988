"""The registry of kinds: a new kind of phase is one more file in this folder, and one more name here."""

from typing import Annotated

from pydantic import Field

from worldmodels.controller.phases.cmaes import CMAESConfig
from worldmodels.controller.phases.ppo import PPOConfig
from worldmodels.controller.phases.sac import SACConfig
from worldmodels.controller.phases.skill import SkillConfig
from worldmodels.controller.phases.value_gradient import ValueGradientConfig

Phase = Annotated[CMAESConfig | PPOConfig | SACConfig | ValueGradientConfig | SkillConfig, Field(discriminator="kind")]
