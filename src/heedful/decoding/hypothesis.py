"""An output of search, and what every search goes by; without torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError

NEVER = -1e9  # the log-probability of what must not be: finite, so that sums stay numbers


class Hypothesis(NamedTuple):
    """One output: tokens up to and with the end token, its log-probability, and its length-normalised score."""

    ids: list[int]
    log_probability: float
    score: float


def hypothesis(ids: list[int], total: float, config: SearchConfig) -> Hypothesis:
    """Return an output with its score."""
    return Hypothesis(ids, total, total / length_penalty(len(ids), config.length_penalty))


def length_penalty(length: float | np.ndarray, alpha: float) -> Any:
    """Return ((5 + length) / 6)^alpha  (Wu et al. 2016, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


def limits(
    lengths_B: Sequence[int], config: SearchConfig, prefixes: Sequence[Sequence[int]] | None, longest: int | None
) -> list[int]:
    """Return how many tokens each output may have, END among them.

    Raises:
        HeedfulError: the model has no positions for a prefix.
    """
    extra = [len(prefix) for prefix in prefixes] if prefixes else [0] * len(lengths_B)
    if longest is not None and max(extra, default=0) >= longest:
        raise HeedfulError(f"a prefix of {max(extra)} tokens, but the model has {longest} positions; shorten it")
    found = [max(length + config.max_extra, e + 1) for length, e in zip(lengths_B, extra, strict=True)]
    return found if longest is None else [min(limit, longest) for limit in found]
