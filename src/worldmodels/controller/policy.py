"""Controllers as a policy: each lane is driven by its job's candidate."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.controller.model import Controllers, act
from worldmodels.shapes import Job


class ControllerPolicy:
    """Drives every lane with its candidate of a stack, all lanes in one batched product."""

    def __init__(self, controllers: Controllers) -> None:
        self.controllers = controllers
        self._candidates = torch.zeros(0, dtype=torch.int64)

    def start(self, jobs: Sequence[Job]) -> None:
        self._select(torch.cat([self._candidates, torch.tensor([job.candidate for job in jobs], dtype=torch.int64)]))

    @torch.inference_mode()
    def act(self, features: Tensor) -> Tensor:
        return act(features, self._weights)

    def keep(self, lanes: Tensor) -> None:
        self._select(self._candidates[lanes])

    def _select(self, candidates: Tensor) -> None:
        self._candidates = candidates
        self._weights = self.controllers.weights(candidates)
