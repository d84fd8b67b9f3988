"""The one gradient loop."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from worldmodels.errors import WorldModelsError
from worldmodels.learning.resume import restore, state_of
from worldmodels.params import Config
from worldmodels.storage.checkpoint import Checkpoint

POINTS = 200
"""Points of a logged curve, about."""

Row = dict[str, float | int | str]
Observe = Callable[[Row], object]


class OptimiserConfig(Config):
    """Adam, with a learning rate that decays."""

    # gradient steps of a model that begins untrained; 0 leaves it so
    updates: int = Field(default=0, ge=0, le=10_000_000)
    passes: int = Field(default=0, ge=0, le=10_000)  # instead: as many as it takes to go through all data so often (paper)
    # gradient steps of a model that goes on from the previous iteration's
    warm_updates: int = Field(default=0, ge=0, le=10_000_000)
    batch: int = Field(default=32, ge=1, le=65_536)  # frames (V) or sequences (M) of a gradient step
    learning_rate: float = Field(default=0.001, gt=0, le=1)  # at the start
    # at the start of a model that goes on: lower, so that the model keeps what it knows
    warm_learning_rate: float = Field(default=0.0005, gt=0, le=1)
    # at the end; equal to ``learning_rate`` if it is not to decay
    final_learning_rate: float = Field(default=0.0001, gt=0, le=1)
    # how it gets there. 0: by a cosine, with the last update. Above: an update leaves this share of the way (paper, M of Take
    # Cover: 0.99999)
    decay: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_budget(self) -> "OptimiserConfig":
        if len({"updates", "passes"} & self.model_fields_set) != 1:
            raise ValueError("name either updates or passes")
        return self

    def warm(self) -> "OptimiserConfig":
        """Return this for a model that goes on from the previous iteration's."""
        return self.model_copy(update={"updates": self.warm_updates, "passes": 0, "learning_rate": self.warm_learning_rate})

    def counted(self, items: float) -> "OptimiserConfig":
        """Return this with its passes as updates, for data of so many frames (V) or sequences (M); each pass is whole batches.

        >>> OptimiserConfig(passes=10, batch=100).counted(2_050).updates
        200
        """
        return self.model_copy(update={"updates": self.passes * max(1, int(items / self.batch))}) if self.passes else self


def fit(
    model: nn.Module,
    loss: Callable[[int], Mapping[str, Tensor]],
    config: OptimiserConfig,
    *,
    updates: Iterable[int],
    observe: Observe,
    validate: Callable[[], Mapping[str, float]],
    clip: float,
    checkpoint: Checkpoint | None = None,
    carried: dict[str, Tensor] | None = None,
) -> list[Row]:
    """Train a model in place; return its curve. With 0 updates the model stays as it is and is judged all the same.

    Args:
        model: what to train.
        loss: from the number of the update to named terms; ``loss`` among them is minimised.
        config: of the optimiser.
        updates: 0 .. config.updates - 1, possibly wrapped to show progress.
        observe: called with each row of the curve.
        validate: named terms on held-out data; called about ten times.
        clip: greatest norm of the gradient.
        checkpoint: saved now and then; if it holds a state, training goes on from there.
        carried: what ``loss`` carries from one update to the next, changed in place; kept with the checkpoint.

    Raises:
        WorldModelsError: the loss is no longer a number.
    """
    optimiser = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    every = max(1, config.updates // POINTS)
    check = max(1, config.updates // 10)
    curve: list[Row] = []
    tensors, values = checkpoint.load() if checkpoint else ({}, {})
    done = values.get("updates", 0)
    if values:
        curve = values["curve"]
        restore(model, optimiser, tensors)
        if carried is not None:
            carried.update({name: tensors[f"carried/{name}"].to(tensor.device) for name, tensor in carried.items()})
    if not config.updates:
        model.eval()
        curve.append({"update": 0, "split": "validation", **validate()})
    model.train()
    for update in updates:
        if update < done:
            continue
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, update)
        optimiser.zero_grad(set_to_none=True)
        terms = loss(update)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
        if not bool(torch.isfinite(norm)):
            raise WorldModelsError(
                f"the gradient is not finite at update {update} (loss {terms['loss'].item():g}). Lower "
                f"optimiser.learning_rate (now {config.learning_rate:g})."
            )
        optimiser.step()
        last = update == config.updates - 1
        if update % every == 0 or last:
            values = {name: value.item() for name, value in terms.items()}
            curve.append({"update": update, "split": "train", **values})
            observe(curve[-1])
        if (update + 1) % check == 0 or last:
            model.eval()
            held_out = dict(validate())
            model.train()
            curve.append({"update": update, "split": "validation", **held_out})
            observe(curve[-1])
        if checkpoint and checkpoint.due():
            kept = {f"carried/{name}": tensor for name, tensor in (carried or {}).items()}
            checkpoint.save(state_of(model, optimiser) | kept, {"updates": update + 1, "curve": curve})
    model.eval()
    return curve


def learning_rate(config: OptimiserConfig, update: int) -> float:
    """Return the rate of an update."""
    left = config.decay**update if config.decay else 0.5 * (1 + math.cos(math.pi * (update / config.updates)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left
