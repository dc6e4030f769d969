"""Dropout with masks from random bytes.

On a CPU, torch draws a Bernoulli variable for each element, which costs more than the sublayer it follows in a
small model. Here 64-bit random integers are read as eight bytes each, and an element is dropped where its byte is
below a threshold: the probability is a multiple of 1/256, and survivors are scaled by exactly that probability,
so that the expectation is exact. docs/LOG.md has the measurement.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Zero elements with probability `p` (to the nearest 1/256 on a CPU) in training, and scale up the rest."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some elements dropped, or `x` itself outside training."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        dropped: Tensor = _ByteDropout.apply(x, min(round(self.p * 256), 255))  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        """Show the probability in the model's printed form."""
        return f"p={self.p}"


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        random = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        bytes_ = random.view(torch.uint8)[: x.numel()].view(x.shape)
        # 0 or the scale, of the type of `x`: making a tensor of booleans and multiplying by it take five times as long.
        factors = torch.ge(bytes_, threshold, out=torch.empty_like(x, memory_format=torch.contiguous_format))
        factors.mul_(256 / (256 - threshold))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradient * factors, None
