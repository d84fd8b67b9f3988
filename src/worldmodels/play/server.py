"""The web app of ``wm play``: a page, and a socket for every visitor, who has a dream of their own.

What a visitor says is JSON, ``{"do": NAME, ...}`` (``_ORDERS``). What they are told is binary: the length of a JSON header, 4
bytes little-endian, the header, and what it announces: the dream's frame and the game's, 64x64 RGB each, or a file.
"""

import asyncio
import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from worldmodels.agent.agent import Agent
from worldmodels.errors import WorldModelsError
from worldmodels.games.base import BatchEnv
from worldmodels.play.session import Moment, Session, about

PAGE = Path(__file__).with_name("page")
MOST_VISITORS = 16
"""Dreams that are kept at once; the one that was left longest ago makes room."""
SLOWEST, FASTEST = 1.0, 120.0
"""Steps a second."""
LOOPBACK = ["127.0.0.1", "localhost"]
"""Hosts that the pages answer as."""


@dataclass
class Visitor:
    """A dream, and how it is played."""

    session: Session
    rate: float  # steps a second
    held: list[float]  # the visitor's action
    paused: bool = False
    driven: bool = False  # by the visitor, not by the agent
    turned: bool = False  # whether the visitor's action is another one than that of the last step
    watching: int | None = None  # which moment of a replayed dream is shown; None while it is dreamt
    connected: int = 0  # sockets
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by who uses the session

    @property
    def shown(self) -> Moment:
        """What is on show."""
        return self.session.now if self.watching is None else self.session.moments[self.watching]

    @property
    def waiting(self) -> bool:
        """Whether nothing moves until something is said."""
        return self.paused or (self.watching is None and self.session.now.ended)

    def advance(self) -> None:
        """Dream, or watch, one step on, unless nothing moves."""
        if self.waiting:
            return
        if self.watching is None:
            self.session.step(self.held if self.driven else None)
        elif self.watching + 1 < len(self.session.moments):
            self.watching += 1
        else:
            self.paused, self.watching = True, None

    def go_on_from_here(self) -> None:
        """Leave what follows of a replayed dream: it is dreamt from here."""
        if self.watching is not None:
            self.session.back(len(self.session.moments) - 1 - self.watching)
            self.watching = None


class Stage:
    """All visitors of one agent.

    Args:
        name: of the agent, for people.
        agent: V, M and C.
        temperature: dreams begin at.
        rate: steps a second, at first.
        open_game: opens a game of one lane.
    """

    def __init__(self, name: str, agent: Agent, *, temperature: float, rate: float, open_game: Callable[[], BatchEnv]) -> None:
        self.agent, self.temperature, self.rate, self.open_game = agent, temperature, rate, open_game
        self.visitors: OrderedDict[str, Visitor] = OrderedDict()
        self.about = about(agent, name=name, temperature=temperature, rate=rate) | {"real": True}

    def visit(self, key: str) -> tuple[str, Visitor]:
        """Return the visitor of this key, who comes back, or a new one under a new key."""
        if key not in self.visitors:
            while len(self.visitors) >= MOST_VISITORS:
                left = next((each for each, visitor in self.visitors.items() if not visitor.connected), None)
                if left is None:
                    raise WorldModelsError(f"{MOST_VISITORS} visitors are here already: close one of their pages.")
                self.close(left)
            key, seed = secrets.token_urlsafe(12), secrets.randbelow(2**31)
            session = Session(self.agent, temperature=self.temperature, seed=seed)
            self.visitors[key] = Visitor(session, self.rate, [0.0] * self.agent.memory.action)
        self.visitors.move_to_end(key)
        return key, self.visitors[key]

    def close(self, key: str) -> None:
        """Forget a visitor; end the game beside their dream."""
        game = self.visitors.pop(key).session.game
        if game is not None:
            game.close()


def make_app(stage: Stage) -> Starlette:
    """Return the app. It answers requests to this machine only, and sockets of its own pages only."""

    async def dream(socket: WebSocket) -> None:
        if came_from_elsewhere(socket):
            await socket.close(1008)
            return
        await socket.accept()
        try:
            key, visitor = stage.visit(socket.query_params.get("visitor", ""))
        except WorldModelsError as error:
            await socket.send_bytes(pack({"kind": "error", "text": str(error)}))
            await socket.close(1013)
            return
        visitor.connected += 1
        try:
            await socket.send_bytes(pack({"kind": "hello", "visitor": key}))
            await _serve(socket, stage, visitor)
        finally:
            visitor.connected -= 1

    routes = [
        Route("/about", lambda _: JSONResponse(stage.about)),
        WebSocketRoute("/dream", dream),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)])


def came_from_elsewhere(socket: WebSocket) -> bool:
    """Return whether a page of another site wants to speak with us."""
    origin = socket.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != socket.headers.get("host")


def pack(header: dict[str, Any], *parts: bytes) -> bytes:
    """Return a message: a header and what it announces."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + b"".join(parts)


async def _serve(socket: WebSocket, stage: Stage, visitor: Visitor) -> None:
    """Dream for one connection, and do what it says, until it ends."""
    changed = asyncio.Event()

    async def show() -> None:
        await socket.send_bytes(await asyncio.shield(alone(visitor.lock, picture, visitor)))
        if visitor.session.trouble:
            text, visitor.session.trouble = visitor.session.trouble, ""
            await socket.send_bytes(pack({"kind": "error", "text": text}))

    async def dream() -> None:
        await show()
        due = time.monotonic()
        while True:
            # Another action is answered at once, by a step that comes before its time. The one after it waits for its own.
            early = 1 / visitor.rate if visitor.turned else 0.0
            with suppress(TimeoutError):
                left = None if visitor.waiting else max(0.0, due - early - time.monotonic())
                await asyncio.wait_for(changed.wait(), left)
                changed.clear()
                if visitor.waiting or not visitor.turned:
                    await show()
                continue
            visitor.turned = False
            await asyncio.shield(alone(visitor.lock, visitor.advance))
            await show()
            due = max(due + 1 / visitor.rate, time.monotonic() - 1 / visitor.rate)

    async def listen() -> None:
        while (said := await socket.receive())["type"] == "websocket.receive":
            try:
                answer = await asyncio.shield(alone(visitor.lock, _obey, stage, visitor, said.get("text") or ""))
            except WorldModelsError as error:
                answer = pack({"kind": "error", "text": str(error)})
            if answer is not None:
                await socket.send_bytes(answer)
            changed.set()

    tasks = [asyncio.create_task(dream()), asyncio.create_task(listen())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with suppress(WebSocketDisconnect, RuntimeError, OSError):  # what a socket that was closed raises
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def alone(lock: asyncio.Lock, do: Callable[..., Any], *arguments: Any) -> Any:
    """Do something in a thread. Shielded, it keeps all others out until it is done, also if nobody waits for it."""
    async with lock:
        return await asyncio.to_thread(do, *arguments)


def picture(visitor: Visitor) -> bytes:
    """Return what is on show as a message."""
    moment = visitor.shown
    header = {
        "kind": "moment", "step": moment.step, "total": moment.total, "reward": moment.reward, "hazard": moment.hazard,
        "spread": moment.spread, "ended": moment.ended, "paused": visitor.paused, "driven": visitor.driven,
        "temperature": visitor.session.temperature, "seed": visitor.session.seed, "real": moment.real is not None,
        "beside": visitor.session.game is not None, "watching": visitor.watching is not None,
        "action": None if moment.action is None else [round(float(each), 3) for each in moment.action],
        "z": [round(each, 3) for each in moment.z[0].tolist()],
    }  # fmt: skip
    return pack(header, visitor.session.frames([moment]).tobytes(), b"" if moment.real is None else moment.real.tobytes())


def _obey(stage: Stage, visitor: Visitor, text: str) -> bytes | None:
    """Do what a visitor says; return an answer, if there is one.

    Raises:
        WorldModelsError: it cannot be done. All is as it was.
    """
    before = {**vars(visitor), "session": visitor.session.copy()}
    try:
        order = json.loads(text)
        name = order.pop("do")
        do = _ORDERS[name]
        if name not in ("pause", "step", "back", "rate", "save", "film"):
            visitor.go_on_from_here()
        return do(stage, visitor, **order)
    except (WorldModelsError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        for name in ("session", "paused", "driven", "watching"):
            setattr(visitor, name, before[name])
        said = "" if isinstance(error, WorldModelsError) else f"this is no order: {text[:200]} ({type(error).__name__}) "
        raise WorldModelsError(said + str(error)[:500]) from None


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return float(min(max(value, low), high))


def _hold(_: Stage, visitor: Visitor, action: list[float]) -> None:
    held = [_number(each, -1, 1) for each in action]
    if len(held) != len(visitor.held):
        raise ValueError(f"an action has {len(visitor.held)} numbers")
    visitor.turned |= not visitor.driven or held != visitor.held
    visitor.held, visitor.driven = held, True


def _step(_: Stage, visitor: Visitor) -> None:
    visitor.paused = False
    visitor.advance()
    visitor.paused = True


def _back(_: Stage, visitor: Visitor, steps: int) -> None:
    visitor.paused, far = True, int(_number(steps, 0, 1e6))
    if visitor.watching is not None:
        visitor.watching = max(0, visitor.watching - far)
    else:
        visitor.session.back(far)


def _start(_: Stage, visitor: Visitor, seed: int | None = None) -> None:
    visitor.session.start(secrets.randbelow(2**31) if seed is None else int(_number(seed, 0, 2**31 - 1)))


def _beside(stage: Stage, visitor: Visitor, on: bool) -> None:
    game, session = visitor.session.game, visitor.session
    if on and game is None:
        session.put_beside(stage.open_game())
    elif not on and game is not None:
        session.put_beside(None)
        game.close()


def _save(_: Stage, visitor: Visitor) -> bytes:
    return pack({"kind": "file", "name": "dream.json"}, json.dumps(visitor.session.recording()).encode())


def _film(_: Stage, visitor: Visitor) -> bytes:
    from tempfile import TemporaryDirectory

    from worldmodels.report.video import write_video

    moments = visitor.session.moments
    frames = visitor.session.frames(moments)
    if any(moment.real is not None for moment in moments):
        blank = np.zeros_like(frames[0])
        beside = np.stack([blank if moment.real is None else moment.real for moment in moments])
        frames = np.concatenate([frames, beside], 2)
    with TemporaryDirectory(prefix="worldmodels-film-") as folder:
        path = Path(folder) / "dream.mp4"
        write_video(path, iter(frames), fps=visitor.rate)
        return pack({"kind": "file", "name": path.name}, path.read_bytes())


def _replay(_: Stage, visitor: Visitor, recording: dict[str, Any]) -> None:
    game = visitor.session.game
    visitor.session.replay(recording)
    visitor.paused, visitor.watching = False, 0
    if game is not None:
        game.close()


_ORDERS: dict[str, Callable[..., bytes | None]] = {
    "hold": _hold,
    "agent": lambda _, visitor: setattr(visitor, "driven", False),
    "pause": lambda _, visitor, on: setattr(visitor, "paused", bool(on)),
    "step": _step,
    "back": _back,
    "start": _start,
    "temperature": lambda _, visitor, value: visitor.session.set_temperature(_number(value, -1e9, 1e9)),
    "latent": lambda _, visitor, index, value: visitor.session.set_latent(
        int(_number(index, -1, 1e6)), _number(value, -1e9, 1e9)
    ),
    "rate": lambda _, visitor, value: setattr(visitor, "rate", _number(value, SLOWEST, FASTEST)),
    "beside": _beside,
    "wake": lambda _, visitor: visitor.session.wake(),
    "save": _save,
    "film": _film,
    "replay": _replay,
}
"""What a visitor can say, and with which further keys."""
