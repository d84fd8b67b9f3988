"""The LSTM's steps, with their gradient written out (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""

from typing import Any

import torch
from torch import Tensor

Tape = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What the gradient needs of a step: h and c before it, the gates i, g, f, o, and tanh(c), (B, H) each."""


def recur(
    drive: Tensor, keep: Tensor, weight: Tensor, h: Tensor, c: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, list[Tape]]:
    """Return the hidden states (B, T, H), h and c after the last step, and what the gradient needs of every step.

    Args:
        drive: what the inputs add to the gates i, g, f, o, (B, T, 4H).
        keep: (B, T, 1), 0 if the state is zeroed before a step, else 1.
        weight: recurrent weights (4H, H).
        h, c: the state before the first step, (B, H) each.
        kind: type of the products.
    """
    recurrent = weight.to(kind).T
    tape: list[Tape] = []
    hidden = []
    # unbind, not drive[:, t]: one call for all steps
    for step, kept in zip(drive.to(kind).unbind(1), keep.unbind(1), strict=True):
        h, c = h * kept, c * kept
        before = h, c
        i, g, f, o = torch.addmm(step, h.to(kind), recurrent).to(h.dtype).chunk(4, -1)
        # A forget gate that starts open (+1), as in the paper's TensorFlow cell.
        i, g, f, o = torch.sigmoid(i), torch.tanh(g), torch.sigmoid(f + 1), torch.sigmoid(o)
        c = f * c + i * g
        squashed = torch.tanh(c)
        h = o * squashed
        hidden.append(h)
        tape.append((*before, i, g, f, o, squashed))
    return torch.stack(hidden, 1), h, c, tape


class Recurrence(torch.autograd.Function):
    """LSTM cells over T steps.

    The gradient of the recurrent weights is one product over all steps; automatic differentiation would add up T small
    ones: with few sequences in a batch, those take most of the time.

    ``Recurrence.apply(drive, keep, weight, h, c, kind)`` takes what ``recur`` takes and returns the same, but for the tape.
    """

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, keep: Tensor, weight: Tensor, h: Tensor, c: Tensor, kind: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, h, c, ctx.tape = recur(drive, keep, weight, h, c, kind)
        ctx.kind = kind
        ctx.save_for_backward(keep, weight)
        return hidden, h, c

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        keep, weight = ctx.saved_tensors
        along, back, carried = gradients  # of the hidden states, of h and of c after the last step
        recurrent = weight.to(ctx.kind)
        gates: list[Tensor] = []
        for (_, c, i, g, f, o, squashed), kept, here in zip(
            reversed(ctx.tape), reversed(keep.unbind(1)), reversed(along.unbind(1)), strict=True
        ):
            back = back + here
            carried = carried + back * o * (1 - squashed * squashed)
            inner = carried * g * i * (1 - i), carried * i * (1 - g * g), carried * c * f * (1 - f)
            gates.append(torch.cat((*inner, back * squashed * o * (1 - o)), 1).to(ctx.kind))
            carried = carried * f * kept
            back = (gates[-1] @ recurrent).to(kept.dtype) * kept
        drive = torch.stack(gates[::-1], 1)
        if not ctx.needs_input_grad[2]:
            return drive, None, None, back, carried, None
        states = torch.stack([step[0] for step in ctx.tape], 1).to(ctx.kind)
        recurrent = (drive.flatten(0, 1).T @ states.flatten(0, 1)).to(weight.dtype)
        return drive, None, recurrent, back, carried, None
