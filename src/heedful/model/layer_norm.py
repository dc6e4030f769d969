"""Layer normalization (Ba et al. 2016), in one pass over memory each way where it can be compiled.

What `torch.nn.LayerNorm` computes, which on a CPU takes twice as long with rows as short as a small model's: see
native/training.cpp.
"""

from typing import Any

import torch
from torch import Tensor, nn

from heedful.model.kernels import KINDS, can_compute, kernels


class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each row of `x`  [..., width]."""
        fits = x.shape[-1:] == self.normalized_shape and x.numel() > 0 and self.bias is not None
        if fits and x.dtype == self.weight.dtype and can_compute(x):
            return _Compiled.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call, no-any-return]
        return super().forward(x)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, bias_D: Tensor, epsilon: float) -> Tensor:
        x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        statistics_N2 = torch.empty(x.numel() // x.size(-1), 2, dtype=torch.float32)
        inputs = (tensor.data_ptr() for tensor in (x, weight_D, bias_D))
        size = len(statistics_N2), x.size(-1)
        kernels().layer_norm(KINDS[x.dtype], *inputs, *size, epsilon, statistics_N2.data_ptr(), out.data_ptr())
        ctx.save_for_backward(x, weight_D, statistics_N2)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight_D, statistics_N2 = ctx.saved_tensors
        gradient = gradient.contiguous()
        outputs = torch.empty_like(x), torch.empty_like(weight_D), torch.empty_like(weight_D)
        addresses = [tensor.data_ptr() for tensor in (x, weight_D, gradient)]
        made = [tensor.data_ptr() for tensor in outputs]
        size = len(statistics_N2), x.size(-1)
        kernels().layer_norm_backward(KINDS[x.dtype], *addresses, *size, statistics_N2.data_ptr(), *made)
        return *outputs, None
