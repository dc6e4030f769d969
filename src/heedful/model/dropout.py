"""Dropout with masks from random bytes.

On a CPU, torch draws a Bernoulli variable for each element, which costs more than the sublayer it follows in a
small model. Here an element is dropped where a random byte is below a threshold: the probability is a multiple of
1/256, and survivors are divided by exactly the share that stays, so that the expectation is exact. Compiled, the bytes
are drawn again on the way back, and no mask is kept (native/training.cpp). docs/LOG.md has the measurements.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from heedful.model.kernels import KINDS, can_compute, kernels


class Dropout(nn.Module):
    """Zero elements with probability `p` (to the nearest 1/256 on a CPU) in training, and scale up the rest."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return `x`, in training with some elements dropped; added to `onto`, if that is given."""
        if self.training and self.p > 0.0 and x.device.type == "cpu":
            threshold = min(round(self.p * 256), 255)
            if can_compute(x):
                return _CompiledDropout.apply(x, onto, threshold)  # type: ignore[no-untyped-call, no-any-return]
            x = _ByteDropout.apply(x, threshold)  # type: ignore[no-untyped-call]
        elif self.training and self.p > 0.0:
            x = functional.dropout(x, self.p)
        return x if onto is None else onto + x

    def extra_repr(self) -> str:
        """Show the probability in the model's printed form."""
        return f"p={self.p}"


class _CompiledDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, onto: Tensor | None, threshold: int) -> Tensor:
        ctx.seed, ctx.threshold, ctx.onto = int(torch.randint(2**63 - 1, ())), threshold, onto is not None
        return _drop(x, onto, ctx.seed, threshold)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        return _drop(gradient, None, ctx.seed, ctx.threshold), gradient if ctx.onto else None, None


def _drop(x: Tensor, onto: Tensor | None, seed: int, threshold: int) -> Tensor:
    x, onto = x.contiguous(), None if onto is None else onto.to(x.dtype).contiguous()
    out = torch.empty_like(x)
    address = None if onto is None else onto.data_ptr()
    kernels().dropout(KINDS[x.dtype], x.data_ptr(), address, x.numel(), seed, threshold, out.data_ptr())
    return out


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        random = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        bytes_ = random.view(torch.uint8)[: x.numel()].view(x.shape)
        # 0 or 1, of the type of `x`: making a tensor of booleans and multiplying by it take five times as long. The
        # scale stays a number of Python's: bfloat16 would round it.
        kept = torch.ge(bytes_, threshold, out=torch.empty_like(x, memory_format=torch.contiguous_format))
        ctx.save_for_backward(kept)
        ctx.scale = 256 / (256 - threshold)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.scale), None
