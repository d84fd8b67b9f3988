"""Opens the page of a server in a browser, on a desktop."""

import os
import subprocess
import sys

_OPEN = """
import socket, sys, time, webbrowser
for _ in range(240):
    with socket.socket() as server:
        if not server.connect_ex(("127.0.0.1", int(sys.argv[1]))):
            sys.exit(not webbrowser.open(sys.argv[2]))
    time.sleep(0.5)
"""


def open_on_desktop(port: int, page: str) -> None:
    """Open a page as soon as its server on this machine listens, if there is a desktop; a process of its own waits for that."""
    if sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        subprocess.Popen([sys.executable, "-c", _OPEN, str(port), page])
