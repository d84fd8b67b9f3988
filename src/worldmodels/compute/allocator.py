"""Memory that a training loop frees and asks for again at every update."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process keep large blocks that it frees, for the next of their size; return whether that was possible.

    glibc gives blocks of megabytes back to the kernel at once, and the kernel clears every page of the next one: a fifth of the
    time of an update of V. Elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, _MOST) == 1
