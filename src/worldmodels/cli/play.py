"""``wm play``: an agent's dream on a page of this machine."""

import socket
import sys

from worldmodels.cli.agents import Found
from worldmodels.cli.browser import open_on_desktop
from worldmodels.errors import WorldModelsError


def serve(found: Found, *, port: int, rate: float | None) -> None:
    """Serve an agent's dream on 127.0.0.1 until Ctrl-C; on a desktop, open its page.

    Raises:
        WorldModelsError: the port is taken.
    """
    import uvicorn

    from worldmodels.play.server import Stage, make_app

    name, agent, temperature = found
    stage = Stage(
        name,
        agent,
        temperature=temperature,
        rate=rate or agent.game.frames_a_second,
        open_game=lambda: agent.game.make(scoring=True),
    )
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
        config = uvicorn.Config(make_app(stage), log_level="warning", ws="websockets-sansio", ws_ping_timeout=None)
        server = uvicorn.Server(config)
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            print(file=sys.stderr)
        finally:
            for key in list(stage.visitors):
                stage.close(key)
