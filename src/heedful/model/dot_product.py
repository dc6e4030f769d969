"""Attention as it was before the paper: one head, by the plain product of a query and what it attends to."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from heedful.model.transformer import attention


class DotProductAttention(nn.Module):
    """softmax(Q K^T) V, neither projected nor scaled (Luong et al. 2015, "dot"; Gehring et al. 2017, equation 1).

    `observer`, if set, is called with the weights [B, 1, L, M] of every use: see model/recorder.py.
    """

    def __init__(self) -> None:
        super().__init__()
        self.observer: Callable[[Tensor], None] | None = None

    def forward(
        self,
        query_BLD: Float[Tensor, "B L D"],
        key_BMD: Float[Tensor, "B M D"],
        value_BMD: Float[Tensor, "B M D"],
        allowed_B11M: Bool[Tensor, "B 1 1 M"] | None,
    ) -> Float[Tensor, "B L D"]:
        """Return the values, weighted for each query."""
        unscaled_BLD = query_BLD * query_BLD.size(-1) ** 0.5  # equation 1 of the paper divides by this
        found_B1LD, weights_B1LM = attention(unscaled_BLD[:, None], key_BMD[:, None], value_BMD[:, None], allowed_B11M)
        if self.observer:
            self.observer(weights_B1LM.detach())
        return found_B1LD[:, 0]
