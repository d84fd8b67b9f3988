"""``wm play`` and ``wm export web``: from a name to a page."""

import shutil
import socket
import sys
import tempfile
from pathlib import Path

from worldmodels.cli.agents import find_agent
from worldmodels.errors import ParamsError, WorldModelsError


def serve(root: Path, text: str, *, temperature: float | None, port: int, rate: float | None) -> None:
    """Serve an agent's dream on 127.0.0.1 until Ctrl-C.

    Raises:
        WorldModelsError: the port is taken.
    """
    found = find_agent(root, text)
    import torch
    import uvicorn

    from worldmodels.play.server import Stage, make_app

    torch.set_num_threads(1)  # small products: more threads wait for each other
    agent = found.load()
    stage = Stage(
        found.name,
        agent,
        temperature=found.temperature(temperature),
        rate=rate or agent.game.frames_a_second,
        open_game=lambda: agent.game.make(scoring=True),
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
    """Write the page that plays without Python; say what it is and how to look at it. If it fails, nothing is written.

    Raises:
        ParamsError: ``out`` is a file.
    """
    if out.exists() and not out.is_dir():
        raise ParamsError(f"{out} is a file: name a folder.")
    found = find_agent(root, text)
    from worldmodels.play.export import export_web

    agent, tau = found.load(), found.temperature(temperature)
    with tempfile.TemporaryDirectory(prefix="worldmodels-web-") as place:
        page = Path(place) / "page"
        size = export_web(page, agent, name=found.name, temperature=tau, rate=agent.game.frames_a_second)
        shutil.copytree(page, out, dirs_exist_ok=True)
    return f"{out}: {found.name}, {size / 1e6:.1f} MB. `python -m http.server --directory {out}` shows it."
