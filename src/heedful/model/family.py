"""Building a model of the family that its settings name, and what takes its steps in search."""

from typing import cast

import torch

from heedful.errors import HeedfulError
from heedful.model.compiled import Compiled
from heedful.model.compiled_inference import CompiledInference, compiled
from heedful.model.convolution import Convolution
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.engine import Engine
from heedful.model.ensemble import Ensemble, EnsembleInference, members_of
from heedful.model.inference import Inference
from heedful.model.lstm import LSTM
from heedful.model.settings import ModelConfig, Weights
from heedful.model.transformer import Transformer
from heedful.native import lacking

NEEDED = {"int8": "AVX2", "bfloat16": "AVX-512 with bfloat16"}


def build_model(config: ModelConfig, source_size: int, target_size: int) -> EncoderDecoder:
    """Return a new model with random weights.

    Raises:
        HeedfulError: sizes that do not fit together.
    """
    if config.family == "transformer":
        return Transformer(config, source_size, target_size)
    if config.family == "convolution":
        return Convolution(config, source_size, target_size)
    return LSTM(config, source_size, target_size)


def check_sizes(config: ModelConfig) -> None:
    """Refuse sizes that do not fit together, whatever the vocabulary; nothing is computed.

    Raises:
        HeedfulError: whatever `build_model` raises.
    """
    with torch.device("meta"):
        build_model(config, 8, 8)


def engine_of(model: EncoderDecoder | Compiled, weights: Weights = "float32") -> Engine:
    """Return what takes the steps of a search with this model, with its weights in this type.

    Raises:
        HeedfulError: there are no steps with such weights, for this family or on this machine.
    """
    if isinstance(model, Compiled):
        return CompiledInference(model)
    if isinstance(model, Ensemble):
        return EnsembleInference([engine_of(one, weights) for one in members_of(model)])
    if not isinstance(model, Transformer):
        if weights != "float32":
            raise HeedfulError(f"{weights} weights are for Transformers: leave --weights out")
        return cast(Engine, model)  # steps by itself
    if made := compiled(model, weights):
        return CompiledInference(made)
    on_processor = model.output.weight.device.type == "cpu"
    if weights == "int8" and not on_processor:
        raise HeedfulError("int8 weights are for processors: leave --weights out")
    if weights != "float32" and on_processor:  # in bfloat16 torch's products may depend on the batch
        why = (
            lacking("search")
            or f"this processor has no {NEEDED[weights]}, or its compiler knows none (set CXX to a newer one)"
        )
        raise HeedfulError(f"{weights} weights are not to be had here ({why}): leave --weights out")
    return Inference(model, weights)
