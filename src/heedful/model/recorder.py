"""See what every head attends to: an explicit recorder, so that `forward` returns one thing."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import cast

from torch import Tensor

from heedful.errors import HeedfulError
from heedful.model import convolution, transformer
from heedful.model.convolution import Convolution
from heedful.model.dot_product import DotProductAttention
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.ensemble import Ensemble, members_of
from heedful.model.lstm import LSTM
from heedful.model.transformer import MultiHeadAttention, Transformer

Maps = dict[str, list[Tensor]]
Attention = MultiHeadAttention | DotProductAttention


@contextmanager
def recording(model: EncoderDecoder, only: str = "") -> Iterator[Maps]:
    """Collect attention weights while the context lasts: name -> one [B, H, L, M] tensor for each use.

    Names are "encoder.0", "decoder.0", "cross.0" and so on, by layer. An LSTM with attention has "cross.0", a
    convolution "cross.0" to its last layer, each of one head. With `only`, a kind ("cross") or one of them ("cross.1"):
    a long text's weights of every head take much memory.
    """
    maps: Maps = defaultdict(list)
    names: dict[Attention, list[str]] = defaultdict(list)  # several, where layers share their weights
    for name, attention in attentions(model):
        names[attention].append(name)
    observed = {attention: own for attention, own in names.items() if any(_is_of(name, only) for name in own)}
    for attention, own in observed.items():
        attention.observer = partial(_keep, maps, cycle(own), only)
    try:
        yield maps
    finally:
        for attention in observed:
            attention.observer = None


def seen(model: EncoderDecoder) -> EncoderDecoder:
    """Return the model that views show: itself, or the first member of an ensemble that has attention."""
    if not isinstance(model, Ensemble):
        return model
    return next((member for member in members_of(model) if any(attentions(member))), model)


def attentions(model: EncoderDecoder) -> Iterator[tuple[str, Attention]]:
    """Yield each attention of a model with its name, in the order of the layers; of an ensemble, `seen`'s."""
    model = seen(model)
    if isinstance(model, LSTM) and model.cross_attention is not None:
        yield "cross.0", model.cross_attention
    if isinstance(model, Transformer):
        for number, layer in enumerate(model.encoder):
            yield f"encoder.{number}", cast(transformer.EncoderLayer, layer).self_attention
        for number, layer in enumerate(model.decoder):
            yield f"decoder.{number}", cast(transformer.DecoderLayer, layer).self_attention
            yield f"cross.{number}", cast(transformer.DecoderLayer, layer).cross_attention
    if isinstance(model, Convolution):
        for number, layer in enumerate(model.decoder):
            yield f"cross.{number}", cast(convolution.DecoderLayer, layer).cross_attention


def parse_head(name: str, heads: Mapping[str, int]) -> tuple[str, int | None]:
    """Split "cross.3.1" into an attention and one of its heads, "cross.3" into it and None.

    Args:
        name: what somebody asked for
        heads: the attentions that there are, and how many heads each has

    Raises:
        HeedfulError: there is no such attention or head; says which there are.
    """
    place, head = name, None
    if name.count(".") == 2:
        place, _, number = name.rpartition(".")
        head = int(number) if re.fullmatch("[0-9]{1,4}", number) else -1
    if place not in heads or (head is not None and not 0 <= head < heads[place]):
        there = ", ".join(f"{key} (heads 0 to {count - 1})" for key, count in heads.items()) or "none at all"
        raise HeedfulError(f"no attention '{name}' in this model; there are {there}")
    return place, head


def _keep(maps: Maps, names: Iterator[str], only: str, weights: Tensor) -> None:
    name = next(names)
    if _is_of(name, only):
        maps[name].append(weights)


def _is_of(name: str, only: str) -> bool:
    return not only or f"{name}.".startswith(f"{only}.")
