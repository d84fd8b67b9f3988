"""PPO of stable-baselines3 (Schulman et al. 2017), on the features of any world.

The policy is C itself: its mean before the last tanh is C's, and its noise lies there too. If an action is choices, C's numbers
before the last tanh are the log weights of the options, one of which is drawn. What PPO leaves is an ordinary C.
Its critic says what the rest of an episode is worth, so short dreams need not be short-sighted.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from worldmodels.controller.phases.base import Context, Generation, Given, LearnerConfig, PaidConfig
from worldmodels.controller.phases.library import Layers, lacking, reward_scale
from worldmodels.learning.resume import restore, state_of
from worldmodels.worlds.curiosity import Curious


class PPOConfig(PaidConfig, LearnerConfig):
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


class PPO:
    """PPO on one C; a ``Learner``.

    Each generation begins with new episodes and its own random numbers: it depends on ``state`` and its number alone.

    Raises:
        WorldModelsError: stable-baselines3 is not installed.
    """

    def __init__(self, config: PPOConfig, context: Context, begin: np.ndarray | None) -> None:
        try:
            from stable_baselines3 import PPO as Library

            from worldmodels.controller.phases.vec_env import WorldVecEnv
        except ImportError as error:
            raise lacking("ppo", error) from None
        self._config, self._context = config, context
        model, worlds = context.model, context.worlds
        # In the dream one step more than is played: what a dream that is cut off is worth is the critic's to say.
        world = config.opener(worlds, config.num_steps + (config.world == "dream"))()
        scale = reward_scale(worlds, config.discount, config.pay)
        self._env = WorldVecEnv(world, config.num_envs, iter(()), scale, worlds.game.choices)
        self._ppo = Library(
            "MlpPolicy",
            self._env,
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
        policy = self._ppo.policy
        start = context.first_parameters() if begin is None else begin
        self._c = Layers([*policy.mlp_extractor.policy_net, policy.action_net], model, start)

    def generation(self, number: int) -> Generation:
        """Collect, and update."""
        from stable_baselines3.common.utils import set_random_seed

        config, context = self._config, self._context
        set_random_seed(context.draw(number) % 2**32)
        steps = config.num_envs * config.num_steps
        self._env.begin(context.episodes(config.purpose, number * steps))
        for parameter in [*self._c.parts, *self._noise()]:
            parameter.requires_grad_(number >= config.critic_updates)
        rate = config.learning_rate_at(number)
        self._ppo.lr_schedule = lambda _: rate  # the library's own goes along one collection
        self._ppo._last_obs = None  # the library keeps lanes going from one collection to the next
        self._ppo.learn(steps, log_interval=10**9)
        logged, noise = self._ppo.logger.name_to_value, self._noise()
        told = {
            "ended": len(self._env.finished),
            "reward": self._env.paid / steps,
            **({"noise": float(noise[0].detach().exp().mean())} if noise else {}),
            "entropy": -float(logged["train/entropy_loss"]),
            "explained": float(logged["train/explained_variance"]),
        }
        returns = np.array(self._env.finished if config.pay == "return" else [])
        return Generation(self.parameters, returns, steps, told)

    def close(self) -> None:
        """Close the world."""
        self._env.world.close()

    @property
    def parameters(self) -> np.ndarray:
        """C as it is now, (N,) float64."""
        return self._c.parameters

    def _noise(self) -> list[Tensor]:
        """Return the log standard deviations of the noise, one tensor; none if an action is choices."""
        return [] if self._context.worlds.game.choices else [self._ppo.policy.log_std]

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the next generation depends on."""
        return state_of(self._ppo.policy, self._ppo.policy.optimizer)

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        restore(self._ppo.policy, self._ppo.policy.optimizer, kept)
