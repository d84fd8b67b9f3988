"""PPO of stable-baselines3 (Schulman et al. 2017), on the features of any world.

The policy is C itself: its mean before the last tanh is C's, and its noise lies there too. If an action is choices, C's numbers
before the last tanh are the log weights of the options, one of which is drawn. What PPO leaves is an ordinary C.
Its critic says what the rest of an episode is worth, so short dreams need not be short-sighted.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from worldmodels.controller.phases.base import Context, Generation, Given
from worldmodels.controller.phases.library import Layers, Taught, TaughtConfig
from worldmodels.learning.resume import restore, state_of
from worldmodels.worlds.curiosity import Curious


class PPOConfig(TaughtConfig):
    """A stretch of PPO."""

    kind: Literal["ppo"] = "ppo"
    num_envs: int = Field(default=128, ge=1, le=4096)
    num_steps: int = Field(default=64, ge=2, le=1_000_000)
    critic_updates: int = Field(default=5, ge=0, le=100_000)
    discount: float = Field(default=0.985, gt=0, lt=1)
    # how often; the first goes on from C, every other begins with weights of its own, and the selection keeps the best C of
    # them all. Cs that a dream finds alike may be far apart in the game
    runs: int = Field(default=1, ge=1, le=1000)
    epochs: int = Field(default=6, ge=1, le=1000)  # passes over a collection
    batch_size: int = Field(default=1024, ge=2, le=1_000_000)  # steps of a gradient step
    pay: Literal["return", "hazard", Curious] = "return"

    @property
    def repeats(self) -> int:
        return self.runs

    def check(self, given: Given) -> list[str]:
        steps, wrong = self.num_envs * self.num_steps, super().check(given)
        if self.batch_size > steps:
            wrong.append(f"batch_size is {self.batch_size:,}, and a collection has num_envs * num_steps = {steps:,} steps")
        return wrong

    def open(self, context: Context, begin: np.ndarray | None) -> "PPO":
        return PPO(self, context, begin)


class PPO(Taught):
    """PPO on one C."""

    def __init__(self, config: PPOConfig, context: Context, begin: np.ndarray | None) -> None:
        super().__init__(config, context)
        from stable_baselines3 import PPO as Library

        model = context.model
        self.algorithm = Library(
            "MlpPolicy",
            self.env,
            n_steps=config.num_steps,
            batch_size=config.batch_size,
            n_epochs=config.epochs,
            learning_rate=config.learning_rate,
            gamma=config.discount,
            policy_kwargs={
                "net_arch": {"pi": [model.hidden] if model.hidden else [], "vf": [64, 64]},
                "activation_fn": nn.Tanh,
                "log_std_init": float(np.log(config.noise)),
            },
            seed=context.draw(-1) % 2**32,
            device="cpu",
        )
        policy = self.algorithm.policy
        self.c = Layers([*policy.mlp_extractor.policy_net, policy.action_net], model, self.first(begin))

    def generation(self, number: int) -> Generation:
        """Collect, and update."""
        noise = self._noise()
        logged = self.learn(number, noise)
        spread = {"noise": float(noise[0].detach().exp().mean())} if noise else {}
        return self.told(
            **spread, entropy=-float(logged["train/entropy_loss"]), explained=float(logged["train/explained_variance"])
        )

    def _noise(self) -> list[Tensor]:
        """Return the log standard deviations of the noise, one tensor; none if an action is choices."""
        return [] if self.context.worlds.game.choices else [self.algorithm.policy.log_std]

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the next generation depends on."""
        return state_of(self.algorithm.policy, self.algorithm.policy.optimizer)

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        restore(self.algorithm.policy, self.algorithm.policy.optimizer, kept)
