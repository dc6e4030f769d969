"""Label-smoothed cross-entropy, fused with the output projection  (sections 3.4 and 5.4).

The logits of a batch, tokens x vocabulary, would be the largest tensor of training by far. They never exist: a
chunk of tokens at a time is projected, and its loss and gradients are computed while it is in the cache.

`N` tokens, `C` tokens of a chunk, `D` d_model, `V` vocabulary.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 512


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
        device = hidden_ND.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
        weight = weight_VD.to(dtype)
        mean_weight_D = weight.mean(0)
        training = any(ctx.needs_input_grad[:2])
        hidden_gradient_ND = torch.empty_like(hidden_ND) if training else None
        weight_gradient_VD = torch.zeros_like(weight_VD) if training else None
        likelihood = hidden_ND.new_zeros((), dtype=torch.float32)
        uniform = torch.zeros_like(likelihood)  # minus the sum over tokens of the mean log-probability
        for start in range(0, len(target_N), CHUNK):
            rows = slice(start, start + CHUNK)
            hidden_CD, target_C1 = hidden_ND[rows].to(dtype), target_N[rows, None]
            logits_CV = hidden_CD @ weight.T
            target_logit_C = logits_CV.gather(1, target_C1).float()
            mean_C = (hidden_CD @ mean_weight_D).float()
            highest_C1 = logits_CV.amax(1, keepdim=True).float()
            probability_CV = logits_CV.softmax(1)
            # The largest probability is 1 / sum(exp(z - max)), never below 1/V: so it yields log sum exp safely,
            # one pass cheaper than computing it from the logits.
            normalizer_C1 = highest_C1 - probability_CV.amax(1, keepdim=True).float().log()
            likelihood += (normalizer_C1 - target_logit_C).sum()
            uniform += (normalizer_C1[:, 0] - mean_C).sum()
            if hidden_gradient_ND is None or weight_gradient_VD is None:
                continue
            gradient_CV = probability_CV  # d loss / d logits = p - target distribution, made in place
            if smoothing:
                gradient_CV -= smoothing / len(weight)
            gradient_CV.scatter_add_(1, target_C1, gradient_CV.new_full(target_C1.shape, smoothing - 1.0))
            hidden_gradient_ND[rows] = gradient_CV @ weight
            if dtype == weight_gradient_VD.dtype:
                weight_gradient_VD.addmm_(gradient_CV.T, hidden_CD)
            else:
                weight_gradient_VD += gradient_CV.T @ hidden_CD
        ctx.save_for_backward(hidden_gradient_ND, weight_gradient_VD)
        return (1.0 - smoothing) * likelihood + smoothing * uniform, likelihood

    @staticmethod
    def backward(ctx: Any, smoothed: Tensor, _likelihood: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient_ND, weight_gradient_VD = ctx.saved_tensors
        return hidden_gradient_ND * smoothed, weight_gradient_VD * smoothed, None, None
