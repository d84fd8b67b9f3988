"""Lanes of a game spread over processes, for games that take a core and run in Python: each process plays some of the lanes.

An episode depends on its seed and its actions alone, so it does not matter which process plays it, or how many there are.
"""

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np

from worldmodels.compute.lifeline import when_gone
from worldmodels.errors import EnvironmentFault, WorldModelsError
from worldmodels.games.base import EnvStep, GameConfig
from worldmodels.games.clock import LaneClock
from worldmodels.shapes import FRAME_SHAPE

ANSWER_SECONDS = 300.0
"""Time that a process may take for one step of its lanes, or to start them."""
END_SECONDS = 5.0
"""Time in which a process closes its games."""
PRELOADED = ["gymnasium", "torch", "worldmodels.games.spread"]
"""What is imported once for all processes: they are forked from a server that has it."""


class SpreadEnv:
    """B games in lock-step on several processes; a ``BatchEnv``.

    Args:
        game: the rules; each process makes its lanes by them, with one thread.
        processes: at most so many; there are never more than lanes.
        action_size: A.
        backend: what simulates the game.
    """

    def __init__(self, game: GameConfig, processes: int, action_size: int, backend: str) -> None:
        self.action_size, self.rules, self.backend = action_size, game.rules, backend
        self._game, self._most = game, processes
        self._clock = LaneClock(game.limit, game.frame_skip)
        self._players: list[_Player] = []
        self._home = np.zeros(0, np.int64)  # (B,) the player of each lane; a player's lanes are in the order of ours

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        wanted = min(self._most, len(self._home) + len(seeds))
        self._players += [_Player(self._game) for _ in range(wanted - len(self._players))]
        load = np.bincount(self._home, minlength=len(self._players))
        homes = np.zeros(len(seeds), np.int64)
        for index in range(len(seeds)):
            homes[index] = load.argmin()
            load[homes[index]] += 1
        frames = np.zeros((len(seeds), *FRAME_SHAPE), np.uint8)
        groups = self._groups(homes)
        asked = {home: ("start", [int(seeds[place]) for place in places]) for home, places in groups.items()}
        for home, answer in self._ask(asked).items():
            frames[groups[home]] = answer
        self._home = np.concatenate([self._home, homes])
        self._clock.start(seeds)
        return frames

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        lanes = len(actions)
        frames, rewards = np.zeros((lanes, *FRAME_SHAPE), np.uint8), np.zeros(lanes, np.float32)
        terminal, truncated = np.zeros(lanes, bool), np.zeros(lanes, bool)
        groups = self._groups(self._home)
        for home, step in self._ask({home: ("step", actions[places]) for home, places in groups.items()}).items():
            parts: tuple[np.ndarray, ...] = (frames, rewards, terminal, truncated)
            for all_lanes, found in zip(parts, step, strict=True):
                all_lanes[groups[home]] = found
        return EnvStep(frames, rewards, terminal, self._clock.advance(terminal, truncated))

    def keep(self, lanes: np.ndarray) -> None:
        kept = np.zeros(len(self._home), bool)
        kept[lanes] = True
        self._ask({home: ("keep", np.flatnonzero(kept[places])) for home, places in self._groups(self._home).items()})
        self._home = self._home[lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        for player in self._players:
            player.dismiss()
        for player in self._players:
            player.end()
        self._players = []

    @staticmethod
    def _groups(homes: np.ndarray) -> dict[int, np.ndarray]:
        """Return player -> the indices of its lanes, for players that have any."""
        return {int(home): np.flatnonzero(homes == home) for home in np.unique(homes)}

    def _ask(self, asked: Mapping[int, tuple[str, Any]]) -> dict[int, Any]:
        """Send players something to do, all at once; return what each answers, or raise the first fault of one."""
        for home, each in asked.items():
            self._players[home].send(*each)
        answers = {home: self._players[home].answer(self.rules) for home in asked}  # of all, so that none answers later
        for answer in answers.values():
            if answer.error is not None:
                raise answer.error
        return {home: answer.result for home, answer in answers.items()}


class _Answer(NamedTuple):
    """What a player answers: a result, or an error."""

    result: Any
    error: Exception | None


class _Player:
    """A process that plays some of the lanes."""

    def __init__(self, game: GameConfig) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_play, args=(theirs, os.getpid(), game), daemon=True, name="game")
        self._process.start()
        theirs.close()

    def send(self, method: str, argument: Any) -> None:
        with suppress(OSError):  # it died; the answer says so
            self._pipe.send((method, argument))

    def answer(self, rules: str) -> _Answer:
        try:
            if self._pipe.poll(ANSWER_SECONDS):
                return _Answer(*self._pipe.recv())
            how = f"gave no answer for {ANSWER_SECONDS:g} s"
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        fault = EnvironmentFault(f"{rules}: a process that plays it {how}. Run the same command again: what is done is kept.")
        return _Answer(None, fault)

    def dismiss(self) -> None:
        """Let it close its games."""
        self.send("close", None)

    def end(self) -> None:
        self._process.join(END_SECONDS)
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _play(pipe: connection.Connection, employer: int, game: GameConfig) -> None:
    """Play the lanes of one process; in that process."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the employer, which ends this process
    when_gone(employer, lambda: os._exit(1))
    torch.set_num_threads(1)
    env = None
    while True:
        try:
            method, argument = pipe.recv()
        except EOFError:
            return
        if method == "close":
            if env is not None:
                env.close()
            return
        try:
            env = env or game.make()
            pipe.send((getattr(env, method)(argument), None))
        except Exception as error:
            pipe.send((None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return an error that a pipe takes: others of a game may hold what cannot be sent."""
    return error if isinstance(error, WorldModelsError | ValueError) else EnvironmentFault(f"{type(error).__name__}: {error}")
