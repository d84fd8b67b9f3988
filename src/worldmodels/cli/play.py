"""``wm play`` and ``wm export web``: from a name to a page."""

import socket
import sys
from pathlib import Path

from worldmodels.cli.agents import find_agent, game_of, temperature_of
from worldmodels.errors import WorldModelsError


def serve(root: Path, text: str, *, temperature: float | None, port: int, rate: float | None) -> None:
    """Serve an agent's dream on 127.0.0.1 until Ctrl-C.

    Raises:
        WorldModelsError: where the port is taken.
    """
    found = find_agent(root, text)
    import torch
    import uvicorn

    from worldmodels.agent.agent import load_agent
    from worldmodels.games.make import make_env
    from worldmodels.play.server import Stage, make_app

    torch.set_num_threads(1)  # small products: more threads wait for each other
    agent = load_agent(found.folder)
    game = game_of(found, agent)
    stage = Stage(
        found.name,
        agent,
        temperature=temperature_of(root, found, agent, temperature),
        rate=rate or agent.game.frames_a_second,
        open_game=lambda: make_env(game, scoring=True),
    )
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise WorldModelsError(f"port {port} cannot be used ({error.strerror}): name another with --port.") from None
        print(f"{found.name}: http://127.0.0.1:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(stage), log_level="warning", ws="websockets-sansio"))
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            print(file=sys.stderr)
        finally:
            for key in list(stage.visitors):
                stage.close(key)


def export_page(root: Path, text: str, out: Path, *, temperature: float | None) -> str:
    """Write the page that plays without Python; say what it is and how to look at it."""
    found = find_agent(root, text)
    from worldmodels.agent.agent import load_agent
    from worldmodels.play.export import export_web

    agent = load_agent(found.folder)
    size = export_web(
        out,
        agent,
        name=found.name,
        temperature=temperature_of(root, found, agent, temperature),
        rate=agent.game.frames_a_second,
    )
    return f"{out}: {found.name}, {size / 1e6:.1f} MB. `python -m http.server --directory {out}` shows it."
