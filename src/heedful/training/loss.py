"""Label-smoothed cross-entropy, fused with the output projection  (sections 3.4 and 5.4).

The logits of a batch, tokens x vocabulary, would be the largest tensor of training by far. They never exist: a
chunk of tokens at a time is projected, and its loss and gradients are computed while it is in the cache.

`N` tokens, `C` tokens of a chunk, `D` d_model, `V` vocabulary.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from heedful.model.kernels import KINDS, can_compute, kernels
from heedful.model.linear import by_onednn, multiply, sum_outer_products

CHUNK, GPU_CHUNK = 384, 4096  # tokens: as many as a processor's cache holds; few large products for a GPU
LEAST = 1e-30  # below it, float32 and bfloat16 soon run out of exponents


class Loss(NamedTuple):
    """Sums over tokens, in nats: the smoothed loss to minimise, and the plain negative log-likelihood."""

    smoothed: Float[Tensor, ""]
    nll: Float[Tensor, ""]


def smoothed_cross_entropy(
    hidden_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    target_N: Int[Tensor, " N"],
    smoothing: float,
) -> Loss:
    """Return the loss of projecting `hidden_ND` with `weight_VD`, summed over tokens.

    The target distribution gives 1 - smoothing to the target and spreads `smoothing` evenly over all V tokens, as
    Szegedy et al. 2016 and `torch.nn.functional.cross_entropy` do. Gradients flow from `smoothed` only.
    """
    return _projected_loss(hidden_ND, weight_VD, target_N, smoothing)


def consistent_cross_entropy(
    first_ND: Float[Tensor, "N D"],
    second_ND: Float[Tensor, "N D"],
    weight_VD: Float[Tensor, "V D"],
    target_N: Int[Tensor, " N"],
    smoothing: float,
    consistency: float,
) -> Loss:
    """Return the loss of two passes over the same tokens under different dropout: R-Drop (Liang et al. 2021).

    That is half of theirs, so that it compares with one pass: the mean of both passes' smoothed cross-entropy, plus
    consistency / 4 times the two Kullback-Leibler divergences between them.
    """
    hidden_ND = torch.cat([first_ND, second_ND])
    return _projected_loss(hidden_ND, weight_VD, target_N, smoothing, 2, consistency)


def _projected_loss(
    hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, smoothing: float, passes: int = 1, consistency: float = 0.0
) -> Loss:
    learning = torch.is_grad_enabled()  # inside, it never is, and parameters want gradients all the same
    loss = _ProjectedLoss.apply(hidden_ND, weight_VD, target_N, smoothing, passes, consistency, learning)  # type: ignore[no-untyped-call]
    return Loss(*loss)


class _ProjectedLoss(torch.autograd.Function):
    """Computes its gradients in the forward pass, scaled by what flows back later.

    `hidden_ND` holds `P` passes over the targets, one after the other; the loss is the mean of theirs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        smoothing: float,
        passes: int,
        consistency: float,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        training = learning and any(ctx.needs_input_grad[:2])
        narrow, wide = weight_VD.dtype, torch.promote_types(weight_VD.dtype, torch.float32)
        hidden_PND = hidden_ND.view(passes, len(target_N), hidden_ND.size(1))
        hidden_gradient_PND = torch.empty_like(hidden_PND) if training else None
        weight_gradient_VD: Tensor | None = None
        mean_weight_D = weight_VD.mean(0, dtype=wide)
        even_D = (mean_weight_D * -smoothing).to(narrow)
        target_logit_PN, target_probability_PN = hidden_ND.new_empty(2, *hidden_PND.shape[:2], dtype=wide)
        divergence = hidden_ND.new_zeros((), dtype=wide)
        chunk = max(1, (CHUNK if hidden_ND.device.type == "cpu" else GPU_CHUNK) // passes)
        for start in range(0, len(target_N), chunk):
            rows = slice(start, start + chunk)
            hidden_CD = hidden_PND[:, rows].flatten(0, 1)
            target_C = target_N[rows].repeat(passes)
            target_of_C = torch.arange(len(target_C), device=hidden_ND.device), target_C
            logits_CV = multiply(hidden_CD, weight_VD.T)
            target_logit_PN[:, rows] = logits_CV[target_of_C].view(passes, -1).to(wide)
            difference_CV = torch.sub(*logits_CV.chunk(2)) if consistency else None
            probability_CV = _softmax_in_place(logits_CV)
            target_probability_PN[:, rows] = probability_CV[target_of_C].view(passes, -1).to(wide)
            apart_CV = None
            if difference_CV is not None:
                first_CV, second_CV = probability_CV.chunk(2)
                between_C1, apart_CV = _divergence(first_CV, second_CV, difference_CV)
                divergence += between_C1.sum(dtype=wide)
            if hidden_gradient_PND is None:
                continue
            # d loss / d logits = p - target distribution, made in place. The even part of that distribution is left
            # out here and taken from both products below: no pass over the logits, and nothing rounded away.
            gradient_CV = probability_CV
            gradient_CV[target_of_C] -= 1.0 - smoothing
            if apart_CV is not None:
                gradient_CV.add_(apart_CV, alpha=consistency / 2)
            back_CD = multiply(gradient_CV, weight_VD, even_D)
            hidden_gradient_PND[:, rows] = back_CD.view(passes, -1, back_CD.size(1))
            weight_gradient_VD = _add_product(weight_gradient_VD, gradient_CV, hidden_CD, wide)
        if training:
            if weight_gradient_VD is None:  # no targets
                weight_gradient_VD = torch.zeros_like(weight_VD, dtype=wide)
            weight_gradient_VD -= hidden_ND.sum(0, dtype=wide) * (smoothing / len(weight_VD))
        nll_N = -target_probability_PN.flatten().log()
        # where a probability is next to nothing, take its logarithm the long way
        target_logit_N = target_logit_PN.flatten()
        for lost_C in (target_probability_PN.flatten() < LEAST).nonzero()[:, 0].split(CHUNK):
            logits_CV = (hidden_ND[lost_C] @ weight_VD.T).to(wide)
            nll_N[lost_C] = logits_CV.logsumexp(1) - target_logit_N[lost_C]
        nll = nll_N.sum() / passes
        # minus the mean log-probability of all tokens: log sum exp, minus the mean logit
        uniform = nll + (target_logit_N - hidden_ND.to(wide) @ mean_weight_D).sum() / passes
        ctx.save_for_backward(hidden_gradient_PND, weight_gradient_VD)
        ctx.passes = passes
        return (1.0 - smoothing) * nll + smoothing * uniform + consistency / 4 * divergence, nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, smoothed: Tensor, _nll: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient_PND, weight_gradient_VD = ctx.saved_tensors
        scale = smoothed / ctx.passes
        weight_gradient_VD = (weight_gradient_VD * scale).to(hidden_gradient_PND.dtype)
        return hidden_gradient_PND.flatten(0, 1) * scale, weight_gradient_VD, None, None, None, None, None


def _softmax_in_place(logits_CV: Tensor) -> Tensor:
    """Return the softmax of each row, written over its logits: half the memory to move."""
    if not can_compute(logits_CV):
        return torch.softmax(logits_CV, 1, out=logits_CV)
    kernels().softmax_in_place(KINDS[logits_CV.dtype], logits_CV.data_ptr(), *logits_CV.shape)
    return logits_CV


def _add_product(sum_VD: Tensor | None, gradient_CV: Tensor, hidden_CD: Tensor, wide: torch.dtype) -> Tensor:
    """Return the weight's gradient from a chunk added to a sum of the type `wide`; None is the empty sum."""
    if sum_VD is not None and sum_VD.dtype == gradient_CV.dtype and not by_onednn(sum_VD):
        return sum_VD.addmm_(gradient_CV.T, hidden_CD)
    product_VD = sum_outer_products(gradient_CV, hidden_CD)
    if sum_VD is None:
        return product_VD.to(wide)
    if product_VD.dtype == torch.bfloat16 and can_compute(product_VD):
        kernels().accumulate(sum_VD.data_ptr(), product_VD.data_ptr(), sum_VD.numel())
        return sum_VD
    return sum_VD.add_(product_VD)


def _divergence(first_CV: Tensor, second_CV: Tensor, difference_CV: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(p || q) + KL(q || p) of each row, and its gradient in the logits of p, then of q.

    `difference_CV` is their logits' difference: the normalising terms cancel, so that no logarithm is needed.
    """
    mean_first_C1 = torch.linalg.vecdot(first_CV, difference_CV)[:, None]
    mean_second_C1 = torch.linalg.vecdot(second_CV, difference_CV)[:, None]
    to_first_CV = (difference_CV - mean_first_C1 + 1).mul_(first_CV).sub_(second_CV)
    to_second_CV = (mean_second_C1 - difference_CV + 1).mul_(second_CV).sub_(first_CV)
    return mean_first_C1 - mean_second_C1, torch.cat([to_first_CV, to_second_CV])
