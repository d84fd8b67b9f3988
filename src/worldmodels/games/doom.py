"""VizDoom Take Cover: monsters throw fireballs from the far wall; stay alive by moving sideways (section 4).

Action: one scalar in [-1, 1]; above 1/3 moves right, below -1/3 left, else the player stands still.
Observation: the top 400 of 480 rows (the paper cuts the status bar's place), resized to 64x64 RGB.
Reward: +1 per tic, 1/35 s. A step is ``frame_skip`` tics, 1 in the paper, and is rendered once.
End: the player's death (terminal), or the limit, 2100 tics = 60 s (truncated).

``set_seed`` before ``new_episode`` fixes an episode, on whichever engine it runs and whatever that engine played
before. Each engine is a process of its own (17 MB), headless and silent. One that dies or hangs is replaced by another, which
plays the same actions again: the episode goes on as if nothing had been.
"""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from worldmodels.errors import EnvironmentFault
from worldmodels.games import doom_engine
from worldmodels.games.base import BatchEnv, EnvStep, GameConfig, GameSteps, Pay, Reference
from worldmodels.games.blind import RandomPolicyConfig, ScriptedConfig
from worldmodels.games.clock import LaneClock
from worldmodels.games.frames import resize

if TYPE_CHECKING:
    import vizdoom

ANSWER_SECONDS = 60.0
"""Time that an engine may take for one step; it takes a fraction of a millisecond a tic on an idle machine."""
REPLACEMENTS = 3
"""Engines in a row that may die at the same step of a lane."""
LEFT, STAY, RIGHT = [True, False], [False, False], [False, True]


class DoomConfig(GameConfig):
    """A scenario of ViZDoom."""

    kind: Literal["vizdoom"] = "vizdoom"
    scenario: Literal["take_cover"] = "take_cover"  # Take Cover is the paper's
    # Doom's difficulty. 4 is the paper's game: a random agent survives 210 tics there. 5 is four times as deadly
    skill: int = Field(default=4, ge=1, le=5)
    limit: GameSteps = 2100
    # what the engine renders before the resize to 64x64. 320x240 takes 2.5 times as long as 160x120
    resolution: Literal["160x120", "320x240", "640x480"] = "160x120"

    published: ClassVar = {
        "takecover-skill4-limit2100": (
            Reference(1092, 556, 100, "paper, real\n1092 (τ 1.15)"),
            Reference(210, 108, 100, "paper, random\n210"),
        ),
    }
    """Ha & Schmidhuber 2018, table 2."""
    action_size: ClassVar[int] = 1
    pay: ClassVar[Pay] = "survival"
    game_steps_a_second: ClassVar[float] = 35.0

    @property
    def rules(self) -> str:
        return f"takecover-skill{self.skill}-limit{self.limit}"

    @property
    def random(self) -> RandomPolicyConfig:
        holds = [self.steps_of(tics) for tics in (12, 20, 40, 80, 160)]
        return RandomPolicyConfig(holds=holds, mean=[0.0], scale=[1.0], bias=[0.5])

    @property
    def blind(self) -> list[ScriptedConfig]:
        """Standing still, running into a wall, and running to and fro, so many tics each way."""
        still = ScriptedConfig(name="still", first=[0.0], second=[0.0])
        hold = ScriptedConfig(name="hold", first=[1.0], second=[1.0])
        sweep = partial(ScriptedConfig, first=[1.0], second=[-1.0])
        return [still, hold, *(sweep(name=f"sweep {tics}", period=self.steps_of(tics)) for tics in (20, 36, 48, 72, 100))]

    def make(self, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
        return DoomEnv(self, threads)


class DoomEnv:
    """B games of Take Cover in lock-step; a ``BatchEnv``. The engines of dropped lanes serve the next ``start``."""

    action_size = DoomConfig.action_size

    def __init__(self, config: DoomConfig, threads: int) -> None:
        self.rules = config.rules
        self.backend = f"vizdoom-{version('vizdoom')}"
        self._config = config
        self._clock = LaneClock(config.limit, config.frame_skip)
        width, height = map(int, config.resolution.split("x"))
        self._pictures = np.zeros((0, height * 400 // 480, width, 3), np.uint8)  # each lane's last one
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
        self._each_lane(range(present, len(self._clock)), self._begin)
        return resize(self._pictures[present:])

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        survived, terminal = np.zeros(len(self._clock), np.float32), np.zeros(len(self._clock), bool)
        pressed, left = [buttons(action) for action in actions[:, 0]], self._clock.left()

        def advance(lane: int) -> None:
            game = self._engines[lane]
            survived[lane] = game.make_action(pressed[lane], int(left[lane]))
            terminal[lane] = game.is_episode_finished()
            if not terminal[lane]:  # an ended game has no state: the last picture stays
                self._look(lane)

        self._each_lane(range(len(terminal)), advance)
        for played, held in zip(self._played, pressed, strict=True):
            played.append(held)
        return EnvStep(resize(self._pictures), survived, terminal, self._clock.advance(terminal))

    def keep(self, lanes: np.ndarray) -> None:
        kept = set(lanes.tolist())
        self._free += [game for lane, game in enumerate(self._engines) if lane not in kept]
        self._engines = [self._engines[lane] for lane in lanes]
        self._played = [self._played[lane] for lane in lanes]
        self._pictures = self._pictures[lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        self._pool.shutdown(wait=True)  # no thread may be inside a game that is being closed
        for game in self._engines + self._free:
            game.close()
        self._engines, self._free = [], []

    def _start_engine(self) -> "vizdoom.DoomGame":
        return doom_engine.start_surely(self._config.skill, self._config.resolution)

    def _begin(self, lane: int) -> None:
        game = self._engines[lane]
        game.set_seed(int(self._clock.seeds[lane]))
        game.new_episode()
        self._look(lane)

    def _look(self, lane: int) -> None:
        picture = self._engines[lane].get_state().screen_buffer
        self._pictures[lane] = picture[: self._pictures.shape[1]]

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
    """Return the buttons (left, right) that an action in [-1, 1] holds down."""
    return RIGHT if action > 1 / 3 else LEFT if action < -1 / 3 else STAY
