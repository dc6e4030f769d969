"""Label-smoothed cross-entropy, fused with the output projection  (sections 3.4 and 5.4).

The logits of a batch, tokens x vocabulary, would be the largest tensor of training by far. They never exist: a
chunk of tokens at a time is projected, and its loss and gradients are computed while it is in the cache.

`N` tokens, `C` tokens of a chunk, `D` d_model, `V` vocabulary.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 384
LEAST = 1e-30  # below it, float32 and bfloat16 soon run out of exponents


class Loss(NamedTuple):
    """Sums over tokens, in nats: the smoothed loss to minimise, and the plain negative log-likelihood."""

    smoothed: Float[Tensor, ""]
    likelihood: Float[Tensor, ""]


def smoothed_cross_entropy(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    target_N: Int[Tensor, "N"],
    smoothing: float,
) -> Loss:
    """Return the loss of projecting `hidden_ND` with `weight_VD`, summed over tokens.

    The target distribution gives 1 - smoothing to the target and spreads `smoothing` evenly over all V symbols, as
    Szegedy et al. 2016 and `torch.nn.functional.cross_entropy` do. Gradients flow from `smoothed` only.
    """
    smoothed, likelihood = _ProjectedLoss.apply(hidden_ND, weight_VD, target_N, smoothing)  # type: ignore[no-untyped-call]
    return Loss(smoothed, likelihood)


class _ProjectedLoss(torch.autograd.Function):
    """Computes its gradients in the forward pass, scaled by what flows back later."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        training = any(ctx.needs_input_grad[:2])
        narrow, wide = weight_VD.dtype, torch.promote_types(weight_VD.dtype, torch.float32)
        hidden_gradient_ND = torch.empty_like(hidden_ND) if training else None
        weight_gradient_VD = torch.zeros_like(weight_VD, dtype=wide) if training else None
        mean_weight_D = weight_VD.mean(0, dtype=wide)
        target_logit_N, target_probability_N = hidden_ND.new_empty(2, len(target_N), dtype=wide)
        for start in range(0, len(target_N), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden_CD = hidden_ND[rows]
            target_of_C = torch.arange(len(hidden_CD), device=hidden_ND.device), target_N[rows]
            logits_CV = hidden_CD @ weight_VD.T
            target_logit_N[rows] = logits_CV[target_of_C]
            probability_CV = torch.softmax(logits_CV, 1, out=logits_CV)  # in place: half the memory to move
            target_probability_N[rows] = probability_CV[target_of_C]
            if hidden_gradient_ND is None or weight_gradient_VD is None:
                continue
            # d loss / d logits = p - target distribution, made in place. The even part of that distribution is left
            # out here and taken from both products below: no pass over the logits, and nothing rounded away.
            gradient_CV = probability_CV
            gradient_CV[target_of_C] -= 1.0 - smoothing
            hidden_gradient_ND[rows] = torch.addmm(mean_weight_D.to(narrow), gradient_CV, weight_VD, beta=-smoothing)
            if narrow == wide:
                weight_gradient_VD.addmm_(gradient_CV.T, hidden_CD)
            else:
                weight_gradient_VD += gradient_CV.T @ hidden_CD
        if weight_gradient_VD is not None:
            weight_gradient_VD -= hidden_ND.sum(0, dtype=wide) * (smoothing / len(weight_VD))
        likelihood_N = -target_probability_N.log()
        # where a probability is next to nothing, take its logarithm the long way
        for lost_C in (target_probability_N < LEAST).nonzero()[:, 0].split(CHUNK):
            logits_CV = (hidden_ND[lost_C] @ weight_VD.T).to(wide)
            likelihood_N[lost_C] = logits_CV.logsumexp(1) - target_logit_N[lost_C]
        likelihood = likelihood_N.sum()
        # minus the mean log-probability of all symbols: log sum exp, minus the mean logit
        uniform = likelihood + (target_logit_N - hidden_ND.to(wide) @ mean_weight_D).sum()
        ctx.save_for_backward(hidden_gradient_ND, weight_gradient_VD)
        return (1.0 - smoothing) * likelihood + smoothing * uniform, likelihood

    @staticmethod
    def backward(ctx: Any, smoothed: Tensor, _likelihood: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient_ND, weight_gradient_VD = ctx.saved_tensors
        weight_gradient_VD = (weight_gradient_VD * smoothed).to(hidden_gradient_ND.dtype)
        return hidden_gradient_ND * smoothed, weight_gradient_VD, None, None
