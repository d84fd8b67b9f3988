"""C begins with the skill that M has absorbed: it imitates the actions that M foretells (paper, section 5)."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worldmodels.controller.imitation import BATCH, imitate_actions
from worldmodels.controller.model import Controllers, act
from worldmodels.controller.phases.base import Context, Generation, Given, PhaseConfig, Place


class SkillConfig(PhaseConfig):
    """The imitation of M's a'. It is over in one generation, and forgets the C that it begins at."""

    kind: Literal["skill"] = "skill"
    world: Place = "dream"  # neither is played: it reads the data
    # frames at the end of the data on which C imitates M: what the latest players saw
    newest: int = Field(default=150_000, ge=1_000, le=1_000_000_000)
    needs_bias: ClassVar[bool] = True

    @property
    def per_run(self) -> int:
        return 1

    def check(self, given: Given) -> list[str]:
        told = "the skill is told by M's head for actions: set memory.model.next_action: true"
        return [] if given.memory.next_action else [told]

    def open(self, context: Context, begin: np.ndarray | None) -> "Skill":
        return Skill(self, context)


class Skill:
    """The imitation; a ``Learner``."""

    def __init__(self, config: SkillConfig, context: Context) -> None:
        self._config, self._context = config, context
        self.state: dict[str, Tensor] = {}

    def generation(self, number: int) -> Generation:
        """Imitate."""
        context, model = self._context, self._context.model
        features, actions = context.worlds.skill(context.draw("seen"), self._config.newest)
        parameters = imitate_actions(actions, model, features, seed=context.draw("imitation"))
        one = Controllers(model, torch.from_numpy(parameters).float()[None], features.shape[1], actions.shape[1])
        rows = zip(torch.from_numpy(features).float().split(BATCH), actions.split(BATCH), strict=True)
        missed = [(act(seen, one.alone) - wanted).square() for seen, wanted in rows]
        return Generation(parameters, np.array([]), 0, {"imitation_error": float(torch.cat(missed).mean())})

    def close(self) -> None:
        """Nothing to free."""
