"""Random numbers that belong to the episode, not to its lane, its batch, or the worker that plays it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.seeds import stream_seed

BLOCK = 64


class EpisodeNoise:
    """Standard normal noise for lanes: the number drawn depends on (name, seed, step of the episode, column) alone.

    Lanes with the same seed get the same numbers (common random numbers for all candidates of a generation).

    Args:
        name: tells apart independent uses within an episode.
        width: numbers a step.
    """

    def __init__(self, name: str, width: int) -> None:
        self.name, self.width = name, width
        self._seeds: list[int] = []
        self._step = torch.zeros(0, dtype=torch.int64)
        self._blocks: dict[tuple[int, int], Tensor] = {}
        self._stale = True

    def start(self, seeds: Sequence[int]) -> None:
        """Append lanes at step 0 of their episodes."""
        self._seeds.extend(seeds)
        self._step = torch.cat([self._step, torch.zeros(len(seeds), dtype=torch.int64)])
        self._stale = True

    def keep(self, lanes: Tensor) -> None:
        """Keep these lanes only. ``lanes``: (B',) int64."""
        self._seeds = [self._seeds[lane] for lane in lanes.tolist()]
        self._step = self._step[lanes]
        self._stale = True

    def draw(self, first: int = 0) -> Tensor:
        """Return the noise of this step for the lanes from ``first`` on, (B - first, width), and move them a step on."""
        if self._stale or bool((self._step % BLOCK == 0).any()):
            self._refresh()
        lanes = slice(first, None)
        noise = self._table[self._row[lanes], self._step[lanes] % BLOCK]
        self._step[lanes] += 1
        return noise

    def at(self, seed: int, step: int) -> Tensor:
        """Return what ``draw`` gives to the episode of this seed at a step, (1, width), whatever was drawn before."""
        return self._make(seed, step // BLOCK)[step % BLOCK][None]

    def _refresh(self) -> None:
        needed = [(seed, step // BLOCK) for seed, step in zip(self._seeds, self._step.tolist(), strict=True)]
        rows = {block: row for row, block in enumerate(dict.fromkeys(needed))}
        if rows.keys() != self._blocks.keys() or self._stale:
            self._blocks = {block: self._blocks[block] if block in self._blocks else self._make(*block) for block in rows}
            self._table = torch.stack(list(self._blocks.values())) if rows else torch.zeros(0, BLOCK, self.width)
        self._row = torch.tensor([rows[block] for block in needed], dtype=torch.int64)
        self._stale = False

    def _make(self, seed: int, block: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_seed(self.name, seed, block))
        return torch.randn(BLOCK, self.width, generator=generator)
