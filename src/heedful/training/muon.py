"""Muon: momentum made orthogonal, for the matrices between the layers; AdamW for everything else.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025 (arXiv 2502.16982, section
2.2). Not in the paper: it learns as much in fewer steps (docs/decisions/0004-muon.md).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# An odd polynomial whose repeated use brings every singular value of at most 1 near to 1 (Jordan et al. 2024).
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
REPETITIONS = 5
# Root mean square of the entries of an Adam update, as Liu et al. found it: a matrix update is scaled to the same.
ADAM_SIZE = 0.2


class Muon(torch.optim.AdamW):
    """AdamW over `others`, and Muon with Nesterov momentum over `matrices`, each [out, in].

    `products` is the type that matrices are multiplied in to make a momentum orthogonal: bfloat16 is enough for it.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        matrix_rate: float = 1.0,
        momentum: float = 0.95,
        products: torch.dtype = torch.float32,
        **adamw: Any,
    ) -> None:
        super().__init__(others, **adamw)
        self.matrices = list(matrices)
        self.matrix_rate = matrix_rate
        self.momentum = momentum
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once; the matrices learn at `matrix_rate` times the learning rate of the others."""
        loss: float | None = super().step(closure)
        rate, decay = self.matrix_rate * self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in self.matrices:
            if matrix.grad is not None:
                by_shape[matrix.shape].append(matrix)
        for shape, matrices in by_shape.items():  # one batched product serves all matrices of a shape
            update_NOI = torch.stack([self._nesterov(matrix) for matrix in matrices])
            scale = rate * ADAM_SIZE * max(shape) ** 0.5
            for matrix, update_OI in zip(matrices, orthogonal(update_NOI, self.products), strict=True):
                matrix.mul_(1.0 - rate * decay).sub_(update_OI, alpha=scale)
        return loss

    def _nesterov(self, matrix: nn.Parameter) -> Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        mean: Tensor = state["momentum"].lerp_(matrix.grad, 1.0 - self.momentum)
        return matrix.grad.lerp(mean, self.momentum)


def orthogonal(matrices_NOI: Tensor, products: torch.dtype = torch.float32) -> Tensor:
    """Return each matrix with all its singular values brought to between about 0.7 and 1.2  [N, out, in].

    Newton-Schulz iteration: only products of matrices, no decomposition.
    """
    tall = matrices_NOI.size(1) > matrices_NOI.size(2)
    x = matrices_NOI.mT if tall else matrices_NOI
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)).to(products)
    for _ in range(REPETITIONS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=CUBIC, alpha=QUINTIC)
        x = torch.baddbmm(x, polynomial, x, beta=LINEAR)
    return (x.mT if tall else x).to(matrices_NOI)


def matrices_of(model: nn.Module, output: nn.Module) -> list[nn.Parameter]:
    """Return the weights of all linear layers of `model` but the `output` projection, which is an embedding too.

    Those of a convolution are left out: weight normalisation makes them from a direction and a length.
    """
    linear = (module for module in model.modules() if isinstance(module, nn.Linear) and module is not output)
    return [module.weight for module in linear if isinstance(module.weight, nn.Parameter)]
