"""Queries and keys turned by their position, so that their product depends on how far apart they are.

Not in the paper, whose sinusoids were hoped to make that easy to learn (section 3.5): rotary position embeddings of Su
et al. 2021, with the paper's angles. On a processor one pass over memory each way, compiled: native/training.cpp.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from heedful.model.fused_attention import NARROW
from heedful.native import library


class Rotation(nn.Module):
    """Turn numbers i and i + K/2 of each head together, by position / 10000^(2i/K)."""

    def __init__(self, d_k: int) -> None:
        super().__init__()
        self.d_k = d_k
        self.turns_L2K: Tensor
        self.register_buffer("turns_L2K", self._make(256), persistent=False)

    def forward(self, x_BLHK: Float[Tensor, "B L H K"], start: int = 0) -> Float[Tensor, "B L H K"]:
        """Turn the heads of queries or keys that stand at positions `start` onwards."""
        turns_L2K = self.turns(start + x_BLHK.size(1))[start:]
        if x_BLHK.device.type == "cpu" and x_BLHK.dtype in NARROW and library("training"):
            return _Compiled.apply(x_BLHK, turns_L2K.float())  # type: ignore[no-untyped-call, no-any-return]
        cosine_L1K, sine_L1K = turns_L2K[:, None].to(x_BLHK.dtype).unbind(2)
        return x_BLHK * cosine_L1K + x_BLHK.roll(self.d_k // 2, -1) * sine_L1K

    def turns(self, length: int) -> Float[Tensor, "L 2 K"]:
        """Return the cosines of the first `length` positions, and the sines with the sign that they multiply by."""
        turns_L2K = self.turns_L2K  # another thread may put a shorter one in its place
        if length > len(turns_L2K):  # longer than any text so far: make it at least twice as long
            with torch.inference_mode(False):  # training may need next what a search asks for first
                turns_L2K = self._make(max(length, 2 * len(turns_L2K))).to(turns_L2K)
            self.turns_L2K = turns_L2K
        return turns_L2K[:length]

    def _make(self, length: int) -> Tensor:
        position_L1 = torch.arange(length, dtype=torch.float64)[:, None]
        angle_LI = position_L1 / 10000 ** (torch.arange(0, self.d_k, 2, dtype=torch.float64) / self.d_k)
        cosine_LI, sine_LI = angle_LI.cos(), angle_LI.sin()
        return torch.stack([torch.cat([cosine_LI, cosine_LI], 1), torch.cat([-sine_LI, sine_LI], 1)], dim=1).float()


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BLHK: Tensor, turns_L2K: Tensor) -> Tensor:
        ctx.save_for_backward(turns_L2K)
        return _turn(x_BLHK, turns_L2K, 1.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BLHK: Tensor) -> tuple[Tensor, None]:
        (turns_L2K,) = ctx.saved_tensors
        return _turn(gradient_BLHK, turns_L2K, -1.0), None


def _turn(x_BLHK: Tensor, turns_L2K: Tensor, sign: float) -> Tensor:
    found = library("training")
    assert found is not None
    x_BLHK = x_BLHK.contiguous()
    out_BLHK = torch.empty_like(x_BLHK)
    batch, length, heads, d_k = x_BLHK.shape
    size = batch * length, length, heads, d_k
    found.turn(NARROW[x_BLHK.dtype], x_BLHK.data_ptr(), turns_L2K.data_ptr(), *size, sign, out_BLHK.data_ptr())
    return out_BLHK
