"""Keep what the next training step needs again: memory, and compiled products.

glibc hands big blocks back to the kernel after every use and faults them in again at the next. A training step on a
CPU allocates the same large tensors every time; with the memory kept, torch's own dropout of one 3,770 x 128 tensor
took 5.5 ms instead of 8.3 (docs/LOG.md). Other platforms and libraries are left as they are.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4


def keep_heap() -> bool:
    """Tell glibc to keep freed memory for the next step; return whether it could be told."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    largest = 2**31 - 1
    settings = (
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, largest),
        (M_MMAP_THRESHOLD, largest),
        (M_TOP_PAD, 64 << 20),
    )
    return 0 not in [mallopt(option, value) for option, value in settings]


def keep_products() -> None:
    """Let oneDNN keep the code that it compiles for each shape of product, unless the environment says how much.

    It would keep 1,024 pieces, and an epoch can need several thousand. To be called before the first product.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
