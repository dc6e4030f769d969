"""Switch attention heads off, and see what a model does without them (Michel et al. 2019, Voita et al. 2019)."""

import copy
from collections.abc import Iterable

import torch

from heedful.model.convolution import Convolution
from heedful.model.convolution import DecoderLayer as ConvolutionLayer
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.lstm import LSTM
from heedful.model.recorder import attentions, parse_head, seen
from heedful.model.transformer import MultiHeadAttention


@torch.no_grad()
def without(model: EncoderDecoder, names: Iterable[str]) -> EncoderDecoder:
    """Return a copy of `model` in which some heads add nothing: "cross.3.1" is one head, "cross.3" all of that layer.

    What a head finds reaches the model through its columns of W^O; they are zero in the copy. Layers that share their
    weights lose the head together.

    Raises:
        HeedfulError: there is no such head, with those that there are.
    """
    heads = {key: _heads(module) for key, module in attentions(model)}
    chosen = [parse_head(name, heads) for name in names]
    changed = copy.deepcopy(model)
    shown = seen(changed)
    found = dict(attentions(shown))
    for place, head in chosen:
        attention = found[place]
        if isinstance(attention, MultiHeadAttention):
            weight_DHV = attention.output.weight.view(attention.output.out_features, attention.heads, -1)
            weight_DHV[:, slice(None) if head is None else head] = 0.0
        elif isinstance(shown, LSTM) and shown.join is not None:
            shown.join.weight[:, : shown.config.d_model] = 0.0
        elif isinstance(shown, Convolution):
            layer = shown.decoder[int(place.partition(".")[2])]
            assert isinstance(layer, ConvolutionLayer)
            for parameter in layer.output.parameters():
                parameter.zero_()
            layer.output.parametrizations.weight.original1.fill_(1.0)  # type: ignore[union-attr, operator]
    return changed


def _heads(attention: torch.nn.Module) -> int:
    return attention.heads if isinstance(attention, MultiHeadAttention) else 1
