"""Embeddings of tokens whose gradients are sums in float32, whatever the type of the weights."""

from typing import Any

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Embedding):
    """`nn.Embedding`; in bfloat16 on a processor the gradient of a token that stands there often is not cut short.

    torch adds one row after another into a gradient of the weights' own type. In bfloat16, whose numbers have eight
    bits, a sum of equal addends stands still before 512 of them: common tokens can learn from a part of their text.
    """

    def forward(self, token_BL: Tensor) -> Tensor:
        """Return the rows of the given tokens."""
        if self.weight.dtype != torch.bfloat16 or self.weight.device.type != "cpu":
            return super().forward(token_BL)
        return _Rows.apply(token_BL, self.weight)  # type: ignore[no-untyped-call, no-any-return]


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token_BL: Tensor, weight_VD: Tensor) -> Tensor:
        ctx.save_for_backward(token_BL)
        ctx.rows = len(weight_VD)
        return nn.functional.embedding(token_BL, weight_VD)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BLD: Tensor) -> tuple[None, Tensor]:
        (token_BL,) = ctx.saved_tensors
        sums_VD = torch.ops.aten.embedding_dense_backward(gradient_BLD.float(), token_BL, ctx.rows, -1, False)
        return None, sums_VD.to(gradient_BLD.dtype)
