"""Averages of weights: of the last checkpoints (section 6.1), and exponential."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.model.weights import read_weights


def average_files(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights in several files, summed in float64.

    Raises:
        HeedfulError: a file is missing or damaged, or they are of different models.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for path in paths:
        weights = read_weights(path)
        if count and {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in total.items()}:
            raise HeedfulError(f"{path}: weights of another model than the first; average those of one run")
        for name, tensor in weights.items():
            total[name] = total[name] + tensor.double() if count else tensor.double()
        count += 1
    return {name: (tensor / count).float() for name, tensor in total.items()}


@torch.no_grad()
def update_exponential(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move `average` towards `weights` in place: decay * average + (1 - decay) * weights.

    Early on the decay is lower, (1 + step) / (10 + step), so that the first weights do not linger.
    """
    share = 1.0 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.values()), [weights[name] for name in average], share)
