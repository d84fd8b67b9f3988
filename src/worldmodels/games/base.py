"""What a game looks like from outside: what it declares, and B games in lock-step, actions in, frames out."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import Field

from worldmodels.games.blind import Blind, RandomPolicyConfig, ScriptedConfig
from worldmodels.games.choices import Choices, option
from worldmodels.games.frames import Crop
from worldmodels.games.maps import Map
from worldmodels.params import Config

Pay = Literal["survival", "events", "none"]
GameSteps = Annotated[int, Field(ge=1, le=10_000_000)]


class Reference(NamedTuple):
    """A published score: mean return, and its standard deviation over n episodes."""

    mean: float
    std: float
    n: int


class GameConfig(Config):
    """Base of all games: what params.yaml says of one, and everything that the project asks of it.

    A game step is the game's own unit of time (a tic, a frame). A step is what an agent takes: ``frame_skip`` game steps.
    """

    limit: GameSteps  # game steps after which an episode is truncated
    # game steps for which an action is held. The game, its time and its score stay the same; who plays it looks and decides
    # less often, and to dream of a second takes fewer steps
    frame_skip: int = Field(default=1, ge=1, le=1000)
    # steps without a reward above 0 after which a collected episode is lost; 0: none is
    patience: int = Field(default=0, ge=0, le=1_000_000)
    # sum of rewards, without what every step costs, at which a dreamt episode is over; 0: none ends so
    goal: float = Field(default=0.0, ge=0, le=1e9)

    # the score of the paper's agent by ``rules``: a score is comparable only if the rules are the same
    published: ClassVar[Mapping[str, Reference]] = {}
    # sum of rewards of an episode that is won, so that it is not lost if nothing more is paid; 0: none is
    won: ClassVar[float] = 0.0
    # steps that are kept of those without a reward at the end of a lost episode, so that M sees how it looks
    aftermath: ClassVar[int] = 0

    @property
    @abstractmethod
    def rules(self) -> str:
        """Name of the rules. The limit in game steps is in it; ``frame_skip`` is the agent's affair."""

    @property
    @abstractmethod
    def action_size(self) -> int:
        """A, how many numbers in [-1, 1] an action has."""

    @property
    def choices(self) -> Choices:
        """How many options each choice of an action has, A in all; () if the numbers of an action count as they are."""
        return ()

    @property
    def options(self) -> list[str]:
        """What people call the options of all choices, one after the other; [] if nobody has named them."""
        return []

    @property
    def cut(self) -> Crop:
        """What is cut off the game's picture before it is resized to a frame."""
        return (0, 0, 0, 0)

    @property
    def brightness(self) -> float:
        """The gamma of its frames, see ``brightened``."""
        return 1.0

    @property
    def rest(self) -> list[float]:
        """The action of somebody who presses nothing: the first option of each choice, or numbers in the middle."""
        return [part for count in self.choices for part in option(0, count)] or [0.0] * self.action_size

    @property
    def map(self) -> Map | None:
        """The map on which it is counted where an episode came to; None if the game has none. Its games are ``MappedEnv``."""
        return None

    @property
    @abstractmethod
    def pay(self) -> Pay:
        """What is rewarded: every game step that is survived, events of the game, or nothing."""

    @property
    @abstractmethod
    def game_steps_a_second(self) -> float:
        """How many game steps a second of play has."""

    @abstractmethod
    def make(self, *, scoring: bool = False, threads: int = 1) -> "BatchEnv":
        """Make the games, without lanes.

        Args:
            scoring: take the back end whose scores are reported, whatever trains.
            threads: cores to use.

        Raises:
            ParamsError: the game cannot be made with these params.
        """

    def make_unseen(self) -> "BatchEnv":
        """Make the games that score for policies that do not look: what they show may be black, if that is faster."""
        return self.make(scoring=True)

    @property
    def steps(self) -> int:
        """Steps that an episode lasts at most. If ``frame_skip`` does not divide the limit, the last one is shorter."""
        return -(-self.limit // self.frame_skip)

    @property
    def frames_a_second(self) -> float:
        """Steps that an agent takes in a second of play."""
        return self.game_steps_a_second / self.frame_skip

    @property
    def survival(self) -> bool:
        """Whether a step is worth the game steps that it lasts and nothing else, so that M needs no reward head."""
        return self.pay == "survival"

    @property
    def worth(self) -> float:
        """What a step is worth if M has no reward head."""
        return {"survival": float(self.frame_skip), "events": 1.0, "none": 0.0}[self.pay]

    @property
    def baseline(self) -> RandomPolicyConfig:
        """The policy that scores are compared with: a uniform action at every step."""
        size = self.action_size
        return RandomPolicyConfig(mean=[0.0] * size, scale=[1.0] * size, bias=[0.0] * size)

    @property
    def random(self) -> RandomPolicyConfig:
        """The policy that usually collects the first episodes. Held longer, it gets further, and finds less of what is near."""
        held = [self.steps_of(game_steps) for game_steps in (1, 4, 8)]
        return self.baseline.model_copy(update={"holds": held, "bias": [0.5] * self.action_size})

    @property
    def blind(self) -> list[ScriptedConfig]:
        """Other policies that do not look; an agent that is no better than the best of them has learned timing only."""
        return []

    @property
    def policies(self) -> dict[str, Blind]:
        """All policies that do not look, by name, the baseline ``random`` first."""
        return {"random": self.baseline, **{policy.name: policy for policy in self.blind}}

    def steps_of(self, game_steps: int) -> int:
        """Return how many steps last so many game steps, at least 1."""
        return max(1, round(game_steps / self.frame_skip))

    def at_most(self, steps: int) -> Self:
        """Return the same game with episodes of at most so many steps; 0: of the game's own limit."""
        return self.model_copy(update={"limit": min(steps * self.frame_skip, self.limit)}) if steps else self


class EnvStep(NamedTuple):
    """What one step of every lane gave."""

    frames: np.ndarray  # (B, 64, 64, 3) uint8, the frame after the action. If a game has none after its end, its last one again
    rewards: np.ndarray  # (B,) float32
    terminal: np.ndarray  # (B,) bool, the game ended the episode (death, lap finished, off the field)
    truncated: np.ndarray  # (B,) bool, the limit of the rules ended it


class BatchEnv(Protocol):
    """Games in lock-step lanes. It has no lanes when made; ``start`` appends lanes, ``keep`` drops them.

    An episode depends on its seed and its actions alone. A lane whose episode ended must be dropped before the next ``step``.
    Implementations keep the books with a ``LaneClock``.
    """

    action_size: int  # A, how many numbers in [-1, 1] one action has
    rules: str  # ``GameConfig.rules``
    backend: str  # what simulates the game, for example ``gymnasium-1.4.0``

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        """Append a lane for every seed; return their first frames, (len(seeds), 64, 64, 3) uint8."""

    def step(self, actions: np.ndarray) -> EnvStep:
        """Advance all lanes by one step. ``actions``: (B, A) float32 in [-1, 1]."""

    def keep(self, lanes: np.ndarray) -> None:
        """Keep these lanes only, in this order. ``lanes``: int64 indices into the present lanes, increasing."""

    def close(self) -> None:
        """Free the games. Closing twice is harmless."""


@runtime_checkable
class MappedEnv(Protocol):
    """What a ``BatchEnv`` can do beside, if its game has a map."""

    visited: np.ndarray | None  # the cells of ``GameConfig.map`` that each lane has come to, (B, N) bool; None: without a map


def visited_in(env: BatchEnv) -> np.ndarray | None:
    """Return the cells that each lane has come to, (B, N) bool; None if the game has no map."""
    return env.visited if isinstance(env, MappedEnv) else None
