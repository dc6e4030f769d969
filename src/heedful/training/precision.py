"""Mixed precision: the model computes in bfloat16, the optimizer keeps its weights in float32.

An update of a weight is often smaller than bfloat16 can add to it, so that the weights must be float32; products,
activations and gradients need not be. A whole copy of the model in bfloat16 computes them (Micikevicius et al. 2018,
section 3.1): autocast would convert weights and activations at every operation instead.
"""

import copy
import timeit
from functools import cache
from typing import cast

import torch

from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.linear import has_native_bfloat16, multiply
from heedful.model.rotation import Rotation
from heedful.training.settings import Precision


class Mixed:
    """A model in float32, which learns, and the one that computes: itself, or a copy of it in bfloat16."""

    def __init__(self, model: EncoderDecoder, precision: Precision) -> None:
        dtype = dtype_of(precision, next(model.parameters()).device)
        self.learning = model
        self.computing = model if dtype == torch.float32 else _narrow(model, dtype)
        self._weights: list[list[torch.Tensor]] = [list(each.parameters()) for each in (model, self.computing)]

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Add the gradients that the computing model holds to those of the learning one, and forget them there."""
        if self.computing is self.learning:
            return
        for weight, computing in zip(*self._weights, strict=True):
            if computing.grad is not None and weight.grad is None:
                weight.grad = computing.grad.float()
            elif computing.grad is not None:
                cast(torch.Tensor, weight.grad).add_(computing.grad)
            computing.grad = None

    @torch.no_grad()
    def renew(self) -> None:
        """After an update: forget the gradients, and let the computing model have the new weights."""
        self.learning.zero_grad()
        if self.computing is not self.learning:
            torch._foreach_copy_(self._weights[1], self._weights[0])


def _narrow(model: EncoderDecoder, dtype: torch.dtype) -> EncoderDecoder:
    """Return a copy in `dtype`, but for the angles of rotary positions, which are those of the model in use."""
    narrow = copy.deepcopy(model).to(dtype)
    for whole, rounded in zip(model.modules(), narrow.modules(), strict=True):
        if isinstance(rounded, Rotation):
            rounded.turns_L2K = cast(Rotation, whole).turns_L2K
    return narrow


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type to compute in on `device`."""
    return torch.bfloat16 if settled(precision, device) == "bfloat16" else torch.float32


def settled(precision: Precision, device: torch.device) -> Precision:
    """Return what "auto" means on `device`: bfloat16 where it multiplies faster than float32, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_native_bfloat16(device) and multiplies_bfloat16_faster(device) else "float32"


@cache
def multiplies_bfloat16_faster(device: torch.device) -> bool:
    """Measure it, on a processor: some have the instructions, and run them at half the rate of float32's.

    Their speeds differ by a factor of two or more either way, so that a busy machine does not turn the answer round.
    """
    if device.type != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        seconds[dtype] = min(timeit.repeat(lambda: multiply(matrix, matrix), number=1, repeat=9))  # noqa: B023 - called at once
    return seconds[torch.bfloat16] < seconds[torch.float32]
