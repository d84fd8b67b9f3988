"""How a stage ends when it is told to: by Ctrl-C, by SIGTERM, or because whoever ran it has ended."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from worldmodels.compute.lifeline import callers, when_gone
from worldmodels.storage.checkpoint import Checkpoint

GRACE_SECONDS = 3.0
"""Time to come to the next point at which the state is whole and can be saved; then the stage ends without."""


class Ended(SystemExit):
    """The stage was told to end by a signal, which its exit code names as shells do."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return self.name


class Keeping(Protocol):
    """What has a checkpoint, sooner or later."""

    kept: Checkpoint | None


@contextmanager
def ended_from_outside(stage: Keeping) -> Iterator[None]:
    """Raise ``Ended`` in the block on SIGINT and SIGTERM: once its state is saved, after ``GRACE_SECONDS``, or at the second.

    Inside DVC, the end of DVC counts as SIGTERM: DVC ends on its own signals without telling the stage.
    """

    def end(number: int, _: FrameType | None) -> None:
        if stage.kept is None:
            raise Ended(number)
        if stage.kept.end is not None:
            raise stage.kept.end
        stage.kept.end = Ended(number)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.signal(number, end) for number in handled]
    if "DVC_ROOT" in os.environ:
        for caller in callers():
            when_gone(caller, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
