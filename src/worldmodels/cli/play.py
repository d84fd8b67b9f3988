"""``wm play``: an agent's dream on a page of this machine."""

import socket
import sys
from typing import TYPE_CHECKING

from worldmodels.cli.agents import Found
from worldmodels.cli.browser import open_on_desktop
from worldmodels.errors import WorldModelsError

if TYPE_CHECKING:
    from starlette.applications import Starlette


def serve(found: Found, *, port: int, rate: float | None) -> None:
    """Serve an agent's dream on 127.0.0.1 until Ctrl-C; on a desktop, open its page.

    Raises:
        WorldModelsError: the port is taken.
    """
    from worldmodels.play.server import Stage, make_app

    name, agent, temperature = found
    stage = Stage(
        name,
        agent,
        temperature=temperature,
        rate=rate or agent.game.frames_a_second,
        open_game=lambda: agent.game.make(scoring=True),
    )
    try:
        listen(make_app(stage), port=port, name=name)
    finally:
        for key in list(stage.visitors):
            stage.close(key)


def listen(app: "Starlette", *, port: int, name: str) -> None:
    """Serve an app on 127.0.0.1 until Ctrl-C.

    Raises:
        WorldModelsError: the port is taken.
    """
    import uvicorn

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise WorldModelsError(f"port {port} cannot be used ({error.strerror}): name another with --port.") from None
        port = listening.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        print(f"{name}: {address} (Ctrl-C ends it)", flush=True)
        open_on_desktop(port, address)
        # Pings keep a proxy's connection open. Who does not answer is not cut off: an order may take minutes
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio", ws_ping_timeout=None))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            print(file=sys.stderr)
