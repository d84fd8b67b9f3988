"""How many cores this process may use."""

import os


def cores() -> int:
    """Return how many cores this process may use: those that it is bound to, if the system tells, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
