"""Averages of weights: of the last checkpoints (section 6.1), and exponential."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from heedful.bundle import read_weights


def average_files(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights in several files, summed in float64.

    Raises:
        HeedfulError: a file is missing or damaged.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for path in paths:
        for name, tensor in read_weights(path).items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
        count += 1
    return {name: (tensor / count).float() for name, tensor in total.items()}


@torch.no_grad()
def update_exponential(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move `average` towards `weights` in place: decay * average + (1 - decay) * weights.

    Early on the decay is lower, (1 + step) / (10 + step), so that the first weights do not linger.
    """
    share = 1.0 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.values()), [weights[name] for name in average], share)
