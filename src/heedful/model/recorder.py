"""See what every head attends to: an explicit recorder, so that `forward` returns one thing."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle

from torch import Tensor

from heedful.model.transformer import MultiHeadAttention, Transformer

Maps = dict[str, list[Tensor]]


@contextmanager
def recording(model: Transformer) -> Iterator[Maps]:
    """Collect attention weights while the context lasts: name -> one [B, H, L, M] tensor for each use.

    Names are "encoder.0", "decoder.0", "cross.0" and so on, by layer.
    """
    maps: Maps = defaultdict(list)
    names: dict[MultiHeadAttention, list[str]] = defaultdict(list)  # several, where layers share their weights
    for name, attention in _named(model):
        names[attention].append(name)
    for attention, own in names.items():
        attention.observer = partial(_keep, maps, cycle(own))
    try:
        yield maps
    finally:
        for attention in names:
            attention.observer = None


def _keep(maps: Maps, names: Iterator[str], weights: Tensor) -> None:
    maps[next(names)].append(weights)


def _named(model: Transformer) -> Iterator[tuple[str, MultiHeadAttention]]:
    for number, layer in enumerate(model.encoder):
        yield f"encoder.{number}", layer.self_attention  # type: ignore[misc]
    for number, layer in enumerate(model.decoder):
        yield f"decoder.{number}", layer.self_attention  # type: ignore[misc]
        yield f"cross.{number}", layer.cross_attention  # type: ignore[misc]
