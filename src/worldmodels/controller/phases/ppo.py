"""C by policy gradients: PPO from stable-baselines3, on the features of any world.

The policy is C itself: its mean before the last tanh is C's, and its noise lies there too. What PPO leaves is an ordinary C.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from worldmodels.rollout.world import World
from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.training import Generation
from worldmodels.controller.phases.config import PPOPhase
from worldmodels.learning.resume import restore, state_of

REWARD_SCALE = 0.1
"""Rewards as the critic sees them: returns are then of the order of ten."""
REACH = 10.0
"""Bound of an action before its tanh; stable-baselines3 asks for one."""


class WorldVecEnv(VecEnv):
    """A ``World`` as stable-baselines3 wants it: a fixed number of lanes, where the next episode follows at once.

    Args:
        world: without lanes; it is neither opened nor closed here.
        lanes: B.
        seeds: of the episodes, in the order in which they begin.
    """

    def __init__(self, world: World, lanes: int, seeds: Iterator[int]) -> None:
        shape, actions = (world.feature_size,), (world.action_size,)
        super().__init__(lanes, Box(-np.inf, np.inf, shape, np.float32), Box(-REACH, REACH, actions, np.float32))
        self.world, self.seeds = world, seeds
        self.finished: list[float] = []
        self.paid = 0.0
        self._total = np.zeros(lanes)
        self._lanes = np.zeros(0, np.int64)  # where the world's lanes are among ours
        self._actions = np.zeros((lanes, world.action_size), np.float32)

    def reset(self) -> np.ndarray:
        """Begin an episode in every lane; return features (B, F)."""
        self.world.keep(torch.zeros(0, dtype=torch.int64))
        self._lanes = np.arange(self.num_envs)
        self._total[:] = 0
        self.world.start([next(self.seeds) for _ in self._lanes])
        return self._features()

    def step_async(self, actions: np.ndarray) -> None:
        """Note actions (B, A), before their tanh."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Return features (B, F), rewards (B,), which lanes ended (B,), and how."""
        step = self.world.step(torch.tanh(torch.from_numpy(self._actions[self._lanes])))
        rewards, over = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in over]
        rewards[self._lanes] = step.reward.numpy()
        self._total += rewards
        self.paid += float(rewards.sum())
        ended = step.terminal | step.truncated
        if bool(ended.any()):
            last = self._features()
            lanes = self._lanes[ended.numpy()]
            over[lanes] = True
            for lane, cut in zip(lanes, step.truncated[ended].tolist(), strict=True):
                infos[lane] = {"terminal_observation": last[lane], "TimeLimit.truncated": cut}
            self.finished += self._total[lanes].tolist()
            self._total[lanes] = 0
            self.world.keep(torch.nonzero(~ended).flatten())
            self.world.start([next(self.seeds) for _ in lanes])
            self._lanes = np.concatenate([self._lanes[~ended.numpy()], lanes])
        return self._features(), rewards * REWARD_SCALE, over, infos

    def _features(self) -> np.ndarray:
        features = np.empty((self.num_envs, self.world.feature_size), np.float32)
        features[self._lanes] = self.world.features().cpu().numpy()
        return features

    def close(self) -> None:
        """Nothing to free: the world is its owner's."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the lanes: they have none but what every environment has."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that no lane is wrapped."""
        return [False] * self.num_envs


class Refinement:
    """PPO on one C.

    Each generation begins with new episodes and its own random numbers: it depends on ``state`` and its number alone.

    Args:
        phase: the settings.
        model: the shape of C.
        world: where to play, without lanes.
        start: parameters of C, (N,).
        seed: of the critic's first weights and of all noise; the seed of generation g is ``seed(g)``.
        episodes: the episodes of generation g, ``episodes(g)``.
    """

    def __init__(
        self,
        phase: PPOPhase,
        model: ControllerConfig,
        world: World,
        start: np.ndarray,
        *,
        seed: Callable[[int], int],
        episodes: Callable[[int], Iterator[int]],
    ) -> None:
        self._phase, self._seed, self._episodes = phase, seed, episodes
        self._env = WorldVecEnv(world, phase.lanes, iter(()))
        self._ppo = PPO(
            "MlpPolicy",
            self._env,
            n_steps=phase.limit,
            batch_size=phase.batch,
            n_epochs=phase.epochs,
            learning_rate=phase.learning_rate,
            gamma=phase.discount,
            policy_kwargs={
                "net_arch": {"pi": [model.hidden] if model.hidden else [], "vf": [64, 64]},
                "activation_fn": nn.Tanh,
                "log_std_init": float(np.log(phase.noise)),
            },
            seed=seed(-1) % 2**32,
            device="cpu",
        )
        policy = self._ppo.policy
        layers: Sequence[nn.Module] = [*policy.mlp_extractor.policy_net, policy.action_net]
        self._layers = [layer for layer in layers if isinstance(layer, nn.Linear)]
        weights = Controllers(model, torch.from_numpy(start.astype(np.float32))[None], world.feature_size, world.action_size)
        self._bias = model.bias
        with torch.no_grad():
            for layer, (weight, bias) in zip(self._layers, weights.weights(torch.zeros(1, dtype=torch.int64)), strict=True):
                layer.weight.copy_(weight[0])
                layer.bias.zero_()
                layer.bias.requires_grad_(model.bias)
                if bias is not None:
                    layer.bias.copy_(bias[0])

    def generation(self, number: int) -> Generation:
        """Collect, and update."""
        set_random_seed(self._seed(number) % 2**32)
        self._env.seeds, self._env.finished, self._env.paid = self._episodes(number), [], 0.0
        for parameter in [*self._parts(), self._ppo.policy.log_std]:
            parameter.requires_grad_(number >= self._phase.critic_generations)
        rate = self._phase.learning_rate_at(number)
        self._ppo.lr_schedule = lambda _: rate  # the library's own goes along one collection
        self._ppo._last_obs = None  # the library keeps lanes going from one collection to the next
        steps = self._phase.lanes * self._phase.limit
        self._ppo.learn(steps, log_interval=10**9)
        return Generation(
            parameters=self.parameters,
            returns=[] if self._phase.risk else self._env.finished,
            ended=len(self._env.finished),
            reward=self._env.paid / steps,
            steps=steps,
            noise=float(self._ppo.policy.log_std.detach().exp().mean()),
            explained=float(self._ppo.logger.name_to_value["train/explained_variance"]),
        )

    def close(self) -> None:
        """Close the world."""
        self._env.world.close()

    @property
    def parameters(self) -> np.ndarray:
        """C as it is now, (N,) float64."""
        return torch.cat([part.detach().flatten() for part in self._parts()]).double().numpy()

    def _parts(self) -> list[Tensor]:
        return [part for layer in self._layers for part in ([layer.weight, layer.bias] if self._bias else [layer.weight])]

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the next generation depends on."""
        return state_of(self._ppo.policy, self._ppo.policy.optimizer)

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        restore(self._ppo.policy, self._ppo.policy.optimizer, kept)
