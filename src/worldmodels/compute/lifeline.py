"""Whoever works for a process ends with it, however that process ends."""

import os
import select
import sys
import threading
from collections.abc import Callable

import psutil


def when_gone(pid: int, act: Callable[[], object]) -> None:
    """Call ``act``, in a thread of its own, as soon as the process ``pid`` has ended."""
    try:
        wait = _end_of(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        act()
        return

    def watch() -> None:
        wait()
        act()

    threading.Thread(target=watch, daemon=True, name=f"lifeline {pid}").start()


def _end_of(pid: int) -> Callable[[], object]:
    """Return what waits until a process has ended: by Linux at once, even if nobody has asked for its exit status yet."""
    if sys.platform != "linux":
        return psutil.Process(pid).wait
    ended = select.poll()
    ended.register(os.pidfd_open(pid), select.POLLIN)
    return ended.poll


def callers() -> list[int]:
    """Return the processes that this one works for: its runner, shells (``sh -c ...``) between the two, make above the runner.

    Another process above the runner is none of them: a shell may have started it in the background, and end.
    """
    found: list[int] = []
    pending: list[int] = []
    pid = os.getppid()
    while pid > 1:
        process = psutil.Process(pid)
        try:
            command = process.cmdline()
        except psutil.AccessDenied:  # of another user
            command = []
        shell = command[1:2] == ["-c"]
        pending.append(pid)
        if not found and not shell:
            found, pending = pending, []
        elif command and os.path.basename(command[0]) in ("make", "gmake"):
            return found + pending
        elif not shell:
            break
        pid = process.ppid()
    return found or pending
