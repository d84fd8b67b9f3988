"""ViZDoom: any scenario. In Take Cover, the paper's, monsters throw fireballs: stay alive by moving sideways (section 4).

                Take Cover                                          another scenario
    action      one scalar; above 1/3 moves right, below -1/3       a choice: a number for no button and for each button
                left, else the player stands still                  alone; the largest wins
    frame       the top 400 of 480 rows (the paper cuts the         all, or what ``crop`` leaves
                status bar's place)
    reward      +1 per tic, 1/35 s                                  the scenario's own, or as ``reward`` says
    end         the player's death (terminal), or the limit, 2100   as the scenario ends (terminal), or the limit
                tics = 60 s (truncated)

A frame is resized to 64x64 RGB. A step is ``frame_skip`` tics, 1 in the paper, and is rendered once.

``set_seed`` before ``new_episode`` fixes an episode, on whichever engine it runs and whatever that engine played
before. Each engine is a process of its own (17 MB), headless and silent. One that dies or hangs is replaced by another, which
plays the same actions again: the episode goes on as if nothing had been.
"""

import json
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from worldmodels.errors import EnvironmentFault
from worldmodels.games import doom_engine
from worldmodels.games.base import BatchEnv, EnvStep, GameConfig, GameSteps, Pay, Reference
from worldmodels.games.blind import RandomPolicyConfig, ScriptedConfig
from worldmodels.games.choices import Choices, chosen, option
from worldmodels.games.clock import LaneClock
from worldmodels.games.frames import Crop, brightened, cropped, resize
from worldmodels.games.maps import MAPS, Map
from worldmodels.seeds import stream_seed

if TYPE_CHECKING:
    import vizdoom

ANSWER_SECONDS = 60.0
"""Time that an engine may take for one step; it takes a fraction of a millisecond a tic on an idle machine."""
REPLACEMENTS = 3
"""Engines in a row that may die at the same step of a lane."""
SPAWNS = 1_000
"""Episodes that may begin elsewhere before one begins in ``spawn``; each takes a millisecond."""
LEFT, STAY, RIGHT = [True, False], [False, False], [False, True]


TAKE_COVER = "take_cover"
_PAPER: dict[str, Any] = {"skill": 4, "reward": "survival", "crop": (0.0, 1 / 6, 0.0, 0.0)}
"""What Take Cover is if params.yaml does not say otherwise. At skill 4 a random agent survives 210 tics, as in the paper."""


class DoomConfig(GameConfig):
    """A scenario of ViZDoom."""

    kind: Literal["vizdoom"] = "vizdoom"
    # the name of one that ships with ViZDoom, such as ``take_cover`` (the paper's) or ``my_way_home``; or the path of a .cfg
    scenario: str = Field(default=TAKE_COVER, min_length=1)
    digest: str = ""  # of the files of a .cfg, which `wm check` tells: stages run again if it changes
    skill: int | None = Field(default=None, ge=1, le=5)  # Doom's difficulty; none: as the scenario says
    limit: GameSteps = 2100
    # what the engine renders before the resize to 64x64. 320x240 takes 2.5 times as long as 160x120
    resolution: Literal["160x120", "320x240", "640x480"] = "160x120"
    crop: Crop = (0, 0, 0, 0)  # what of the picture is cut off
    # brightness v in [0, 1] becomes v ** (1 / gamma): above 1 shows what lies in the dark, which V's squared error passes over
    gamma: float = Field(default=1.0, ge=0.1, le=10)
    # those that can be pressed, by ViZDoom's names; none: the scenario's own. Take Cover has the paper's scalar instead
    buttons: list[str] = Field(default=[])
    # ``events``: as the scenario gives it; ``survival``: 1 for every tic instead, so that a dream needs an M that foretells
    # ends and no reward; ``none``: 0
    reward: Pay = "events"
    living_reward: float | None = Field(default=None, ge=-1e6, le=1e6)  # of every tic, with ``events``; none: the scenario's
    # where the player must stand at the start: least and most x, least and most y on the map. A seed that begins elsewhere is
    # followed by others, drawn from it, until one begins there
    spawn: tuple[float, float, float, float] | None = Field(default=None, strict=False)

    published: ClassVar = {"takecover-skill4-limit2100": Reference(1092, 556, 100)}
    """Ha & Schmidhuber 2018, table 2; their dreams had tau 1.15."""
    game_steps_a_second: ClassVar[float] = 35.0

    @model_validator(mode="before")
    @classmethod
    def _paper(cls, told: Any) -> Any:
        return {**_PAPER, **told} if isinstance(told, dict) and told.get("scenario", TAKE_COVER) == TAKE_COVER else told

    @model_validator(mode="after")
    def _has_buttons(self) -> Self:
        if self.take_cover and self.buttons:
            raise ValueError("buttons: Take Cover has the paper's one scalar, left and right")
        return self

    @property
    def take_cover(self) -> bool:
        """Whether this is the paper's scenario."""
        return self.scenario == TAKE_COVER

    @property
    def setup(self) -> doom_engine.Setup:
        """What its engines are started with."""
        return doom_engine.Setup(
            self.scenario, self.skill, self.resolution, tuple(self.buttons), self.living_reward, self.digest
        )

    @property
    def pressed(self) -> tuple[str, ...]:
        """The buttons that can be pressed, by name."""
        return _buttons(self.setup)

    @property
    def rules(self) -> str:
        """Name of the rules; what has no short name in it is told by a checksum."""
        name = Path(self.scenario).stem.replace("_", "").lower()
        skill = "" if self.skill is None else f"-skill{self.skill}"
        told: list[Any] = [self.crop, self.buttons, self.reward, self.living_reward, self.spawn]
        told += [self.digest] if self.digest else []
        told += [self.gamma] if self.gamma != 1 else []
        usual = [_PAPER["crop"], [], "survival", None, None] if self.take_cover else [(0, 0, 0, 0), [], "events", None, None]
        mark = "" if told == usual else f"-{zlib.crc32(json.dumps(told).encode()):08x}"
        return f"{name}{skill}-limit{self.limit}{mark}"

    @property
    def action_size(self) -> int:
        return 1 if self.take_cover else 1 + len(self.pressed)

    @property
    def choices(self) -> Choices:
        return () if self.take_cover else (self.action_size,)

    @property
    def options(self) -> list[str]:
        return [] if self.take_cover else ["still", *(name.lower().replace("_", " ") for name in self.pressed)]

    @property
    def cut(self) -> Crop:
        return self.crop

    @property
    def brightness(self) -> float:
        return self.gamma

    @property
    def map(self) -> Map | None:
        return MAPS.get(self.scenario)

    @property
    def pay(self) -> Pay:
        return self.reward

    @property
    def random(self) -> RandomPolicyConfig:
        if not self.take_cover:
            held = [self.steps_of(tics) for tics in (4, 12, 40)]
            return super().random.model_copy(update={"holds": held})
        holds = [self.steps_of(tics) for tics in (12, 20, 40, 80, 160)]
        return RandomPolicyConfig(holds=holds, mean=[0.0], scale=[1.0], bias=[0.5])

    @property
    def blind(self) -> list[ScriptedConfig]:
        """Standing still, running into a wall, and running to and fro, so many tics each way; or each button held down."""
        if not self.take_cover:
            named = zip(self.options, (option(each, self.action_size) for each in range(self.action_size)), strict=True)
            return [ScriptedConfig(name=name, first=each, second=each) for name, each in named]
        still = ScriptedConfig(name="still", first=[0.0], second=[0.0])
        hold = ScriptedConfig(name="hold", first=[1.0], second=[1.0])
        sweep = partial(ScriptedConfig, first=[1.0], second=[-1.0])
        return [still, hold, *(sweep(name=f"sweep {tics}", period=self.steps_of(tics)) for tics in (20, 36, 48, 72, 100))]

    def make(self, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
        return DoomEnv(self, threads)

    def make_unseen(self) -> BatchEnv:
        # the engine tells its events and the player's position only with a picture
        return DoomEnv(self, 1, seen=self.pay == "events" or self.map is not None)


@cache
def _buttons(setup: doom_engine.Setup) -> tuple[str, ...]:
    return tuple(button.name for button in doom_engine.configured(setup).get_available_buttons())


class DoomEnv:
    """B games in lock-step; a ``BatchEnv``. The engines of dropped lanes serve the next ``start``.

    If the game is not ``seen``, frames are black: the engine draws nothing, and is 3.6 times as fast.
    """

    def __init__(self, config: DoomConfig, threads: int, *, seen: bool = True) -> None:
        self.action_size, self.rules, self._choices = config.action_size, config.rules, config.choices
        self.backend = f"vizdoom-{version('vizdoom')}"
        self._config, self._seen = config, seen
        self._clock = LaneClock(config.limit, config.frame_skip)
        width, height = map(int, config.resolution.split("x"))
        shown = cropped(np.empty((height, width, 3)), config.crop)
        self._pictures = np.zeros((0, *shown.shape), np.uint8)  # each lane's last one
        self._map = config.map
        self.visited = None if self._map is None else np.zeros((0, len(self._map)), bool)
        self._played: list[list[list[bool]]] = []  # each lane's buttons, step by step
        self._engines: list[vizdoom.DoomGame] = []
        self._free: list[vizdoom.DoomGame] = []
        # A thread mostly waits for its engine's process: two a core keep the cores busy (measured: +18%).
        self._workers = 2 * threads
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="doom")

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        present = len(self._clock)
        missing = max(0, len(seeds) - len(self._free))
        if missing:
            # The first alone: OpenBLAS joins its threads before a fork, and two forks at once join them twice, for ever.
            # After one fork it has none until it is used again, and nothing is computed while engines start.
            self._free.append(self._start_engine())
        started = [self._pool.submit(self._start_engine) for _ in range(missing - 1)]
        wait(started)
        self._free += [future.result() for future in started if future.exception() is None]
        for future in started:
            future.result()  # raises; the engines that did start are in the free list, to be closed
        self._engines += [self._free.pop() for _ in seeds]
        self._played += [[] for _ in seeds]
        self._clock.start(seeds)
        self._pictures = np.concatenate([self._pictures, np.zeros((len(seeds), *self._pictures.shape[1:]), np.uint8)])
        if self.visited is not None:
            self.visited = np.concatenate([self.visited, np.zeros((len(seeds), self.visited.shape[1]), bool)])
        self._each_lane(range(present, len(self._clock)), self._begin)
        return brightened(resize(self._pictures[present:]), self._config.gamma)

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        rewards, terminal = np.zeros(len(self._clock), np.float32), np.zeros(len(self._clock), bool)
        pressed, left, pay = [self._press(action) for action in actions], self._clock.left(), self._config.pay

        def advance(lane: int) -> None:
            game = self._engines[lane]
            before = game.get_episode_time()
            game.set_action(pressed[lane])
            game.advance_action(int(left[lane]), self._seen)
            reward = game.get_last_reward()
            rewards[lane] = {"events": reward, "survival": game.get_episode_time() - before, "none": 0.0}[pay]
            terminal[lane] = game.is_episode_finished()
            if not terminal[lane]:  # an ended game has no state: the last picture stays
                self._look(lane)

        self._each_lane(range(len(terminal)), advance)
        for played, held in zip(self._played, pressed, strict=True):
            played.append(held)
        return EnvStep(brightened(resize(self._pictures), self._config.gamma), rewards, terminal, self._clock.advance(terminal))

    def keep(self, lanes: np.ndarray) -> None:
        kept = set(lanes.tolist())
        self._free += [game for lane, game in enumerate(self._engines) if lane not in kept]
        self._engines = [self._engines[lane] for lane in lanes]
        self._played = [self._played[lane] for lane in lanes]
        self._pictures = self._pictures[lanes]
        self.visited = None if self.visited is None else self.visited[lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        self._pool.shutdown(wait=True)  # no thread may be inside a game that is being closed
        for game in self._engines + self._free:
            game.close()
        self._engines, self._free = [], []

    def _start_engine(self) -> "vizdoom.DoomGame":
        return doom_engine.start_surely(self._config.setup)

    def _press(self, action: np.ndarray) -> list[bool]:
        """Return which buttons an action (A,) holds down."""
        if not self._choices:
            return buttons(action[0])
        (pressed,) = chosen(action, self._choices)
        return [number == pressed for number in range(1, self.action_size)]

    def _begin(self, lane: int) -> None:
        game, seed, spawn = self._engines[lane], int(self._clock.seeds[lane]), self._config.spawn
        for number in range(SPAWNS):
            game.set_seed(stream_seed("spawn", seed, number) % 2**31 if number else seed)
            game.new_episode()
            if spawn is None or doom_engine.stands_in(game, spawn):
                return self._look(lane)
        raise EnvironmentFault(f"{self.rules}: of {SPAWNS} episodes from seed {seed} none began in `spawn`: {spawn}.")

    def _look(self, lane: int) -> None:
        if not self._seen:
            return
        picture = self._engines[lane].get_state().screen_buffer
        self._pictures[lane] = cropped(picture, self._config.crop)
        if self._map is not None and self.visited is not None:
            cell = self._map.cell_at(*doom_engine.position(self._engines[lane]))
            if cell is not None:
                self.visited[lane, cell] = True

    def _each_lane(self, lanes: range, act: Callable[[int], None]) -> None:
        """Call ``act(lane)`` for all lanes, on all threads; then again for those whose engine died or hung, on another one."""
        faults = doom_engine.engine_faults()
        failed: dict[int, Exception] = {}
        doing: dict[int, int] = {}  # thread -> lane

        def work(thread: int) -> None:
            for lane in lanes[thread::workers]:
                doing[thread] = lane
                try:
                    act(lane)
                except faults as error:
                    failed[lane] = error

        workers = min(self._workers, len(lanes))
        futures = [self._pool.submit(work, thread) for thread in range(workers)]
        waiting = wait(futures, ANSWER_SECONDS).not_done
        while waiting:
            before = dict(doing)
            waiting = wait(futures, ANSWER_SECONDS).not_done
            for thread, future in enumerate(futures):
                if future in waiting and doing.get(thread) == before.get(thread):
                    doom_engine.kill(self._engines[doing[thread]])  # which frees the thread, with one of the faults
        for future in futures:
            future.result()
        for lane, error in failed.items():
            self._replace(lane, act, error)

    def _replace(self, lane: int, act: Callable[[int], None], error: Exception) -> None:
        """Bring a lane to where it was, on a new engine, and call ``act(lane)``; name the lane and its seed.

        Raises:
            EnvironmentFault: ``REPLACEMENTS`` engines died one after the other.
        """
        who = f"the ViZDoom engine of lane {lane} (seed {self._clock.seeds[lane]})"
        faults = doom_engine.engine_faults()
        for _ in range(REPLACEMENTS):
            print(f"warning: {who} died ({error}); another plays its {len(self._played[lane])} steps again", file=sys.stderr)
            self._engines[lane].close()
            self._engines[lane] = self._start_engine()
            try:
                self._begin(lane)
                for held in self._played[lane]:
                    self._engines[lane].make_action(held, self._config.frame_skip)
                act(lane)
                return
            except faults as fault:
                error = fault
        raise EnvironmentFault(
            f"{who} died {1 + REPLACEMENTS} times in a row: {error} Run the same command again; if memory is short, lower the "
            "number of lanes in params.yaml."
        ) from error


def buttons(action: float) -> list[bool]:
    """Return the buttons of Take Cover (left, right) that an action in [-1, 1] holds down."""
    return RIGHT if action > 1 / 3 else LEFT if action < -1 / 3 else STAY
