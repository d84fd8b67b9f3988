"""Whoever works for a process ends with it, however that process ends."""

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path


def when_gone(pid: int, act: Callable[[], object]) -> None:
    """Call ``act``, in a thread of its own, as soon as the process ``pid`` has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        act()
        return

    def wait() -> None:
        ended = select.poll()
        ended.register(process, select.POLLIN)
        ended.poll()
        act()

    threading.Thread(target=wait, daemon=True, name=f"lifeline {pid}").start()


def callers() -> list[int]:
    """Return the processes that this one works for: its runner, shells (``sh -c ...``) between the two, make above the runner.

    Another process above the runner is none of them: a shell may have started it in the background, and end.
    """
    found: list[int] = []
    pending: list[int] = []
    pid = os.getppid()
    while pid > 1:
        process = Path("/proc") / str(pid)
        command = process.joinpath("cmdline").read_bytes().split(b"\0")
        shell = command[1:2] == [b"-c"]
        pending.append(pid)
        if not found and not shell:
            found, pending = pending, []
        elif os.path.basename(command[0]) in (b"make", b"gmake"):
            return found + pending
        elif not shell:
            break
        pid = int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    return found or pending
