"""How many threads compute: torch's own number, asked for and set without importing it."""

import os
import sys


def threads() -> int:
    """Return how many threads compute together: torch's number once it is there, and what it would begin with before.

    So many cores this process may use, unless OMP_NUM_THREADS says otherwise.
    """
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int) -> None:
    """Compute with so many threads from now on, and where torch is imported later, there too."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)
