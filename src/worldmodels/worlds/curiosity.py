"""C paid for what M does not know yet (paper, section 5; Schmidhuber 1991, 2010): so it goes where M has something to learn.

    surprise       in the game: -log p(z') of what came. It also pays for noise that nobody can foretell
    progress       in the game: by how much this M foretells what came better than the M it began from. Noise pays nothing
    disagreement   in the dream, or in the game: the variance of what small models foretell that have learned the same play

Each is paid in standard deviations above its mean over the data of the world model: 0 is as interesting as what is known. Ends
are no matter: no dream ends by chance, and a game that ends is cut off.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeGuard, get_args

import torch
from torch import Tensor

from worldmodels.memory.base import Memory
from worldmodels.memory.prediction import steps_so_far, stretches
from worldmodels.rollout.world import ModelWorld, Step, WorldWrapper, pad_lanes
from worldmodels.seeds import stream_seed
from worldmodels.vision.model import sample_latent
from worldmodels.worlds.ensemble import Ensemble, Lessons, learn_ensemble

Curious = Literal["surprise", "progress", "disagreement"]
Paying = Callable[[ModelWorld], ModelWorld]
"""Makes of a world one that pays in another way."""
LENGTH, SKIPPED = 64, 16
"""Steps of each stretch of the data that is read, and those at their beginning that do not count: M gets its bearings."""


class Foreteller(Protocol):
    """Says how curious the steps of B lanes are, which it follows with states of its own."""

    def begin(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        """Return its state before it has seen anything, (lanes, S); ``elapsed``: see ``Memory.initial_state``."""

    def judge(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return how curious T steps are, (B, T), and the state after them. z: (B, T + 1, Z); the rest: see ``Memory``."""


class Surprise:
    """-log p(z') by an M, in nats per dimension; a ``Foreteller``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def begin(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        return self._memory.initial_state(lanes, elapsed)

    def judge(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        prediction, _, state = self._memory(z[:, :-1], action, restart, state)
        return -prediction.latent.log_prob(z[:, 1:]).mean(-1), state


class Progress:
    """log p(z') by an M, less that by the M that it began from, in nats per dimension; a ``Foreteller``."""

    def __init__(self, now: Memory, before: Memory) -> None:
        self._both = Surprise(now), Surprise(before)
        self._size = now.state_size

    def begin(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        return torch.cat([each.begin(lanes, elapsed) for each in self._both], 1)

    def judge(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        states = state[:, : self._size], state[:, self._size :]
        (now, after), (before, after_before) = (
            each.judge(z, action, restart, own) for each, own in zip(self._both, states, strict=True)
        )
        return before - now, torch.cat([after, after_before], 1)


class Scale(NamedTuple):
    """Mean and standard deviation of a pay over the data."""

    mean: float
    std: float

    @classmethod
    def of(cls, pay: Tensor) -> "Scale":
        """Return those of a pay (N,)."""
        return cls(float(pay.double().mean()), max(float(pay.double().std(correction=0)), 1e-6))


class CuriosityPay(WorldWrapper[ModelWorld]):
    """Base of the worlds that pay for curiosity."""

    def __init__(self, world: ModelWorld, scale: Scale) -> None:
        super().__init__(world)
        self._scale = scale

    def _paid(self, step: Step, pay: Tensor) -> Step:
        pay = (pay.float().cpu() - self._scale.mean) / self._scale.std
        over = step.terminal | step.truncated
        return Step(pay, torch.zeros_like(over), over)


class ForetoldPay(CuriosityPay):
    """A game that pays by what a ``Foreteller`` says of what came; 0 for a step that ends it, as M foretells nothing behind."""

    def __init__(self, world: ModelWorld, foreteller: Foreteller, scale: Scale) -> None:
        super().__init__(world, scale)
        self._foreteller, self._state = foreteller, foreteller.begin(0)
        self._restart = torch.zeros(0, dtype=torch.bool)

    def start(self, seeds: Sequence[int]) -> None:
        super().start(seeds)
        self._state = torch.cat([self._state, self._foreteller.begin(len(seeds))])
        self._restart = torch.cat([self._restart, torch.ones(len(seeds), dtype=torch.bool)])

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        z = self.world.latents().float()
        step = super().step(actions)
        seen = torch.stack([z, self.world.latents().float()], 1)
        told = pad_lanes(seen, actions.to(z)[:, None], self._restart.to(z.device)[:, None], self._state)
        pay, state = self._foreteller.judge(*told)
        self._state, self._restart = state[: len(z)], torch.zeros_like(self._restart)
        return self._paid(step, pay[: len(z), 0].cpu().where(~step.terminal, torch.tensor(self._scale.mean)))

    def keep(self, lanes: Tensor) -> None:
        super().keep(lanes)
        self._state, self._restart = self._state[lanes], self._restart[lanes]


class DisagreementPay(CuriosityPay):
    """A dream, or a game in which M is read, that pays by the disagreement of an ensemble over what comes next."""

    def __init__(self, world: ModelWorld, memory: Memory, ensemble: Ensemble, scale: Scale) -> None:
        super().__init__(world, scale)
        self._memory, self._ensemble = memory, ensemble
        if memory.config.done:
            world.spare()

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        z, memory = self.world.latents().float(), self._memory
        known = torch.cat([z, memory.outputs(self.world.state()).float(), memory.taken(actions.to(z))], 1)
        (padded,) = pad_lanes(known)
        return self._paid(super().step(actions), self._ensemble.disagreement(padded)[: len(z)])


class Lived(NamedTuple):
    """Stretches of play, spread evenly over the data: S of T steps."""

    z: Tensor  # sampled, (S, T + 1, Z)
    action: Tensor  # (S, T, A)
    restart: Tensor  # (S, T) bool
    elapsed: Tensor  # steps of its episode before each stretch, (S,)
    counted: Tensor  # steps behind which there was a next frame, M knowing where it is, (S, T) bool

    @classmethod
    def of(cls, rows: Mapping[str, Tensor], seed: int, device: torch.device) -> "Lived":
        """Return those of a world model's latents, a row a frame (stage ``encode``)."""
        at = stretches(len(rows["first"]), LENGTH + 1)
        here, then = at[:, :-1], at[:, 1:]
        noise = torch.randn(*at.shape, rows["mean"].shape[1], generator=torch.Generator().manual_seed(seed % 2**63))
        z = sample_latent(rows["mean"][at].float(), rows["log_variance"][at].float(), noise)
        counted = ~rows["first"][then] & ~rows["terminal"][here]
        counted[:, : min(SKIPPED, here.shape[1] - 1)] = False
        told = z, rows["action"][here], rows["first"][here], steps_so_far(rows["first"])[at[:, 0]], counted
        return cls(*(each.to(device) for each in told))


def is_curious(pay: str) -> TypeGuard[Curious]:
    """Return whether a pay is for curiosity."""
    return pay in get_args(Curious)


def curiosity(pay: Curious, memory: Memory, before: Memory | None, rows: Mapping[str, Tensor], *, seed: int) -> Paying:
    """Return what makes a world pay for curiosity, in the units of a world model's data.

    Args:
        pay: what is paid.
        memory: M, with weights as they are.
        before: the M that it began from, for ``progress``.
        rows: the latents of the world model.
        seed: of the samples of z, and of the ensemble.
    """
    lived = Lived.of(rows, stream_seed(seed, "lived"), memory.device)
    if pay == "disagreement":
        lessons = _lessons(memory, lived)
        ensemble = learn_ensemble(lessons, seed)
        with torch.inference_mode():
            scale = Scale.of(ensemble.disagreement(lessons.x))
        return partial(DisagreementPay, memory=memory, ensemble=ensemble, scale=scale)
    if pay == "progress" and before is None:
        raise ValueError("pay: progress compares M with the one that it began from, which is not given")
    foreteller = Progress(memory, before) if pay == "progress" and before is not None else Surprise(memory)
    with torch.inference_mode():
        begin = foreteller.begin(len(lived.z), lived.elapsed)
        told, _ = foreteller.judge(lived.z, lived.action, lived.restart, begin)
    return partial(ForetoldPay, foreteller=foreteller, scale=Scale.of(told[lived.counted]))


@torch.inference_mode()
def _lessons(memory: Memory, lived: Lived) -> Lessons:
    """Return the counted steps of some play as lessons: what is known before a step is z, what M remembers, and the action."""
    state = memory.initial_state(len(lived.z), lived.elapsed)
    outputs, _ = memory.observe(lived.z[:, :-1], lived.action, lived.restart, state)
    before = torch.cat([memory.outputs(state)[:, None], outputs[:, :-1]], 1) * ~lived.restart[..., None]
    x = torch.cat([lived.z[:, :-1], before, memory.taken(lived.action)], -1)
    return Lessons(x[lived.counted].clone(), lived.z[:, 1:][lived.counted].clone())
