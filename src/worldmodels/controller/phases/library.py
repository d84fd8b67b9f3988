"""What the phases have in common in which stable-baselines3 teaches C: C is some layers of the library's network."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.worlds import Worlds
from worldmodels.errors import WorldModelsError
from worldmodels.worlds.pay import Pay

REWARD_SCALE = 0.1
"""Of what the critic sees if C is paid with something that is not in the data, or the data have no rewards."""


def reward_scale(worlds: Worlds, discount: float, pay: Pay) -> float:
    """Return the factor of the rewards that a critic sees: its errors must not be larger than all that can be won."""
    spread = worlds.spread(discount) if pay == "return" else 0.0
    return 1 / spread if spread > 0 else REWARD_SCALE


def lacking(kind: str, error: ImportError) -> WorldModelsError:
    """Return what to say if a phase of a ``kind`` finds no stable-baselines3."""
    return WorldModelsError(
        f"a phase of the kind `{kind}` needs stable-baselines3 ({error}): pip install 'worldmodels[ppo]' "
        "(in a clone: pip install -c requirements.lock -e '.[ppo]')."
    )


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
            for layer, (weight, bias) in zip(self._layers, weights.weights(torch.zeros(1, dtype=torch.int64)), strict=True):
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
