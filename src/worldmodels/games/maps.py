"""Maps of scenarios: their rooms, cut into cells, so that it can be counted where an episode came to. No agent sees them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CELL = 32.0
"""Size of a cell, in units of the map; a player is 32 wide."""


class Rectangle(NamedTuple):
    """A rectangle of a map's floor, in its units."""

    room: int  # number of the room that it belongs to
    left: float  # least x
    right: float  # most x
    bottom: float  # least y
    top: float  # most y


class Map:
    """The floor of a map, as rectangles that do not overlap.

    Attributes:
        rooms: how many rooms there are, passages too.
        room_of: the room of every cell, (N,) int64.

    >>> two = Map([Rectangle(0, 0, 64, 0, 32), Rectangle(1, 64, 80, 0, 32)])
    >>> two.room_of.tolist(), two.cell_at(40.0, 10.0), two.cell_at(70.0, 32.0), two.cell_at(70.0, 40.0)
    ([0, 0, 1], 1, 2, None)
    """

    def __init__(self, floor: Sequence[Rectangle]) -> None:
        self._floor = list(floor)
        # columns and rows of each rectangle, and its first cell; the last ones may be narrower than ``CELL``
        self._sizes = [(_count(each.right - each.left), _count(each.top - each.bottom)) for each in self._floor]
        counts = [columns * rows for columns, rows in self._sizes]
        self._first = np.cumsum([0, *counts]).tolist()
        self.rooms = len({each.room for each in self._floor})
        self.room_of = np.repeat([each.room for each in self._floor], counts)

    def __len__(self) -> int:
        """Return N, how many cells there are."""
        return len(self.room_of)

    def cell_at(self, x: float, y: float) -> int | None:
        """Return the number of the cell at a place; None if it is no floor."""
        for (_, left, right, bottom, top), (columns, rows), first in zip(self._floor, self._sizes, self._first, strict=False):
            if left <= x <= right and bottom <= y <= top:
                column, row = min(int((x - left) // CELL), columns - 1), min(int((y - bottom) // CELL), rows - 1)
                return int(first) + row * columns + column
        return None

    def rooms_of(self, cells: np.ndarray) -> np.ndarray:
        """Return which rooms (..., R) bool hold one of the cells (..., N) bool.

        >>> Map([Rectangle(0, 0, 64, 0, 32), Rectangle(1, 64, 80, 0, 32)]).rooms_of(np.array([[False, True, False]]))
        array([[ True, False]])
        """
        return np.stack([cells[..., self.room_of == room].any(-1) for room in range(self.rooms)], -1)


def _count(length: float) -> int:
    return int(-(-length // CELL))


MY_WAY_HOME = Map(
    [
        Rectangle(0, 160, 320, -256, -96),
        Rectangle(1, 384, 544, -256, -96),
        Rectangle(2, 384, 544, -32, 128),
        Rectangle(3, 608, 768, -256, -96),
        Rectangle(4, 608, 768, -32, 128),
        Rectangle(5, 384, 544, -544, -384),
        Rectangle(6, 960, 1120, -32, 128),
        Rectangle(7, 960, 1120, -256, -96),
        Rectangle(8, 992, 1088, -416, -256),  # the vest lies here
        Rectangle(9, 1008, 1072, -96, -32),
        Rectangle(10, 768, 960, 16, 80),
        Rectangle(11, 544, 608, 16, 80),
        Rectangle(12, 656, 720, -96, -32),
        Rectangle(13, 432, 496, -96, -32),
        Rectangle(14, 432, 496, -384, -256),
        Rectangle(15, 320, 384, -208, -144),
        Rectangle(16, 432, 496, -704, -544),
        Rectangle(16, 496, 576, -704, -640),
        Rectangle(17, 544, 608, -208, -144),
    ]
)
"""ViZDoom's: the sectors of my_way_home.wad, nine rooms and what is between them."""

MAPS = {"my_way_home": MY_WAY_HOME}
"""Scenario -> its map. Whoever ends an episode of one of them with a positive return has found what is to be found."""
