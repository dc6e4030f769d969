"""The processes that train together: one, or those that torchrun started  (section 5.2)."""

import atexit
import os
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from heedful.errors import HeedfulError

if distributed.is_available():  # not in every build: ROCm's for Windows has none
    # Its functions' defaults hold the group that exists when it is first imported, and the optimizers import it.
    # Threads of a held group do not end, and one that still runs while Python ends aborts the process: hence before
    # any group.
    import torch.distributed.nn

T = TypeVar("T")


def join() -> None:
    """Join the others if torchrun started us, and this has not been done.

    Raises:
        HeedfulError: this machine has GPUs, but fewer than processes.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and distributed.is_available() and not _joined():
        if torch.cuda.is_available():
            if 1 < torch.cuda.device_count() < int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
                raise HeedfulError(
                    f"{os.environ['LOCAL_WORLD_SIZE']} processes for {torch.cuda.device_count()} GPUs; start as many "
                    "as there are (torchrun --nproc-per-node)"
                )
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())  # a cluster may show each process its own
        # the others wait while the first one learns the vocabulary and encodes: longer than the usual half hour, or the
        # ten minutes of NCCL
        fast = torch.cuda.is_available() and distributed.is_nccl_available()
        backend, patience = "nccl" if fast else "gloo", timedelta(hours=3)
        distributed.init_process_group(backend, timeout=patience)
        atexit.register(distributed.destroy_process_group)  # while Python still runs: its threads must not outlive it


def rank() -> int:
    """Return the number of this process among those that have been joined; the first is 0."""
    return distributed.get_rank() if _joined() else 0


def world_size() -> int:
    """Return how many processes have been joined."""
    return distributed.get_world_size() if _joined() else 1


def local_rank() -> int:
    """Return the number of this process among those of its machine, as torchrun counts them; the first is 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait_for_all() -> None:
    """Go on when all have come here."""
    if world_size() > 1:
        distributed.barrier()


def broadcast(value: T) -> T:
    """Return the first process's value on all of them."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def check_alike(what: str, mine: object) -> None:
    """Refuse to train with the first process where it has another `what`.

    Raises:
        HeedfulError: on each process whose `mine` is not equal to the first one's.
    """
    if broadcast(mine) != mine:
        raise HeedfulError(
            f"process {rank()}: not the {what} of the first process; start all with the same command, of one version, "
            f"on the same files"
        )


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
