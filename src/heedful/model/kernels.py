"""The compiled functions of training (native/training.cpp), and which tensors they can compute on."""

import ctypes
from typing import cast

import torch
from torch import Tensor

from heedful.native import library

KINDS = {torch.float32: 0, torch.bfloat16: 1}  # as training.cpp numbers them


def can_compute(x: Tensor) -> bool:
    """Return whether there are kernels here for tensors like `x`."""
    return x.device.type == "cpu" and x.dtype in KINDS and library("training") is not None


def kernels() -> ctypes.CDLL:
    """Return the kernels, where `can_compute` says that there are some."""
    return cast(ctypes.CDLL, library("training"))
