"""How many threads compute: torch's own number, asked for and set without importing it."""

import os
import sys


def threads() -> int:
    """Return how many threads compute together: torch's number where it is, else OMP_NUM_THREADS, else all there are.

    Where a core has two threads, torch begins with one of them.
    """
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return cores()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int) -> None:
    """Compute with so many threads from now on; torch, too, if it is imported later, but with no more than cores."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)
