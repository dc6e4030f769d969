"""Building a model of the family that its settings name."""

from heedful.model.convolution import Convolution
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.lstm import LSTM
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer


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
