"""Linear maps, and products of float32 matrices by whichever of torch's two libraries is the faster here.

torch multiplies float32 matrices on a processor by MKL, which uses AVX-512 on Intel's alone. oneDNN, which torch has
too and multiplies bfloat16 by, uses it everywhere: on an AMD Zen 5 its products take less than half the time
(docs/decisions/0015-float32-products.md). Elsewhere, and for all else, this is `torch.nn.Linear`.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from heedful.model.kernels import can_compute, kernels


class Linear(nn.Linear):
    """x W^T + b over the last dimension, with the gradients of `torch.nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map each row of `x`  [..., in] -> [..., out]."""
        if by_onednn(x):
            return cast(Tensor, _Product.apply(x, self.weight, self.bias))  # type: ignore[no-untyped-call]
        return super().forward(x)


def by_onednn(x: Tensor) -> bool:
    """Return whether `multiply` takes oneDNN for tensors like `x`."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0 and onednn_is_faster()


@cache
def onednn_is_faster() -> bool:
    """Return whether MKL leaves AVX-512 unused here and torch's build has oneDNN's product.

    Told by the maker, not by a measurement: a run that is resumed must compute as it did before.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    listed = Path("/proc/cpuinfo")
    maker = listed.read_text() if listed.is_file() else platform.processor()
    return "AuthenticAMD" in maker and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 matrices in hardware: elsewhere float32 is far faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo")
    listed = flags.read_text().split() if flags.exists() else []
    return capabilities != "DEFAULT" and any(flag in listed for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def multiply(left_NI: Tensor, right_IO: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return left @ right + bias; no gradients flow."""
    if by_onednn(left_NI):
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(left_NI, right_IO.mT, bias_O, "none", [], ""))
    return left_NI @ right_IO if bias_O is None else torch.addmm(bias_O, left_NI, right_IO)


def sum_outer_products(gradient_NO: Tensor, x_NI: Tensor) -> Tensor:
    """Return gradient^T x, the gradient of a weight [O, I].

    oneDNN wants the rows of its left matrix together: the smaller one is copied.
    """
    if not by_onednn(x_NI):
        return gradient_NO.T @ x_NI
    if gradient_NO.size(1) > x_NI.size(1):
        return multiply(_transposed(x_NI), gradient_NO).T
    return multiply(_transposed(gradient_NO), x_NI)


def _transposed(x_NI: Tensor) -> Tensor:
    if not (can_compute(x_NI) and x_NI.is_contiguous()):
        return x_NI.T
    out_IN = x_NI.new_empty(x_NI.size(1), x_NI.size(0))
    kernels().transposed(x_NI.data_ptr(), *x_NI.shape, out_IN.data_ptr())
    return out_IN


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        ctx.biased = bias_O is not None
        return multiply(x, weight_OI.T, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        wanted, gradient_NO = ctx.needs_input_grad, gradient.flatten(0, -2)
        return (
            multiply(gradient, weight_OI) if wanted[0] else None,
            sum_outer_products(gradient_NO, x.flatten(0, -2)) if wanted[1] else None,
            gradient_NO.sum(0) if ctx.biased and wanted[2] else None,
        )
