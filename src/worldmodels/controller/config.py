"""A section of ``controllers``: the shape of C, the phases by which it learns, and the choice of the C that is kept."""

from typing import Literal

from pydantic import Field, model_validator

from worldmodels.controller.model import ControllerConfig
from worldmodels.controller.phases.kinds import Phase
from worldmodels.controller.selection import SelectionConfig
from worldmodels.params import Config


class ControllerSection(Config):
    """How C is searched for."""

    model: ControllerConfig  # shape of C
    # names of the phases, in the order in which they come. Every phase begins at the C of the phase before it
    order: list[str] = Field(min_length=1)
    phases: dict[str, Phase]  # by name
    selection: SelectionConfig = SelectionConfig()  # which contestant is kept
    # M as it was trained, or an M of the same shape that was never trained (a random reservoir, as a comparison)
    memory: Literal["trained", "untrained"] = "trained"
    # how dreams end, ``sampled`` or ``threshold``, if otherwise than M was set to; M is not trained for it
    ending: Literal["sampled", "threshold"] | None = None

    @property
    def generations(self) -> int:
        """Generations of all phases and their runs."""
        return sum(self.phases[name].per_run * self.phases[name].repeats for name in self.order)

    @model_validator(mode="after")
    def _order_names_the_phases(self) -> "ControllerSection":
        if sorted(self.order) != sorted(self.phases):
            raise ValueError(f"order must name each phase once: {', '.join(self.phases)}; it says {', '.join(self.order)}")
        return self

    @model_validator(mode="after")
    def _phases_can_run(self) -> "ControllerSection":
        for name in self.order:
            phase = self.phases[name]
            if phase.repeats > 1 and (name != self.order[-1] or not self.selection.episodes):
                raise ValueError(f"`{name}` has several runs: it must be the last phase, and the selection needs episodes")
            if phase.needs_bias and not self.model.bias:
                raise ValueError(f"`{name}` needs a C with biases: set model.bias: true")
            pay = getattr(phase, "pay", "return")
            if pay in ("hazard", "disagreement") and phase.world == "game" and self.model.features == "z":
                told = "M's hazard" if pay == "hazard" else "what M remembers"
                raise ValueError(f"`{name}` is paid with {told}: in the game it needs features with h (zh, zch)")
            if self.memory == "untrained" and (phase.world == "dream" or pay != "return"):
                raise ValueError(f"`{name}` needs an M that was trained; memory: untrained has no dreams and foretells nothing")
        return self
