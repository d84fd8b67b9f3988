"""SAC of stable-baselines3 (Haarnoja et al. 2018), on the features of any world: it learns from each step many times.

The mean of the library's actor before its tanh is C's, so what SAC leaves is an ordinary C. Its critics learn from the newest
steps that the phase has played.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from worldmodels.controller.phases.base import Context, Generation, Given, Place
from worldmodels.controller.phases.library import Layers, Taught, TaughtConfig
from worldmodels.learning.resume import restore, state_of

ENTROPY = 0.01
"""What a nat of the actor's entropy is worth at the start. The library's 1 would drown what C has learned before."""
KEPT = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""What the library's memory of steps has of each."""


class SACConfig(TaughtConfig):
    """A stretch of SAC."""

    kind: Literal["sac"] = "sac"
    world: Place = "game"
    gradient_steps: int = Field(default=1, ge=1, le=1000)  # for each step of all games
    batch_size: int = Field(default=256, ge=2, le=1_000_000)  # steps of a gradient step
    remembered: int = Field(default=100_000, ge=2, le=10_000_000)  # newest steps that it learns from
    learning_rate: float = Field(default=0.0003, gt=0, le=1)

    def check(self, given: Given) -> list[str]:
        wrong = super().check(given)
        if given.game.choices:
            wrong.append("SAC is for actions that are numbers, and those of the game are choices: take ppo")
        return wrong

    def open(self, context: Context, begin: np.ndarray | None) -> "SAC":
        return SAC(self, context, begin)


class SAC(Taught):
    """SAC on one C."""

    def __init__(self, config: SACConfig, context: Context, begin: np.ndarray | None) -> None:
        super().__init__(config, context, squashed=True)
        from stable_baselines3 import SAC as Library

        model = context.model
        self.algorithm = Library(
            "MlpPolicy",
            self.env,
            learning_rate=config.learning_rate,
            buffer_size=config.remembered,
            learning_starts=0,
            batch_size=config.batch_size,
            gamma=config.discount,
            gradient_steps=config.gradient_steps,
            ent_coef=f"auto_{ENTROPY}",
            policy_kwargs={
                "net_arch": {"pi": [model.hidden] if model.hidden else [], "qf": [256, 256]},
                "activation_fn": nn.Tanh,
            },
            seed=context.draw(-1) % 2**32,
            device="cpu",
        )
        actor: Any = self.algorithm.actor
        self.c = Layers([*actor.latent_pi, actor.mu], model, self.first(begin))
        with torch.no_grad():
            actor.log_std.weight.zero_()
            actor.log_std.bias.fill_(float(np.log(config.noise)))

    def generation(self, number: int) -> Generation:
        """Play on, and learn after every step."""
        logged = self.learn(number, self.algorithm.actor.log_std.parameters())
        return self.told(entropy_worth=float(logged["train/ent_coef"]), critic_loss=float(logged["train/critic_loss"]))

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the next generation depends on: the networks, and the steps that it learns from."""
        found: dict[str, Tensor] = {}
        memory = self.algorithm.replay_buffer
        for prefix, model, optimiser in self._learned():
            found |= state_of(model, optimiser, prefix)
        found |= {f"target/{name}": tensor for name, tensor in self.algorithm.critic_target.state_dict().items()}
        size = memory.buffer_size if memory.full else memory.pos
        found |= {f"steps/{name}": torch.from_numpy(getattr(memory, name)[:size]) for name in KEPT}
        return found | {"place": torch.tensor([memory.pos, int(memory.full)])}

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        memory = self.algorithm.replay_buffer
        for prefix, model, optimiser in self._learned():
            restore(model, optimiser, kept, prefix)
        target = {name: kept[f"target/{name}"] for name in self.algorithm.critic_target.state_dict()}
        self.algorithm.critic_target.load_state_dict(target)
        for name in KEPT:
            steps = kept[f"steps/{name}"].numpy()
            getattr(memory, name)[: len(steps)] = steps
        memory.pos, memory.full = int(kept["place"][0]), bool(kept["place"][1])

    def _learned(self) -> Iterator[tuple[str, nn.Module, Any]]:
        sac = self.algorithm
        worth = nn.Module()
        worth.register_buffer("log", sac.log_ent_coef)
        yield "actor/", sac.actor, sac.actor.optimizer
        yield "critic/", sac.critic, sac.critic.optimizer
        yield "entropy/", worth, sac.ent_coef_optimizer
