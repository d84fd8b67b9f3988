"""Episode seeds, disjoint by purpose.

A seed names an episode: it fixes the game's random numbers, and the noise of V and M in that episode, whatever lane or
worker plays it. The 31 bits of a seed are ``purpose (4 bits) | index (27 bits)``: two purposes can never share an episode, so
that nothing is ever trained or selected on a test episode.

>>> episode_seeds("test", 3)
[0, 1, 2]
>>> episode_seeds("selection", 2)
[134217728, 134217729]
"""

import zlib
from typing import Literal, get_args

Purpose = Literal["test", "selection", "evolution", "collection", "dream", "demonstration", "development"]
INDEX_BITS = 27
_PURPOSES: tuple[str, ...] = get_args(Purpose)


def episode_seeds(purpose: Purpose, count: int, *, stream: str = "", start: int = 0) -> list[int]:
    """Return ``count`` seeds of a purpose, from position ``start`` of a stream.

    Args:
        purpose: what the episodes are for; a purpose has a block of 2**27 seeds to itself.
        stream: distinguishes users of the same purpose (a project seed and an iteration, say). The empty stream starts at
            0: test seeds use it, so that every agent of every run is tested on the same episodes.
        start: position in the stream.

    Streams of the same purpose are offsets into the same block and may meet by chance; purposes never do.
    """
    block = _PURPOSES.index(purpose) << INDEX_BITS
    offset = zlib.crc32(stream.encode()) if stream else 0
    return [block + (offset + start + i) % (1 << INDEX_BITS) for i in range(count)]


def purpose_of(seed: int) -> Purpose:
    """Return the purpose that a seed belongs to."""
    return get_args(Purpose)[seed >> INDEX_BITS]


def stream_seed(*names: object) -> int:
    """Return a 63-bit seed for a random stream named by ``names`` (project seed, iteration, stage...), stable everywhere."""
    text = "/".join(str(name) for name in names).encode()
    return (zlib.crc32(text) << 31) ^ zlib.crc32(text[::-1] + b"#")
