"""Training M on latents, which are sampled afresh from V's mean and variance for every batch (paper, appendix A.2)."""

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.learning.fit import Observe, OptimiserConfig, Row, fit
from worldmodels.memory.base import Memory
from worldmodels.memory.diagnostics import memory_figures, open_loop_error
from worldmodels.memory.make import MemoryConfig
from worldmodels.memory.prediction import MemoryLossConfig, Prediction, memory_loss, steps_so_far
from worldmodels.params import Config
from worldmodels.seeds import stream_seed
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.vision.model import sample_latent

HORIZONS = (1, 5, 10, 20, 30)
"""Steps ahead for which open-loop predictions are judged."""
JUDGED = 128
"""Held-out windows that M is judged on, at most."""
HELD_OUT = 0.05
"""Share of the rows, at the end, for validation."""


class MemoryTraining(Config):
    """The ``memory`` section of an environment."""

    model: MemoryConfig  # shape of M
    loss: MemoryLossConfig = MemoryLossConfig()  # weights of its terms
    optimiser: OptimiserConfig  # how it is trained; a batch is of sequences
    sequence: int = Field(default=64, ge=2, le=10_000)  # T, steps of a training sequence
    clip: float = Field(default=10.0, gt=0, le=1e9)  # greatest norm of the gradient; the paper's is as good as unbounded


def train_memory(
    model: Memory,
    rows: Mapping[str, Tensor],
    config: MemoryTraining,
    *,
    seed: int,
    updates: Iterable[int],
    observe: Observe,
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train M in place; return the curve. ``updates``, ``observe`` and ``checkpoint``: see ``fit``.

    Batches and noise depend on ``seed`` and on the number of the update alone. ``rows``: one row a frame, episodes one after
    the other: mean, log_variance (N, Z), action (N, A), reward, terminal, first (N,). A reward that is not known is NaN.

    Raises:
        WorldModelsError: a sequence is longer than the data, a batch would hold a frame twice, or M is to predict rewards and
            none is known.
    """
    rows = {name: tensor.to(model.device) for name, tensor in rows.items()}
    elapsed = steps_so_far(rows["first"])
    length = config.sequence + 1
    total = len(rows["first"])
    border = total - max(length, int(total * HELD_OUT))
    if border < length:
        raise WorldModelsError(
            f"{total} frames are too few to train M on sequences of {config.sequence}: collect more episodes."
        )
    batch = config.optimiser.batch * config.sequence
    if config.optimiser.updates and batch > border:
        raise WorldModelsError(
            f"memory.optimiser.batch of {config.optimiser.batch:,} sequences of {config.sequence:,} steps takes {batch:,} "
            f"frames, and there are {border:,} to learn from: lower batch or sequence, or collect more episodes."
        )

    model.learn_rewards(rows["reward"], rows["terminal"])
    carried = {"state": model.initial_state(config.optimiser.batch)}

    def loss(update: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(stream_seed(seed, "memory batch", update))
        epoch, place = divmod(update, max(1, border // (config.optimiser.batch * config.sequence)))
        window = epoch_lanes(border, config.optimiser.batch, stream_seed(seed, "memory epoch", epoch))
        window = (window[:, None] + place * config.sequence + torch.arange(length)) % border
        state = carried["state"] if place else model.initial_state(len(window), elapsed[window[:, 0]])
        prediction, z, happened, state = predict(model, rows, window, generator, state)
        carried["state"] = state.detach()
        return terms(model, prediction, z, happened, config.loss)

    return fit(
        model,
        loss,
        config.optimiser,
        updates=updates,
        observe=observe,
        validate=lambda: judge(model, rows, config, begin=border, seed=seed),
        clip=config.clip,
        checkpoint=checkpoint,
        carried=carried,
    )


def predict(
    model: Memory, rows: Mapping[str, Tensor], window: Tensor, generator: torch.Generator, state: Tensor
) -> tuple[Prediction, Tensor, dict[str, Tensor], Tensor]:
    """Return predictions for B windows of rows (B, T+1), latents sampled in them, what happened, and the state after.

    ``rows`` as of ``train_memory``, on M's device; ``state``: M's before the windows.
    """
    window = window.to(model.device)
    mean, log_variance = rows["mean"][window].float(), rows["log_variance"][window].float()
    noise = torch.randn(mean.shape, generator=generator).to(model.device)
    z = sample_latent(mean, log_variance, noise)
    here = window[:, :-1]
    happened = {name: rows[name][here] for name in ("action", "reward", "terminal")}
    happened["valid"] = ~rows["first"][window[:, 1:]]
    happened |= next_actions(rows, window) if model.config.next_action else {}
    prediction, _, state = model(z[:, :-1], happened["action"], rows["first"][here], state)
    return prediction, z, happened, state


@torch.inference_mode()
def judge(model: Memory, rows: Mapping[str, Tensor], config: MemoryTraining, *, begin: int, seed: int) -> dict[str, float]:
    """Return the terms of the loss and the figures of M (``memory/diagnostics.py``) on the rows from ``begin`` on.

    ``rows`` as of ``train_memory``, on M's device: the rows before ``begin`` say how old the first episode is.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "memory validation"))
    elapsed = steps_so_far(rows["first"])
    length, total = config.sequence + 1, len(rows["first"]) - begin
    lead = min(config.sequence, (total - length) // 2)  # M gets its bearings before it is judged
    stretch = lead + length
    count = max(1, min(JUDGED, total // stretch))
    starts = begin + torch.arange(count)[:, None] * (total // count)
    state = model.initial_state(count, elapsed[starts[:, 0]])
    if lead > 0:
        *_, state = predict(model, rows, starts + torch.arange(lead + 1), generator, state)
    prediction, z, happened, _ = predict(model, rows, starts + max(0, lead) + torch.arange(length), generator, state)
    valid, alive = happened["valid"], happened["valid"] & ~happened["terminal"]
    figures = {name: value.item() for name, value in terms(model, prediction, z, happened, config.loss).items()}
    figures |= memory_figures(prediction, z[:, 1:], happened, valid, alive)
    whole = alive.all(1)  # stretches within one episode
    if whole.any():
        warm_up = max(1, config.sequence // 2)
        figures |= open_loop_error(model, z[whole], happened["action"][whole], state[whole], warm_up, HORIZONS)
    return figures


def terms(
    model: Memory, prediction: Prediction, z: Tensor, happened: Mapping[str, Tensor], config: MemoryLossConfig
) -> dict[str, Tensor]:
    """Return the terms of the loss by name; ``action``, -log p(a') in nats, only if M foretells actions. z: (B, T + 1, Z)."""
    loss = memory_loss(prediction, z[:, 1:], happened["reward"], happened["terminal"], happened["valid"], config)
    told = {"loss": loss.total, "latent": loss.latent, "reward": loss.reward, "done": loss.done}
    if prediction.action is None:
        return told
    acted = happened["acted"].to(z.dtype)
    missed = -(model.action_log_prob(prediction.action, happened["next"]) * acted).sum() / acted.sum().clamp(min=1)
    return {**told, "loss": loss.total + missed, "action": missed.detach()}


def next_actions(rows: Mapping[str, Tensor], window: Tensor) -> dict[str, Tensor]:
    """Return the actions after the steps of windows of rows (B, T + 1).

    Returns:
        ``next``, (B, T, A), and ``acted``, (B, T) bool: whether there is one. Behind a step that ends its episode there is
        none, and on an episode's last frame nothing was done.

    >>> rows = {"action": torch.arange(5.0)[:, None], "first": torch.tensor([True, False, False, True, False])}
    >>> told = next_actions(rows, torch.arange(4)[None])
    >>> told["next"].flatten().tolist(), told["acted"].tolist()
    ([1.0, 2.0, 3.0], [[True, False, False]])
    """
    then = window[:, 1:]
    return {"next": rows["action"][then], "acted": ~rows["first"][then] & ~rows["first"][(then + 1) % len(rows["first"])]}


def epoch_lanes(rows: int, lanes: int, seed: int) -> Tensor:
    """Return where the lanes of an epoch begin, (lanes,) int64: evenly spread over the rows, from a random place on.

    Each lane reads on from there, window by window, so that an epoch sees every row about once.
    """
    offset = torch.randint(rows, (1,), generator=torch.Generator().manual_seed(seed))
    return (offset + torch.arange(lanes) * (rows // lanes)) % rows
