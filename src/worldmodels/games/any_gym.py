"""Any Gymnasium environment that shows a picture, named in params.yaml (an id, a crop, an action mapping, a limit).

The picture is the observation if that is an image (uint8, height x width, with one or three channels), else what
``render()`` draws. The environment takes [-1, 1] actions whatever its own space is:

    Box             A numbers, each mapped linearly from [-1, 1] to low..high of the space
    Discrete        n numbers; the largest wins
    MultiDiscrete   n numbers for each of its choices; the largest of them wins
    MultiBinary     two numbers for each switch, off and on; the larger one wins

Environments of plugin packages are named as Gymnasium does: ``module:Name-v0`` imports the module first.
"""

import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np
from pydantic import Field

from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.games.base import BatchEnv, EnvStep, GameConfig, Pay
from worldmodels.games.choices import Choices, chosen
from worldmodels.games.clock import LaneClock
from worldmodels.games.frames import Crop, cropped, resize
from worldmodels.shapes import FRAME_SHAPE

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

USUAL_RATE = 30.0
"""Game steps a second of a game that does not tell its rate."""
Controls = Callable[[np.ndarray], Any]


class GymConfig(GameConfig):
    """A Gymnasium environment."""

    kind: Literal["gym"] = "gym"
    id: str = Field(min_length=1)  # its registered name, such as ``CarRacing-v3`` or ``ale_py:ALE/Pong-v5``
    # ``events``: as the game gives it; ``survival``: 1 for every game step instead, so that a dream needs an M that foretells
    # ends and no reward; ``none``: 0
    reward: Pay = "events"
    crop: Crop = (0, 0, 0, 0)  # what of the picture is cut off
    kwargs: dict[str, Any] = Field(default_factory=dict)  # passed to ``gymnasium.make``

    @property
    def rules(self) -> str:
        """Name of the rules; what has no short name in it is told by a checksum."""
        name = self.id.lower().replace("/", "-").replace(":", "-")
        pay = "" if self.reward == "events" else f"-{self.reward}"
        rest = json.dumps([self.kwargs, self.crop], sort_keys=True, default=str)
        mark = f"-{zlib.crc32(rest.encode()):08x}" if self.kwargs or any(self.crop) else ""
        return f"{name}-limit{self.limit}{pay}{mark}"

    @property
    def action_size(self) -> int:
        return self._ask(lambda game: action_map(game.action_space, self.id).size)

    @property
    def choices(self) -> Choices:
        return self._ask(lambda game: action_map(game.action_space, self.id).choices)

    @property
    def cut(self) -> Crop:
        return self.crop

    @property
    def pay(self) -> Pay:
        return self.reward

    @property
    def game_steps_a_second(self) -> float:
        rate = self._ask(lambda game: game.metadata.get("render_fps"))
        return float(rate) if isinstance(rate, int | float) and rate > 0 else USUAL_RATE

    def make(self, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
        actions, backend = self._ask(lambda game: (action_map(game.action_space, self.id), backend_of(game.spec)))
        return GymEnv(self, lambda: open_game(self), actions.controls, actions.size, crop=self.crop, backend=backend)

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """Return what a game answers that is made for this question."""
        game = open_game(self)
        try:
            return question(game)
        finally:
            game.close()


class GymEnv:
    """B Gymnasium environments in lock-step; a ``BatchEnv``. The objects of dropped lanes serve the next ``start``.

    Args:
        game: the rules.
        make: returns one ``gymnasium.Env``.
        controls: maps an action, (A,) in [-1, 1], to what that takes.
        action_size: A.
        crop: what of the picture is cut off.
        backend: what simulates the game; Gymnasium if it is not given.
    """

    def __init__(
        self,
        game: GameConfig,
        make: Callable[[], Any],
        controls: Controls,
        action_size: int,
        *,
        crop: Crop,
        backend: str = "",
    ) -> None:
        self.action_size, self.rules = action_size, game.rules
        self.backend = backend or f"gymnasium-{version('gymnasium')}"
        self._make, self._controls, self._crop, self._pay = make, controls, crop, game.pay
        self._clock = LaneClock(game.limit, game.frame_skip)
        self._games: list[Any] = []
        self._free: list[Any] = []

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        pictures = []
        for seed in seeds:
            game = self._free.pop() if self._free else self._make()
            self._games.append(game)
            try:
                observation, _ = game.reset(seed=int(seed))
                pictures.append(self._look(game, observation))
            except Exception as error:
                self._fail(len(self._games) - 1, seed, error)
        self._clock.start(seeds)
        return _frames(pictures)

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        lanes = len(self._games)
        rewards, terminal, cut = np.zeros(lanes, np.float32), np.zeros(lanes, bool), np.zeros(lanes, bool)
        pictures, left = [], self._clock.left()
        for lane, game in enumerate(self._games):
            controls = self._controls(actions[lane])
            try:
                for _ in range(left[lane]):
                    observation, reward, terminal[lane], cut[lane], _ = game.step(controls)
                    rewards[lane] += reward if self._pay == "events" else self._pay == "survival"
                    if terminal[lane] or cut[lane]:
                        break
                pictures.append(self._look(game, observation))
            except Exception as error:
                self._fail(lane, self._clock.seeds[lane], error)
        return EnvStep(_frames(pictures), rewards, terminal, self._clock.advance(terminal, cut))

    def keep(self, lanes: np.ndarray) -> None:
        kept = set(lanes.tolist())
        self._free += [game for lane, game in enumerate(self._games) if lane not in kept]
        self._games = [self._games[lane] for lane in lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        for game in self._games + self._free:
            game.close()
        self._games, self._free = [], []

    def _fail(self, lane: int, seed: int, error: Exception) -> NoReturn:
        raise EnvironmentFault(f"{self.rules}, lane {lane} (seed {seed}): {type(error).__name__}: {error}") from error

    def _look(self, game: Any, observation: Any) -> np.ndarray:
        picture = observation if is_image(game.observation_space) else game.render()
        height, width = picture.shape[:2]
        return cropped(np.broadcast_to(picture.reshape(height, width, -1), (height, width, 3)), self._crop)  # from grey too


def _frames(pictures: list[np.ndarray]) -> np.ndarray:
    return resize(np.stack(pictures)) if pictures else np.zeros((0, *FRAME_SHAPE), np.uint8)


def open_game(config: GymConfig) -> Any:
    """Make one ``gymnasium.Env``, drawing with ``render()`` only if its observation is not an image."""
    game = make_quietly(config.id, config.limit, config.kwargs)
    if is_image(game.observation_space):
        return game
    game.close()
    return make_quietly(config.id, config.limit, {**config.kwargs, "render_mode": "rgb_array"})


def make_quietly(name: "str | EnvSpec", steps: int, kwargs: dict[str, Any]) -> Any:
    """Call ``gymnasium.make`` with a name or a spec, without a window, sound, greeting or warnings.

    Raises:
        ParamsError: Gymnasium does not know the name, lacks a package for it, or refuses the arguments.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")  # with `dummy`, some games draw nothing
    import gymnasium

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            game = gymnasium.make(name, max_episode_steps=steps, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        hint = ""
        if isinstance(name, str) and ":" not in name:
            module = "ale_py" if name.startswith("ALE/") else "MODULE"
            hint = f" If a package other than Gymnasium has it, name that one's module too: `{module}:{name}`."
        raise ParamsError(f"the Gymnasium environment `{name}` cannot be made: {error}{hint}") from error
    if mujoco := sys.modules.get("mujoco"):  # else it writes its warnings into MUJOCO_LOG.TXT in the working directory
        mujoco.set_mju_user_warning(lambda text: print(f"warning: MuJoCo: {text}", file=sys.stderr))
    return game


def backend_of(spec: Any) -> str:
    """Return what simulates the game of a Gymnasium spec: Gymnasium, and the package that the game itself is from."""
    own = f"gymnasium-{version('gymnasium')}"
    start = spec.entry_point if isinstance(spec.entry_point, str) else spec.entry_point.__module__
    package = start.partition(":")[0].partition(".")[0]
    found = [] if package in ("gymnasium", __name__.partition(".")[0]) else packages_distributions().get(package, [])
    return "+".join([own, *(f"{name}-{version(name)}" for name in found[:1])])


def is_image(space: Any) -> bool:
    """Return whether an observation space holds pictures."""
    shape = space.shape or ()
    return bool(space.dtype == np.uint8 and len(shape) in (2, 3) and shape[2:] in ((), (1,), (3,)))


class ActionMap(NamedTuple):
    """How an action in [-1, 1] becomes what a game takes."""

    controls: Controls  # maps an action (A,)
    size: int  # A
    choices: Choices  # `GameConfig.choices`


def action_map(space: Any, name: str) -> ActionMap:
    """Return the mapping from an action in [-1, 1] to the space of the game ``name``.

    Raises:
        ParamsError: the space is of a kind that cannot be mapped, or has no bounds.
    """
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    if isinstance(space, Box):
        if not space.is_bounded():
            raise ParamsError(f"the action space of `{name}` has no bounds to map [-1, 1] to: {space}")
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)

        def scale(action: np.ndarray) -> np.ndarray:
            share = (np.clip(action, -1, 1).reshape(space.shape) + 1) / 2
            controls: np.ndarray = (low + share * (high - low)).astype(space.dtype)
            return controls

        return ActionMap(scale, int(low.size), ())
    if isinstance(space, Discrete):
        return ActionMap(lambda action: int(space.start) + chosen(action, (int(space.n),))[0], int(space.n), (int(space.n),))
    if isinstance(space, MultiBinary | MultiDiscrete):
        binary = isinstance(space, MultiBinary)
        shape, first = space.shape, 0 if binary else space.start
        choices = (2,) * int(np.prod(shape)) if binary else tuple(int(count) for count in space.nvec.ravel())

        def choose(action: np.ndarray) -> np.ndarray:
            options: np.ndarray = (first + np.reshape(chosen(action, choices), shape)).astype(space.dtype)
            return options

        return ActionMap(choose, sum(choices), choices)
    kinds = "Box, Discrete, MultiDiscrete and MultiBinary"
    raise ParamsError(f"the action space of `{name}` is {space}; only {kinds} can be mapped.")
