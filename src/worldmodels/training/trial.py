"""A trial: another search for C on V and M of an iteration, to be compared with others of its study."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from worldmodels.errors import ParamsError
from worldmodels.params import Config, validate
from worldmodels.controller.training import ControllerTraining
from worldmodels.learning.fit import Row


class TrialConfig(Config):
    """An entry of ``trials`` in params.yaml.

    Attributes:
        env: its environment.
        of: the iteration whose data it takes.
        agent: whose V and M it takes, and C, if it begins there: ``of`` itself, or ``trials/KEY``, another trial of it.
        study: the figure in which it stands.
        variant: its name there.
        seed: of its search; trials of the same variant differ in it.
        memory: the agent's M, or one of the same shape that was never trained (a random reservoir).
        ending: how its dreams end, ``MemoryConfig.ending``; M is not trained for it.
        begin: the search begins at the agent's C (of another shape: at one that acts alike, ``imitation``), or at zeros.
        controller: what is otherwise than in the environment's ``controller`` section, e.g. ``{dream: {generations: 0}}``.
        episodes: test episodes.
        world: they are played on the back end that scores, or on the one that trains, which may be faster.
    """

    env: str
    of: str
    agent: str
    study: str = Field(pattern=r"^[a-z0-9-]+$")
    variant: str = Field(min_length=1)
    seed: int = Field(ge=0)
    memory: Literal["trained", "untrained"]
    ending: Literal["threshold", "sampled"]
    begin: Literal["zeros", "agent"]
    controller: dict[str, Any]
    episodes: int = Field(ge=2, le=100_000)
    world: Literal["scoring", "training"]


def trial_training(section: Mapping[str, Any], trial: TrialConfig, key: str) -> ControllerTraining:
    """Return the search of a trial.

    Args:
        section: the environment's ``controller`` section, as params.yaml has it.
        trial: the trial.
        key: its name, for messages.

    Raises:
        ParamsError: where what it changes is unknown or impossible.
    """
    evolution = trial.controller.get("evolution")
    if isinstance(evolution, Mapping) and "seed" in evolution:
        raise ParamsError(f"trials.{key}.controller.evolution.seed: a trial's seed is `trials.{key}.seed`; take this one out.")
    changed = _over(_over(section, trial.controller), {"evolution": {"seed": trial.seed}})
    training: ControllerTraining = validate(changed, f"trials.{key}.controller", ControllerTraining)
    return training


def steps_played(curve: Sequence[Row], training: ControllerTraining) -> dict[str, int]:
    """Return how many steps a search learned from in the ``dream`` and in the ``real`` game; ``curve`` is ``Found.curve``.

    >>> steps_played([{"phase": "dream", "steps": 7}, {"phase": "selection"}], ...)
    {'dream': 7, 'real': 0}
    """
    played = {"dream": 0, "real": 0}
    for row in curve:
        phase = str(row["phase"])
        world = training.ppo.world if phase == "ppo" else "real" if phase == "gradient" else phase
        if world in played:
            played[world] += int(row["steps"])
    return played


def _over(base: Any, change: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(change, Mapping):
        return change
    return {**base, **{name: _over(base.get(name), value) for name, value in change.items()}}
