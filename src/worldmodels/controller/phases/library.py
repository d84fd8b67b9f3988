"""What the phases have in common in which stable-baselines3 teaches C: C is some layers of the library's network."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.phases.base import Context, Generation, LearnerConfig, PaidConfig
from worldmodels.controller.worlds import Worlds
from worldmodels.errors import WorldModelsError
from worldmodels.worlds.pay import Pay

REWARD_SCALE = 0.1
"""Of what the critic sees if C is paid with something that is not in the data, or the data have no rewards."""


def reward_scale(worlds: Worlds, discount: float, pay: Pay) -> float:
    """Return the factor of the rewards that a critic sees: its errors must not be larger than all that can be won."""
    spread = worlds.spread(discount) if pay == "return" else 0.0
    return 1 / spread if spread > 0 else REWARD_SCALE


class Layers:
    """The linear layers of a network that are C.

    Args:
        modules: of the network, in order; those that are linear are C's layers.
        model: shape of C.
        start: the parameters (N,) that the layers take.
    """

    def __init__(self, modules: Iterable[nn.Module], model: ControllerConfig, start: np.ndarray) -> None:
        self._layers = [layer for layer in modules if isinstance(layer, nn.Linear)]
        self._bias = model.bias
        inputs, actions = self._layers[0].in_features, self._layers[-1].out_features
        weights = Controllers(model, torch.from_numpy(start.astype(np.float32))[None], inputs, actions)
        with torch.no_grad():
            for layer, (weight, bias) in zip(self._layers, weights.alone, strict=True):
                layer.weight.copy_(weight[0])
                layer.bias.zero_()
                layer.bias.requires_grad_(model.bias)
                if bias is not None:
                    layer.bias.copy_(bias[0])

    @property
    def parts(self) -> list[Tensor]:
        """The tensors that are C's parameters."""
        return [part for layer in self._layers for part in ([layer.weight, layer.bias] if self._bias else [layer.weight])]

    @property
    def parameters(self) -> np.ndarray:
        """C as it is now, (N,) float64."""
        return torch.cat([part.detach().flatten() for part in self.parts]).double().numpy()


class TaughtConfig(PaidConfig, LearnerConfig):
    """What the kinds have in common that the library teaches."""


class Taught:
    """A ``Learner`` that is one of the library's algorithms, ``algorithm``, and whose C is its layers, ``c``.

    Each generation begins with new episodes and its own random numbers: it depends on ``state`` and its number alone.

    Args:
        config: of the phase.
        context: of the phase.
        squashed: the library takes the tanh of actions itself.

    Raises:
        WorldModelsError: stable-baselines3 is not installed.
    """

    algorithm: Any
    c: Layers

    def __init__(self, config: TaughtConfig, context: Context, *, squashed: bool = False) -> None:
        try:
            from worldmodels.controller.phases.vec_env import WorldVecEnv
        except ImportError as error:
            raise WorldModelsError(
                f"a phase of the kind `{config.kind}` needs stable-baselines3 ({error}): pip install 'worldmodels[ppo]' "
                "(in a clone: pip install -c requirements.lock -e '.[ppo]')."
            ) from None
        self.config, self.context, worlds = config, context, context.worlds
        # In the dream one step more than is played: what a dream that is cut off is worth is the critic's to say.
        world = config.opener(worlds, config.num_steps + (config.world == "dream"))()
        scale = reward_scale(worlds, config.discount, config.pay)
        self.env = WorldVecEnv(world, config.num_envs, iter(()), scale, worlds.game.choices, squashed=squashed)

    def first(self, begin: np.ndarray | None) -> np.ndarray:
        """Return the parameters (N,) at which C begins."""
        return self.context.first_parameters() if begin is None else begin

    def learn(self, number: int, noise: Iterable[Tensor]) -> dict[str, float]:
        """Play a generation and learn from it, with or without C and its ``noise``; return what the library logged."""
        from stable_baselines3.common.utils import set_random_seed

        config, context = self.config, self.context
        set_random_seed(context.draw(number) % 2**32)
        steps = config.num_envs * config.num_steps
        self.env.begin(context.episodes(config.purpose, number * steps))
        for parameter in [*self.c.parts, *noise]:
            parameter.requires_grad_(number >= config.critic_updates)
        rate = config.learning_rate_at(number)
        self.algorithm.lr_schedule = lambda _: rate  # the library's own goes along one collection
        self.algorithm._last_obs = None  # the library keeps lanes going from one collection to the next
        self.algorithm.learn(steps, log_interval=10**9)
        logged: dict[str, float] = self.algorithm.logger.name_to_value
        return logged

    def told(self, **figures: float) -> Generation:
        """Return the generation that was learned, with figures of the algorithm's own."""
        steps = self.config.num_envs * self.config.num_steps
        common = {"ended": len(self.env.finished), "reward": self.env.paid / steps}
        returns = np.array(self.env.finished if self.config.pay == "return" else [])
        return Generation(self.parameters, returns, steps, common | figures)

    @property
    def parameters(self) -> np.ndarray:
        """C as it is now, (N,) float64."""
        return self.c.parameters

    def close(self) -> None:
        """Close the world."""
        self.env.world.close()
