"""The web app of ``wm record --by hand``: a person plays the game on a page, and every episode is kept.

What the page says is JSON, ``{"do": NAME, ...}``: ``start`` an episode, ``hold`` an action, ``cut`` the episode off here. What
it is told is as in ``server``: a header, and a frame.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from worldmodels.errors import EnvironmentFault
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.play.server import LOOPBACK, alone, came_from_elsewhere, pack
from worldmodels.shapes import FRAME_SHAPE, Episode

PAGE = Path(__file__).with_name("hand")


class Hand:
    """A game of one lane that a person plays, episode by episode.

    Args:
        game: its rules.
        env: the game, without lanes.
        next_seed: gives the seed of the next episode.
        keep: takes an episode that has ended.
    """

    def __init__(
        self, game: GameConfig, env: BatchEnv, next_seed: Callable[[], int], keep: Callable[[Episode], object]
    ) -> None:
        self._game, self._env, self._next_seed, self._keep = game, env, next_seed, keep
        self.playing, self.kept = False, 0
        self.lock = asyncio.Lock()  # a step is played in a thread, and nothing is changed meanwhile
        self.held = np.array(game.rest, np.float32)
        self._frames: list[np.ndarray] = [np.zeros(FRAME_SHAPE, np.uint8)]
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []

    def start(self) -> None:
        """Begin an episode, unless one is being played."""
        if not self.playing:
            self._seed = self._next_seed()
            self._env.keep(np.zeros(0, np.int64))
            self._frames, self._actions, self._rewards = [self._env.start([self._seed])[0]], [], []
            self.playing = True

    def hold(self, action: Any) -> None:
        """Hold an action from now on; ValueError if it is none of the game."""
        held = np.array(action, np.float32)
        if held.shape != self.held.shape or not np.isfinite(held).all():
            raise ValueError(f"an action has {len(self.held)} numbers")
        self.held = held.clip(-1, 1)

    def step(self) -> None:
        """Play a step, if an episode is being played."""
        if not self.playing:
            return
        result = self._env.step(self.held[None])
        self._frames.append(result.frames[0].copy())
        self._actions.append(self.held.copy())
        self._rewards.append(float(result.rewards[0]))
        if result.terminal[0] or result.truncated[0]:
            self._end(terminal=bool(result.terminal[0]))

    def cut(self) -> None:
        """End the episode here, as a limit would; one without a step is not kept."""
        if self.playing and self._actions:
            self._end(terminal=False)
        self.playing = False

    def picture(self) -> bytes:
        """Return what is on show as a message."""
        told = {"kind": "moment", "step": len(self._actions), "total": sum(self._rewards)}
        return pack({**told, "playing": self.playing, "kept": self.kept}, self._frames[-1].tobytes())

    def _end(self, *, terminal: bool) -> None:
        rewards = np.array(self._rewards, np.float32)
        self._keep(Episode(np.stack(self._frames), np.stack(self._actions), rewards, terminal, self._seed))
        self.playing, self.kept = False, self.kept + 1


def make_hand_app(name: str, game: GameConfig, hand: Hand, rate: float) -> Starlette:
    """Return the app for one player at a time. It answers requests to this machine only.

    Args:
        name: of the game, for people.
        game: its rules.
        hand: who plays it.
        rate: steps a second.
    """
    told = {"name": name, "size": game.action_size, "choices": game.choices, "options": game.options}
    hello = pack({"kind": "hello", **told, "idle": game.rest})
    busy = asyncio.Lock()

    async def play(socket: WebSocket) -> None:
        if came_from_elsewhere(socket):
            await socket.close(1008)
            return
        await socket.accept()
        if busy.locked():
            await socket.send_bytes(
                pack({"kind": "error", "text": "Another page plays already: close it, and load this one again."})
            )
            await socket.close(1013)
            return
        async with busy:
            await socket.send_bytes(hello)
            tasks = [asyncio.create_task(_tick(socket, hand, rate)), asyncio.create_task(_listen(socket, hand))]
            done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            for task in done:
                with suppress(WebSocketDisconnect, RuntimeError, OSError):
                    task.result()

    routes = [WebSocketRoute("/play", play), Mount("/", StaticFiles(directory=PAGE, html=True))]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)])


async def _tick(socket: WebSocket, hand: Hand, rate: float) -> None:
    """Play on, ``rate`` steps a second, and show it."""
    due = time.monotonic()
    while True:
        try:
            await asyncio.shield(alone(hand.lock, hand.step))
        except EnvironmentFault as fault:
            hand.playing = False
            await socket.send_bytes(pack({"kind": "error", "text": f"This episode is lost: {fault}"}))
        await socket.send_bytes(hand.picture())
        due = max(due + 1 / rate, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _listen(socket: WebSocket, hand: Hand) -> None:
    """Do what the page says. What is no order is told to it."""
    while (said := await socket.receive())["type"] == "websocket.receive":
        try:
            order = json.loads(said.get("text") or "")
            orders: dict[str, Callable[..., None]] = {"start": hand.start, "hold": hand.hold, "cut": hand.cut}
            do = orders[order.pop("do")]
            await asyncio.shield(alone(hand.lock, partial(do, **order)))
        except EnvironmentFault as fault:
            await socket.send_bytes(pack({"kind": "error", "text": f"The game does not start: {fault}"}))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            await socket.send_bytes(pack({"kind": "error", "text": f"this is no order: {str(error)[:200]}"}))
