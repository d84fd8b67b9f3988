"""M: the LSTM with a mixture-density output that predicts the next latent (paper, section 2.2 and appendix A.2)."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.hooks import unserializable_hook

from worldmodels.memory.mixture import Mixture
from worldmodels.memory.recurrence import Recurrence, recur
from worldmodels.params import Config

OPEN = 30.0
"""Logit of a gate that is open to the last bit."""


class MemoryConfig(Config):
    """The shape of M.

    Attributes:
        hidden: H, LSTM units (paper: 256 for CarRacing, 512 for Take Cover).
        mixtures: K, Gaussians per latent dimension (paper: 5).
        done: predict the end of the episode, and take a restart flag as an input (paper: Take Cover only).
        reward: what is learned of the reward (needed to dream games whose reward is more than survival): nothing (false); its
            ``value``, by squared error; or its ``event``, for rewards that come in rare equal bursts: the probability that a
            step is worth more than nothing, by cross-entropy, which the size of the burst cannot swamp. What such a step is
            worth, any other, and one that ends an episode, are means over the data.
        ending: how a dream ends: ``threshold``, where the done logit is positive (paper, appendix A.4); ``sampled``, with the
            predicted probability of every step, which is calibrated where M was trained with an ``end_weight`` of 1.
        clock: above 0, the last unit of the LSTM is no longer learned: its cell grows by one in so many steps of an episode. A
            game that gets harder with time does so in the dream too. 0: all units are learned (paper).
    """

    hidden: int = Field(ge=1, le=8192)
    mixtures: int = Field(ge=1, le=64)
    done: bool
    reward: Literal[False, "value", "event"]
    ending: Literal["threshold", "sampled"] = "threshold"
    clock: int = Field(default=0, ge=0)


class MemoryState(NamedTuple):
    """The recurrent state: hidden h and cell c, (B, H) each."""

    h: Tensor
    c: Tensor


class Prediction(NamedTuple):
    """What M says of the next step.

    Attributes:
        latent: distribution of z', fields (B, T, K, Z).
        reward: expected reward, (B, T), or None.
        done: logit that the episode ends with this step, (B, T), or None.
        event: logit that the step's reward is above 0, (B, T), or None.
    """

    latent: Mixture
    reward: Tensor | None
    done: Tensor | None
    event: Tensor | None


class MemoryLossConfig(Config):
    """The loss of M.

    Attributes:
        done_weight: weight of the done head's term. A death in a thousand steps is worth little beside all latents of a frame.
        end_weight: within that term, weight of the steps that end an episode (paper: 10).
        reward_weight: weight of the reward's term.
    """

    done_weight: float = Field(gt=0, le=1e6)
    end_weight: float = Field(gt=0, le=1e6)
    reward_weight: float = Field(ge=0, le=1e6)


class MemoryLoss(NamedTuple):
    """The total, and its terms: -log p(z') in nats per dimension, the reward's (squared error, or cross-entropy of the
    event), weighted cross-entropy of done."""

    total: Tensor
    latent: Tensor
    reward: Tensor
    done: Tensor


class Memory(nn.Module):
    """MDN-RNN; 422,368 parameters for CarRacing (32 latents, 3 actions), 1,678,785 for Take Cover (64 latents, 1 action).

    One forward serves sequences and single steps (T = 1): recurrent state in, recurrent state out.

    >>> shape = MemoryConfig(hidden=256, mixtures=5, done=False, reward=False)
    >>> sum(p.numel() for p in Memory(shape, latent=32, action=3).parameters())
    422368
    """

    def __init__(self, config: MemoryConfig, latent: int, action: int) -> None:
        super().__init__()
        self.config = config
        self.latent = latent
        self.action = action
        hidden, inputs = config.hidden, latent + action + int(config.done)
        # One bias vector, as in the paper's TensorFlow; torch's own LSTM keeps two.
        self.input_weight = nn.Parameter(torch.zeros(4 * hidden, inputs))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.hidden_weight = nn.Parameter(torch.zeros(4 * hidden, hidden))
        self.head = nn.Linear(hidden, 3 * config.mixtures * latent + bool(config.reward) + int(config.done))
        if config.clock:
            for parameter in (self.input_weight, self.bias, self.hidden_weight):
                parameter.register_hook(self._without_clock)
        self.rewards: Tensor
        if config.reward == "event":
            self.register_buffer("rewards", torch.zeros(3))

    @property
    def usual_reward(self) -> float:
        """What a step is worth in which nothing happens; 0 where rewards are no events."""
        return float(self.rewards[0]) if self.config.reward == "event" else 0.0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.bias.device

    def describe(self) -> dict[str, Any]:
        """Return what ``from_description`` needs to build the same shape again."""
        return {"config": self.config.model_dump(), "latent": self.latent, "action": self.action}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Memory":
        """Build an untrained M of a described shape."""
        return cls(MemoryConfig(**description["config"]), description["latent"], description["action"])

    def initial_state(self, lanes: int, elapsed: Tensor | None = None) -> MemoryState:
        """Return the state at the start of an episode: zeros, (lanes, H).

        With ``elapsed``, (lanes,), the state of one who has seen nothing of so many steps but the clock.
        """
        zeros = self.bias.new_zeros(lanes, self.config.hidden, dtype=torch.float32)
        if elapsed is None or not self.config.clock:
            return MemoryState(zeros, zeros)
        cell = zeros.clone()
        cell[:, -1] = elapsed.to(cell) / self.config.clock
        return MemoryState(torch.tanh(cell), cell)

    def set_clock(self) -> None:
        """Make the last unit count, by its weights: open gates, and a constant that is added to the cell at each step."""
        unit = self._clock_rows()
        with torch.no_grad():
            self.input_weight[unit] = 0
            self.hidden_weight[unit] = 0
            step = math.atanh(1 / self.config.clock)
            self.bias[unit] = self.bias.new_tensor([OPEN, step, OPEN, OPEN])

    def _clock_rows(self) -> Tensor:
        return torch.arange(1, 5, device=self.device) * self.config.hidden - 1

    @unserializable_hook
    def _without_clock(self, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[self._clock_rows()] = 0
        return gradient

    def forward(self, z: Tensor, action: Tensor, restart: Tensor, state: MemoryState) -> tuple[Prediction, Tensor, MemoryState]:
        """Read T steps and predict what follows each.

        Args:
            z: (B, T, Z), the latents seen.
            action: (B, T, A), the actions taken on them.
            restart: (B, T) bool, True at an episode's first step; the state is zeroed there.
            state: the state before the first step.

        Returns:
            The prediction for every step, the hidden states (B, T, H), and the state after the last step.
        """
        hidden, state = self.observe(z, action, restart, state)
        return self.predict(hidden), hidden, state

    def observe(self, z: Tensor, action: Tensor, restart: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Advance the state over T steps without predicting: hidden states (B, T, H), and the state after the last."""
        flag = [restart.unsqueeze(-1).to(z.dtype)] if self.config.done else []
        kind = self.bias.dtype  # of the products; the state is float32 (``models.precision``)
        drive = F.linear(torch.cat([z, action, *flag], -1).to(kind), self.input_weight, self.bias)  # (B, T, 4H)
        keep = (~restart).to(z.dtype).unsqueeze(-1)
        # Where autocast is on, the drive is of its type.
        if torch.is_grad_enabled():
            hidden, h, c = Recurrence.apply(drive, keep, self.hidden_weight, *state, drive.dtype)
        else:
            hidden, h, c, _ = recur(drive, keep, self.hidden_weight, *state, drive.dtype)
        return hidden, MemoryState(h, c)

    def predict(self, hidden: Tensor) -> Prediction:
        """Return what follows hidden states (B, T, H)."""
        out = self.head(hidden.to(self.bias.dtype)).float()
        size = self.latent * self.config.mixtures
        parts = [part.unflatten(-1, (self.config.mixtures, self.latent)) for part in out[..., : 3 * size].split(size, -1)]
        reward = out[..., 3 * size] if self.config.reward else None
        done = out[..., -1] if self.config.done else None
        if self.config.reward != "event" or reward is None:
            return Prediction(Mixture(*parts), reward, done, None)
        event, (usual, worth, last) = reward, self.rewards.unbind()
        reward = usual + (worth - usual) * torch.sigmoid(event)
        if done is not None:
            reward = reward + (last - reward) * torch.sigmoid(done)
        return Prediction(Mixture(*parts), reward, done, event)

    def learn_rewards(self, reward: Tensor, terminal: Tensor) -> None:
        """Take from data what steps are worth where ``reward`` is ``event``: the usual one, the event, the end; (N,) each."""
        usual = reward[(reward <= 0) & ~terminal]
        found = [usual, reward[(reward > 0) & ~terminal], reward[terminal]]
        self.rewards.copy_(torch.stack([(each if len(each) else reward).double().mean() for each in found]))


def steps_so_far(first: Tensor) -> Tensor:
    """Return how many steps of its episode come before each row, (N,) int64, for ``first`` (N,) bool.

    >>> steps_so_far(torch.tensor([True, False, False, True, False]))
    tensor([0, 1, 2, 0, 1])
    """
    row = torch.arange(len(first), device=first.device)
    return row - torch.where(first, row, 0).cummax(0).values


def memory_loss(
    prediction: Prediction, z: Tensor, reward: Tensor, terminal: Tensor, valid: Tensor, config: MemoryLossConfig
) -> MemoryLoss:
    """Return the loss of predictions against what happened.

    Args:
        prediction: for B sequences of T steps.
        z: (B, T, Z), the next latents. Steps that end an episode have none: they do not count in the latent term.
        reward: (B, T), the rewards of the steps.
        terminal: (B, T) bool, True where the game ended with the step.
        valid: (B, T) bool, False where no step was taken (between two episodes): nothing counts there.
        config: weights of the terms.
    """
    counted = valid.to(z.dtype)
    steps = counted.sum().clamp(min=1)
    alive = counted * (~terminal).to(z.dtype)
    latent = -(prediction.latent.log_prob(z).mean(-1) * alive).sum() / alive.sum().clamp(min=1)
    reward_error = done = latent.new_zeros(())
    if prediction.event is not None:
        each = F.binary_cross_entropy_with_logits(prediction.event, (reward > 0).to(z.dtype), reduction="none")
        reward_error = (each * counted).sum() / steps
    elif prediction.reward is not None:
        reward_error = ((prediction.reward - reward).square() * counted).sum() / steps
    if prediction.done is not None:
        target = terminal.to(z.dtype)
        weight = counted * (1 + (config.end_weight - 1) * target)
        done = F.binary_cross_entropy_with_logits(prediction.done, target, weight=weight, reduction="sum") / steps
    total = latent * z.shape[-1] + config.reward_weight * reward_error + config.done_weight * done
    return MemoryLoss(total, latent.detach(), reward_error.detach(), done.detach())
