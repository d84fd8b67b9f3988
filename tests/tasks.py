"""Tasks for worker processes that do not behave."""

import os
import signal
import threading
import time
from pathlib import Path

from worldmodels.shapes import Told


def square(number: int) -> int:
    return number * number


def die_once(marker: Path, number: int) -> int:
    """Kill the worker where ``marker`` is not there yet and the number is 2."""
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def hang_once(marker: Path, number: int) -> int:
    """Wait for ever where ``marker`` is not there yet and the number is 2."""
    if number == 2 and not marker.exists():
        marker.touch()
        wait_for_what_never_comes()
    return square(number)


def play_four(marker: Path, number: int, told: Told) -> int:
    """Say of four steps, one by one; kill the worker after the second where ``marker`` is not there yet and the number is 2."""
    for step in range(4):
        time.sleep(0.3)
        told(1, step == 3)
        if step == 1 and number == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def wait_for_what_never_comes() -> None:
    threading.Event().wait()


def die(number: int) -> int:
    os._exit(7)


def fail(number: int) -> int:
    raise ZeroDivisionError(f"task {number}")


class Strange(Exception):
    """An error that holds what no pipe takes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def fail_strangely(number: int) -> int:
    raise Strange(f"task {number}")


def sit(marker: Path) -> None:
    """Say which process this is, and wait."""
    (marker / str(os.getpid())).touch()
    wait_for_what_never_comes()
