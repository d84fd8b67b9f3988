"""VizDoom Take Cover: monsters throw fireballs from the far wall; stay alive by moving sideways (section 4).

Action: one scalar in [-1, 1]; above 1/3 moves right, below -1/3 left, else the player stands still.
Observation: the top 400 of 480 rows (the paper cuts the status bar's place), resized to 64x64 RGB.
Reward: +1 per tic, 1/35 s. A step is ``frame_skip`` tics, 1 in the paper, and is rendered once.
End: the player's death (terminal), or the limit, 2100 tics = 60 s (truncated).

``set_seed`` before ``new_episode`` fixes an episode, on whichever engine it runs and whatever that engine played
before. Each engine is a process of its own (17 MB), headless and silent. One that dies or hangs is replaced by another, which
plays the same actions again: the episode goes on as if nothing had been.
"""

import glob
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil
from pydantic import Field

from worldmodels.games.base import EnvStep, LaneClock
from worldmodels.games.frames import resize
from worldmodels.errors import EnvironmentFault
from worldmodels.params import Config

if TYPE_CHECKING:
    import vizdoom

START_TIC = 1
START_SECONDS = 30.0
"""That an engine may take to start; it takes 0.1 to 0.3 s on an idle machine."""
START_TRIES = 3
ANSWER_SECONDS = 60.0
"""That an engine may take for one step; it takes a fraction of a millisecond a tic on an idle machine."""
REPLACEMENTS = 3
"""Engines in a row that may die at the same step of a lane."""
LEFT, STAY, RIGHT = [True, False], [False, False], [False, True]


class DoomConfig(Config):
    """Take Cover's rules.

    Attributes:
        skill: Doom's difficulty. 4 is the paper's game: a random agent survives 210 tics there. 5 is four times as
            deadly.
        limit: steps (of ``frame_skip`` tics each) after which an episode is truncated.
        resolution: what the engine renders before the resize to 64x64. 320x240 takes 2.5 times as long as 160x120.
        frame_skip: tics an action is held for. The game, its time and its score stay the same; who plays it looks and
            decides less often, and to dream of a second takes fewer steps.
    """

    kind: Literal["doom"] = "doom"
    skill: int = Field(default=4, ge=1, le=5)
    limit: int = Field(default=2100, ge=1)
    resolution: Literal["160x120", "320x240", "640x480"] = "160x120"
    frame_skip: int = Field(default=1, ge=1)

    @property
    def preset(self) -> str:
        """Name of the rules: the limit in tics, and not ``frame_skip``, which is the agent's affair."""
        return f"takecover-skill{self.skill}-limit{self.limit * self.frame_skip}"


class DoomEnv:
    """B games of Take Cover in lock-step; a ``BatchEnv``. The engines of dropped lanes serve the next ``start``."""

    action_size = 1

    def __init__(self, config: DoomConfig, threads: int = 1) -> None:
        """Make the environment; engines start with the first lanes.

        Args:
            config: the rules.
            threads: cores to use.
        """
        self.limit = config.limit
        self.preset = config.preset
        self.backend = f"vizdoom-{version('vizdoom')}"
        self._config = config
        self._clock = LaneClock(config.limit)
        width, height = map(int, config.resolution.split("x"))
        self._pictures = np.zeros((0, height * 400 // 480, width, 3), np.uint8)  # each lane's last one
        self._played: list[list[list[bool]]] = []  # each lane's buttons, step by step
        self._engines: list[vizdoom.DoomGame] = []
        self._free: list[vizdoom.DoomGame] = []
        # A thread mostly waits for its engine's process: two a core keep the cores busy (measured: +18%).
        self._workers = 2 * threads
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="doom")

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        """Append a lane for every seed; return their first frames, (len(seeds), 64, 64, 3) uint8."""
        present = len(self._clock)
        missing = max(0, len(seeds) - len(self._free))
        if missing:
            # The first alone: OpenBLAS joins its threads before a fork, and two forks at once join them twice, for ever.
            # After one fork it has none until it is used again, and nothing is computed while engines start.
            self._free.append(start_surely(self._config))
        started = [self._pool.submit(start_surely, self._config) for _ in range(missing - 1)]
        wait(started)
        self._free += [future.result() for future in started if future.exception() is None]
        for future in started:
            future.result()  # raises; the engines that did start are in the free list, to be closed
        for _ in seeds:
            self._engines.append(self._free.pop())
            self._played.append([])
        self._clock.start(seeds)
        self._pictures = np.concatenate([self._pictures, np.zeros((len(seeds), *self._pictures.shape[1:]), np.uint8)])
        new = range(present, len(self._clock))
        self._each_lane(new, self._begin)
        return resize(self._pictures[present:])

    def step(self, actions: np.ndarray) -> EnvStep:
        """Advance all lanes by ``frame_skip`` tics. ``actions``: (B, 1) float32 in [-1, 1]."""
        self._clock.check(actions, self.action_size)
        survived, terminal = np.zeros(len(self._clock), np.float32), np.zeros(len(self._clock), bool)
        pressed = [buttons(action) for action in actions[:, 0]]

        def advance(lane: int) -> None:
            game = self._engines[lane]
            survived[lane] = game.make_action(pressed[lane], self._config.frame_skip)
            terminal[lane] = game.is_episode_finished()
            if not terminal[lane]:  # an ended game has no state: the last picture stays
                self._look(lane)

        self._each_lane(range(len(terminal)), advance)
        for played, held in zip(self._played, pressed, strict=True):
            played.append(held)
        return EnvStep(resize(self._pictures), survived, terminal, self._clock.advance(terminal))

    def keep(self, lanes: np.ndarray) -> None:
        """Keep these lanes only, in this order."""
        kept = set(lanes.tolist())
        self._free += [game for lane, game in enumerate(self._engines) if lane not in kept]
        self._engines = [self._engines[lane] for lane in lanes]
        self._played = [self._played[lane] for lane in lanes]
        self._pictures = self._pictures[lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        """End all engines."""
        self._pool.shutdown(wait=True)  # no thread may be inside a game that is being closed
        for game in self._engines + self._free:
            game.close()
        self._engines, self._free = [], []

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
        faults = _faults()
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
                    _kill(self._engines[doing[thread]])  # which frees the thread, with one of the faults
        for future in futures:
            future.result()
        for lane, error in failed.items():
            self._replace(lane, act, error)

    def _replace(self, lane: int, act: Callable[[int], None], error: Exception) -> None:
        """Bring a lane to where it was, on a new engine, and call ``act(lane)``; name the lane and its seed.

        Raises:
            EnvironmentFault: where ``REPLACEMENTS`` engines died one after the other.
        """
        who = f"the ViZDoom engine of lane {lane} (seed {self._clock.seeds[lane]})"
        faults = _faults()
        for _ in range(REPLACEMENTS):
            print(f"warning: {who} died ({error}); another plays its {len(self._played[lane])} steps again", file=sys.stderr)
            self._engines[lane].close()
            self._engines[lane] = start_surely(self._config)
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


def _faults() -> tuple[type[Exception], ...]:
    """Return what ViZDoom raises where an engine is gone."""
    import vizdoom

    return (
        vizdoom.ViZDoomUnexpectedExitException,
        vizdoom.ViZDoomIsNotRunningException,
        vizdoom.ViZDoomErrorException,
        vizdoom.MessageQueueException,
        vizdoom.SharedMemoryException,
    )


def _kill(game: "vizdoom.DoomGame") -> None:
    """Kill the process of an engine, a child of this one."""
    instance = game.get_instance_id()
    for engine in psutil.Process().children():
        with suppress(psutil.Error):
            if instance in engine.cmdline():
                engine.kill()


def buttons(action: float) -> list[bool]:
    """Return the buttons (left, right) that an action in [-1, 1] holds down."""
    return RIGHT if action > 1 / 3 else LEFT if action < -1 / 3 else STAY


def start_surely(config: DoomConfig, tries: int = START_TRIES) -> "vizdoom.DoomGame":
    """Start one engine; one that does not answer within ``START_SECONDS`` is given up, and another is started.

    An engine that cannot be forked, or dies while it starts, leaves ViZDoom waiting for ever, where nothing can reach it. So
    the wait is in a daemon thread, which can be left behind: it holds no lock and ends with this process.

    Raises:
        EnvironmentFault: where the engine will not start, or ``tries`` of them did not answer.
    """
    for attempt in range(1, tries + 1):
        answer: queue.SimpleQueue[vizdoom.DoomGame | Exception] = queue.SimpleQueue()
        threading.Thread(target=_answer, args=(config, answer), daemon=True, name=f"doom start {attempt}").start()
        try:
            game = answer.get(timeout=START_SECONDS)
        except queue.Empty:
            print(f"warning: a ViZDoom engine did not start within {START_SECONDS:g} s; trying another", file=sys.stderr)
            continue
        if isinstance(game, Exception):
            raise game
        return game
    raise EnvironmentFault(
        f"{tries} ViZDoom engines did not start within {START_SECONDS:g} s each. Run `wm doctor`; a game needs 10 MB of free "
        "space in /dev/shm."
    )


def _answer(config: DoomConfig, answer: "queue.SimpleQueue[vizdoom.DoomGame | Exception]") -> None:
    try:
        answer.put(start_engine(config))
    except Exception as error:
        answer.put(error)


def start_engine(config: DoomConfig) -> "vizdoom.DoomGame":
    """Start one engine, headless and silent, which leaves nothing behind: no process, no shared memory, no file of its own.

    Raises:
        EnvironmentFault: where it will not start.
    """
    import vizdoom

    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))  # scenario, map, buttons, no HUD
    game.set_doom_skill(config.skill)
    game.set_episode_start_time(START_TIC)
    game.set_episode_timeout(0)  # the limit is counted here, so that a death is told from a time-out
    game.set_living_reward(1)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{config.resolution.upper()}"))
    game.set_available_game_variables([])
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_doom_config_path(os.devnull)  # else each engine writes _vizdoom.ini into the working directory
    try:
        game.set_vizdoom_path(str(_launcher()))
        game.init()
    except Exception as error:
        raise EnvironmentFault(
            f"the ViZDoom engine does not start: {error} Run `wm doctor`; a game needs 10 MB of free space in /dev/shm."
        ) from error
    # Both processes have the shared memory mapped by now. Unlinked, it goes when they do, even if they are killed.
    for path in glob.glob(f"/dev/shm/ViZDoom*{game.get_instance_id()}"):
        os.unlink(path)
    return game


def _launcher() -> Path:
    """Return the path of the script that starts an engine, with what it needs to know in the environment.

    All engines of a user share one folder to start in, which stays: one for each would be left behind by every process
    that is killed while its engines start.

    Raises:
        OSError: where an engine could not be executed there, for which ViZDoom crashes Python.
    """
    import vizdoom

    engine, script = Path(vizdoom.__file__).with_name("vizdoom"), Path(__file__).with_name("vizdoom.sh")
    for path in (engine, script):
        if not os.access(path, os.X_OK):
            raise FileNotFoundError(f"{path} is missing or not executable: install its package again.")
    folder = Path(tempfile.gettempdir()) / f"worldmodels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is not yours: remove it, or set TMPDIR to another folder.")
    os.environ |= {"WM_VIZDOOM": str(engine), "WM_VIZDOOM_FOLDER": str(folder)}
    return script
