"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
QUIET_SECONDS = 10.0
"""Between two lines where stderr is not a terminal."""


class Bar(Iterable[T]):
    """Wraps an iterable; ``note`` puts the key metric behind the bar."""

    def __init__(self, steps: Iterable[T], label: str, unit: str, total: int | None) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            steps,
            label,
            total,
            unit=f" {unit}",
            file=_Lines() if not self._terminal else sys.stderr,
            mininterval=0.2 if self._terminal else QUIET_SECONDS,
            miniters=1,
            dynamic_ncols=self._terminal,
            ncols=None if self._terminal else 100,
        )

    def __iter__(self) -> Iterator[T]:
        yield from self._bar

    def note(self, text: str) -> None:
        """Show ``text`` behind the bar from its next update on."""
        self._bar.set_postfix_str(text, refresh=False)


class _Lines:
    """A stream for tqdm that ends lines instead of returning to their start."""

    def write(self, text: str) -> None:
        text = text.replace("\r", "").strip()
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
