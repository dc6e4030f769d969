"""Attention between short sequences on a processor, forward and backward, each in one pass over memory.

What transformer.py's `attention` computes and autograd derives from it, for training: see native/training.cpp. With
torch's operations it takes a dozen passes each way, and copies to bring the heads together. Shapes as there.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from heedful.model.kernels import KINDS, kernels
from heedful.native import I64, PTR


class _View(ctypes.Structure):
    _fields_ = (("data", PTR), ("sentence", I64), ("head", I64), ("position", I64))


class _Mask(ctypes.Structure):
    _fields_ = (("data", PTR), ("sentence", I64), ("position", I64), ("attended", I64))


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, I64) for name in ("sentences", "heads", "positions", "attended", "d_k", "d_v"))


def fused_attention(
    query_BHLK: Float[Tensor, "B H L K"],
    key_BHMK: Float[Tensor, "#B H M K"],
    value_BHMK: Float[Tensor, "#B H M Kv"],
    allowed_B1LM: Bool[Tensor, "*mask"] | None,
    turns_L2K: Float[Tensor, "L 2 K"] | None = None,
) -> Float[Tensor, "B H L Kv"]:
    """Return softmax(Q K^T / sqrt(d_k)) V  (equation 1), where `can_compute`: equal to `attention`, by test.

    A row that may attend to nothing gets uniform weights. With the turns of a Rotation for as many positions, queries
    and keys are turned where they are read anyway. The heads of a position lie side by side in memory.
    """
    turns = None if turns_L2K is None else turns_L2K.float()
    if len(key_BHMK) != len(query_BHLK):  # one memory for several texts, as torch would have it
        key_BHMK, value_BHMK = (tensor.expand(len(query_BHLK), -1, -1, -1) for tensor in (key_BHMK, value_BHMK))
    heads: Tensor = _Attention.apply(query_BHLK, key_BHMK, value_BHMK, allowed_B1LM, turns)  # type: ignore[no-untyped-call]
    return heads


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, turns: Tensor | None
    ) -> Tensor:
        query, key, value = (_rows_together(tensor) for tensor in (query, key, value))
        ctx.sizes = _Sizes(*query.shape[:3], key.size(2), query.size(3), value.size(3))
        lanes = kernels().lanes()
        weights = torch.empty(*query.shape[:3], -(-key.size(2) // lanes) * lanes, dtype=torch.float32)
        out = _like(query, value.size(3))
        kernels().attention(
            KINDS[query.dtype],
            ctypes.byref(ctx.sizes),
            *(ctypes.byref(_view(tensor)) for tensor in (query, key, value)),
            ctypes.byref(_mask(allowed, query, key)),
            query.size(3) ** -0.5,
            None if turns is None else turns.data_ptr(),
            weights.data_ptr(),
            ctypes.byref(_view(out)),
        )
        ctx.save_for_backward(query, key, value, weights, turns)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, weights, turns = ctx.saved_tensors
        gradient = _rows_together(gradient)
        to_query, to_key, to_value = (_like(tensor, tensor.size(3)) for tensor in (query, key, value))
        kernels().attention_backward(
            KINDS[query.dtype],
            ctypes.byref(ctx.sizes),
            *(ctypes.byref(_view(tensor)) for tensor in (query, key, value)),
            weights.data_ptr(),
            query.size(3) ** -0.5,
            None if turns is None else turns.data_ptr(),
            *(ctypes.byref(_view(tensor)) for tensor in (gradient, to_query, to_key, to_value)),
        )
        return to_query, to_key, to_value, None, None


def _rows_together(tensor_BHLK: Tensor) -> Tensor:
    return tensor_BHLK if tensor_BHLK.stride(3) == 1 else tensor_BHLK.contiguous()


def _like(tensor_BHLK: Tensor, width: int) -> Tensor:
    batch, heads, length, _ = tensor_BHLK.shape
    return tensor_BHLK.new_empty(batch, length, heads, width).transpose(1, 2)


def _view(tensor_BHLK: Tensor) -> _View:
    return _View(tensor_BHLK.data_ptr(), *tensor_BHLK.stride()[:3])


def _mask(allowed: Tensor | None, query: Tensor, key: Tensor) -> _Mask:
    if allowed is None:
        return _Mask(None, 0, 0, 0)
    expanded = allowed.expand(query.size(0), 1, query.size(2), key.size(2))
    sentence, _, position, attended = expanded.stride()
    return _Mask(expanded.data_ptr(), sentence, position, attended)
