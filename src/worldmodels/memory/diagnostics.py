"""What a loss does not say: figures on held-out data by which M is judged."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worldmodels.memory.base import Memory
from worldmodels.memory.mixture import Mixture
from worldmodels.memory.prediction import Prediction

SHARE = 0.9
"""Of a predicted distribution: its centre, into which z should fall as often."""


def coverage(latent: Mixture, z: Tensor, counted: Tensor) -> float:
    """Return how often z (B, T, Z) falls into the central ``SHARE`` of its predicted distribution: ``SHARE``, if calibrated.

    ``latent``: fields (B, T, K, Z); ``counted``: (B, T) bool.
    """
    below = latent.cdf(z)[counted]
    return float(((below - 0.5).abs() < SHARE / 2).float().mean())


def event_figures(name: str, logit: Tensor, happened: Tensor, counted: Tensor) -> dict[str, float]:
    """Return how well events are foreseen by ``logit``, of what ``happened`` and is ``counted``, (B, T) each.

    The figures, whose names begin with ``name``: ``precision`` and ``recall`` of "more likely than not", and ``ratio``, events
    predicted (the sum of the probabilities) over events that came: 1 if calibrated. NaN if a figure has no cases.
    """
    logit, happened = logit[counted], happened[counted]
    foretold = logit > 0
    right = float((foretold & happened).sum())
    return {
        f"{name}_precision": _ratio(right, float(foretold.sum())),
        f"{name}_recall": _ratio(right, float(happened.sum())),
        f"{name}_ratio": _ratio(float(torch.sigmoid(logit).sum()), float(happened.sum())),
    }


def open_loop_error(
    model: Memory, z: Tensor, action: Tensor, state: Tensor, warm_up: int, horizons: Sequence[int]
) -> dict[str, float]:
    """Return how far dreams stay real: the squared error of k-step predictions over the variance of z, by k.

    M sees ``warm_up`` real steps, then its own expectations under the real actions. 1 is no better than the mean of all frames.

    Args:
        model: M.
        z, action: (B, T + 1, Z) and (B, T, A), stretches within one episode.
        state: M's before the first of them, (B, S).
        warm_up: real steps, at least 1.
        horizons: k, each at most T - warm_up + 1; others are left out.
    """
    lanes, steps = action.shape[:2]
    variance = z.reshape(-1, z.shape[-1]).var(0, correction=0).mean().clamp(min=1e-8)
    restart = torch.zeros(lanes, 1, dtype=torch.bool, device=z.device)
    _, state = model.observe(z[:, : warm_up - 1], action[:, : warm_up - 1], restart.expand(-1, warm_up - 1), state)
    seen, errors = z[:, warm_up - 1], {}
    for step in range(warm_up - 1, steps):
        prediction, _, state = model(seen[:, None], action[:, step : step + 1], restart, state)
        seen = prediction.latent.mean_and_std()[0][:, 0]
        ahead = step - warm_up + 2
        if ahead in horizons:
            errors[f"open_loop_{ahead}"] = float((seen - z[:, step + 1]).square().mean() / variance)
    return errors


def memory_figures(
    prediction: Prediction, z: Tensor, happened: Mapping[str, Tensor], valid: Tensor, alive: Tensor
) -> dict[str, float]:
    """Return the figures of one-step predictions: ``coverage_90``, ``event_figures`` of ends and rewards, ``reward_r2``.

    Args as of ``memory_loss``; ``alive``: (B, T) bool, steps after which there was a next frame.
    """
    figures = {"coverage_90": coverage(prediction.latent, z, alive)}
    if prediction.done is not None:
        figures |= event_figures("done", prediction.done, happened["terminal"], valid)
    if prediction.event is not None:
        known = valid & happened["reward"].isfinite()
        figures |= event_figures("event", prediction.event, happened["reward"] > 0, known)
    if prediction.reward is not None:
        known = valid & happened["reward"].isfinite()
        reward = happened["reward"][known]
        error = (prediction.reward[known] - reward).square().mean()
        figures["reward_r2"] = float(1 - error / reward.var(correction=0).clamp(min=1e-8))
    return figures


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
