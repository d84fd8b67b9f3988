"""What every M is: a recurrent state in, a recurrent state out, and heads that predict the next step (paper, section 2.2)."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.errors import WorldModelsError
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.features import Features
from worldmodels.memory.levels import LEVELS, RewardLevels
from worldmodels.memory.mixture import LOG_SQRT_TWO_PI, MIXTURES, Mixture
from worldmodels.memory.prediction import Prediction
from worldmodels.params import Config

LEAST_LOG_STD = -3.0
"""Least log standard deviation of a number of the next action: those who always do the same would have an endless density."""


class MemoryShape(Config):
    """What the config of every kind of M derives from: what M predicts beside the next latent."""

    done: bool = True  # predict the end of the episode, and take a restart flag as an input (paper: Take Cover only)
    # ``levels`` predicts how likely rewards of every size are (``memory/levels.py``): the right choice for most games.
    # ``event`` predicts the probability that a step is worth more than 0, for rewards that come in rare equal bursts. What
    # such a step is worth, any other, and one that ends an episode, are means over the data. ``none`` predicts nothing, as in
    # games that are paid for survival
    reward: Literal["none", "event", "levels"] = "none"
    # how a dream ends. ``sampled``: with the predicted probability at every step, which is calibrated if M was trained with
    # an ``end_weight`` of 1. ``threshold``: if the done logit is positive (paper, appendix A.4)
    ending: Literal["sampled", "threshold"] = "sampled"
    # predict the next action too, so that M absorbs what those who played can do (paper, section 5); a phase of the kind
    # ``skill`` teaches it to C
    next_action: bool = False

    @abstractmethod
    def build(self, latent: int, action: int) -> "Memory":
        """Return an M of this shape for Z ``latent`` and A ``action``, with zeros for weights."""


class Memory(nn.Module, ABC):
    """M. One forward serves training, dreams, play and the ONNX export: sequences, and single steps (T = 1).

    The state is one tensor (B, S), float32, and only the kind of M knows what lies in it. If all of it is 0, an episode begins.

    A kind of M is a file with a config, which has a ``kind`` and builds it, and a class that derives from this one and says
    ``parts``, ``outputs``, ``features``, ``feature_size`` and ``observe``; and a member of the union in ``memory/make.py``.

    Args:
        config: the shape.
        latent: Z.
        action: A.
        width: H, size of an output.
    """

    rewards: Tensor
    choices: tuple[int, ...] = ()
    """How many options each choice of an action has: M reads which one is taken. (): it reads the numbers as they are."""

    def __init__(self, config: MemoryShape, latent: int, action: int, width: int) -> None:
        super().__init__()
        self.config, self.latent, self.action = config, latent, action
        self.head = nn.Linear(
            width, 3 * MIXTURES * latent + {"none": 0, "event": 1, "levels": LEVELS}[config.reward] + config.done
        )
        if config.reward != "none":  # worth of a usual step; with ``event`` also of an event, and of an end
            self.register_buffer("rewards", torch.zeros(3 if config.reward == "event" else 1))
        if config.next_action:
            self.action_head = nn.Linear(width, action)  # log weights of options, or means of numbers
            self.action_log_std = nn.Parameter(torch.zeros(action))  # of numbers

    @property
    @abstractmethod
    def parts(self) -> tuple[int, ...]:
        """Sizes of the parts of the state that have a scale of their own; their sum is S."""

    @abstractmethod
    def outputs(self, state: Tensor) -> Tensor:
        """Return the output of the last step, (B, H), which the state (B, S) remembers."""

    @abstractmethod
    def features(self, kind: Features, state: Tensor) -> Tensor:
        """Return what C sees of a state (B, S): (B, ``feature_size(kind)``); ``zh`` is ``outputs``."""

    @abstractmethod
    def feature_size(self, kind: Features) -> int:
        """Return how much C sees of a state; nobody asks for ``z``, of which it sees nothing."""

    @abstractmethod
    def observe(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read T steps without predicting; ``forward`` says what is what. Return outputs (B, T, H) and the state after them.

        It reads ``taken(action)``.
        """

    @property
    def state_size(self) -> int:
        """S."""
        return sum(self.parts)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.bias.device

    @property
    def usual_reward(self) -> float:
        """What a step is worth in which nothing happens; 0 if no rewards are predicted."""
        return float(self.rewards[0]) if self.config.reward != "none" else 0.0

    def describe(self) -> dict[str, Any]:
        """Return what ``memory_from_description`` needs to build the same shape again."""
        # An M that does not foretell actions is told as before there was such a head: it is of the same shape.
        unsaid = {"next_action"} if not self.config.next_action else None
        return {
            "config": self.config.model_dump(exclude=unsaid),
            "latent": self.latent,
            "action": self.action,
            **({"choices": list(self.choices)} if self.choices else {}),
        }

    def taken(self, action: Tensor) -> Tensor:
        """Return actions (..., A) as M reads them: in a choice 1 for the option with the largest number, 0 for the others."""
        if not self.choices:
            return action
        parts = action.split(self.choices, -1)
        return torch.cat([F.one_hot(part.argmax(-1), part.shape[-1]).to(action.dtype) for part in parts], -1)

    def draw_weights(self, generator: torch.Generator) -> None:
        """Draw the weights of an untrained M."""
        initialise(self, generator)

    def initial_state(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        """Return the state at the start of an episode: zeros, (lanes, S).

        With ``elapsed``, (lanes,): the state after so many steps of which M has seen nothing. A kind of M that does not count
        steps has zeros there too.
        """
        return self.head.bias.new_zeros(lanes, self.state_size, dtype=torch.float32)

    def forward(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Prediction, Tensor, Tensor]:
        """Read T steps and predict what follows each.

        Args:
            z: (B, T, Z), the latents seen.
            action: (B, T, A), the actions taken on them.
            restart: (B, T) bool, True at an episode's first step; the state is zeroed there.
            state: (B, S), the state before the first step.

        Returns:
            The prediction for every step, the outputs (B, T, H), and the state (B, S) after the last step.
        """
        outputs, state = self.observe(z, action, restart, state)
        return self.predict(outputs), outputs, state

    def dream(
        self,
        z: Tensor,
        action: Tensor,
        restart: Tensor,
        state: Tensor,
        uniform: Tensor,
        normal: Tensor,
        temperature: float | Tensor,
    ) -> tuple[Tensor, Tensor, Prediction]:
        """Take one step on what M itself predicts.

        What ``forward`` reads has no axis T here; ``uniform``, ``normal`` and ``temperature`` are as in ``Mixture.sample``.

        Returns:
            z' (B, Z), the state after the step, and what M predicted for it, without the axis T.
        """
        prediction, _, state = self(z[:, None], action[:, None], restart[:, None], state)
        told = prediction.step(0)
        return told.latent.sample(uniform, normal, temperature), state, told

    def predict(self, outputs: Tensor) -> Prediction:
        """Return what follows outputs (B, T, H)."""
        out = self.head(outputs.to(self.head.bias.dtype)).float()
        size = self.latent * MIXTURES
        latent = Mixture(*(part.unflatten(-1, (MIXTURES, self.latent)) for part in out[..., : 3 * size].split(size, -1)))
        done = out[..., -1] if self.config.done else None
        action = self.action_head(outputs.to(self.head.bias.dtype)).float() if self.config.next_action else None
        if self.config.reward == "none":
            return Prediction(latent, None, done, action=action)
        if self.config.reward == "levels":
            levels = RewardLevels(out[..., 3 * size : 3 * size + LEVELS])
            return Prediction(latent, levels.mean(), done, levels=levels, action=action)
        event, (usual, worth, last) = out[..., 3 * size], self.rewards.unbind()
        reward = usual + (worth - usual) * torch.sigmoid(event)
        if done is not None:
            reward = reward + (last - reward) * torch.sigmoid(done)
        return Prediction(latent, reward, done, event=event, action=action)

    def action_log_prob(self, foretold: Tensor, action: Tensor) -> Tensor:
        """Return log p(a') in nats, (...), of the next actions (..., A), foretold as ``Prediction.action``.

        Choices are independent of each other, and so are numbers, each with a normal distribution.
        """
        if self.choices:
            parts = zip(foretold.split(self.choices, -1), action.split(self.choices, -1), strict=True)
            chosen = [said.log_softmax(-1).gather(-1, taken.argmax(-1, keepdim=True)) for said, taken in parts]
            return torch.cat(chosen, -1).sum(-1)
        log_std = self.action_log_std.clamp(min=LEAST_LOG_STD)
        return (-0.5 * ((action - foretold) * (-log_std).exp()).square() - log_std - LOG_SQRT_TWO_PI).sum(-1)

    def skill(self, foretold: Tensor) -> Tensor:
        """Return the actions (..., A) in [-1, 1] that M expects: a number for each option that grows with its probability."""
        if not self.choices:
            return foretold.clamp(-1, 1)
        return torch.cat([2 * part.softmax(-1) - 1 for part in foretold.split(self.choices, -1)], -1)

    def hazard(self, done: Tensor) -> Tensor:
        """Return the probability with which a dream ends at a done logit, as ``config.ending`` says; same shape."""
        return (done > 0).float() if self.config.ending == "threshold" else torch.sigmoid(done)

    def learn_rewards(self, reward: Tensor, terminal: Tensor) -> None:
        """Take from data, (N,) each, what steps are worth: a usual one, and for the event head an event and an end.

        Rewards that are NaN are not known, and do not count.

        Raises:
            WorldModelsError: none is known.
        """
        if self.config.reward == "none":
            return
        known = reward.isfinite()
        if not bool(known.any()):
            raise WorldModelsError(
                "M is to predict rewards, and no step of the recordings has one: set memory.model.reward to `none`, or let an "
                "agent or the random policy play too."
            )
        reward, terminal = reward[known], terminal[known]
        if self.config.reward == "levels":
            self.rewards.copy_(reward.median())
            return
        usual = reward[(reward <= 0) & ~terminal]
        found = [usual, reward[(reward > 0) & ~terminal], reward[terminal]]
        self.rewards.copy_(torch.stack([(each if len(each) else reward).double().mean() for each in found]))
