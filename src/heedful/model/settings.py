"""Sizes and choices of a model, of whichever family; what a family does not have is refused in a recipe."""

from dataclasses import dataclass
from typing import Literal

from heedful.config import check_ranges, setting
from heedful.errors import HeedfulError

Weights = Literal["float32", "bfloat16", "int8"]  # the type to translate by; int8: compiled steps only
_TRANSFORMER = {"family": ["transformer"]}
_LSTMS = {"family": ["lstm", "lstm-attention"]}


@dataclass(frozen=True)
class ModelConfig:
    """The family, its sizes and choices; the defaults are the paper's base model."""

    family: Literal["transformer", "lstm", "lstm-attention", "convolution"] = setting(
        "transformer", "The paper's model, or one that it left behind: LSTM, LSTM with attention, convolution"
    )
    encoder_layers: int = setting(6, "Layers of the encoder (N in the paper)", least=1)
    decoder_layers: int = setting(6, "Layers of the decoder", least=1)
    d_model: int = setting(512, "Width of the residual stream, or of an LSTM's or a convolution's states", least=1)
    d_ff: int = setting(2048, "Inner width of the feed-forward networks", least=1, only=_TRANSFORMER)
    heads: int = setting(8, "Attention heads (h)", least=1, only=_TRANSFORMER)
    d_k: int = setting(0, "Width of a head's keys and queries; 0 = d_model / heads", least=0, only=_TRANSFORMER)
    d_v: int = setting(0, "Width of a head's values; 0 = d_model / heads", least=0, only=_TRANSFORMER)
    dropout: float = setting(
        0.1, "Dropout on each sublayer's output and on the embedding sums (5.4)", least=0, most=0.99
    )
    attention_dropout: float = setting(0.0, "Dropout on attention weights", least=0, most=0.99, only=_TRANSFORMER)
    activation_dropout: float = setting(
        0.0, "Dropout inside the feed-forward networks", least=0, most=0.99, only=_TRANSFORMER
    )
    layer_dropout: float = setting(
        0.0,
        "Probability of leaving a layer out of a training step (Fan et al. 2020)",
        least=0,
        most=0.99,
        only=_TRANSFORMER,
    )
    tied_layers: int = setting(
        1, "So many layers of a stack, one after the other, share their weights", least=1, only=_TRANSFORMER
    )
    normalization: Literal["post", "pre"] = setting(
        "post", "Layer norm after each residual sum (3.1), or before each sublayer", only=_TRANSFORMER
    )
    positions: Literal["sinusoidal", "learned", "none"] = setting(
        "sinusoidal",
        "Positional encoding (3.5), learned ones, or none: then only rotary tells order",
        only=_TRANSFORMER,
    )
    first_position: Literal[0, 1] = setting(
        0, "Number of the first position", only={"family": ["transformer", "convolution"]}
    )
    rotary: bool = setting(
        False, "Turn self-attention's queries and keys by their position too (Su et al. 2021)", only=_TRANSFORMER
    )
    max_positions: int = setting(
        1024, "How many positions to learn", least=1, only={"positions": ["learned"], "family": ["convolution"]}
    )
    share: Literal["all", "target", "none"] = setting(
        "all", "Share weights between both embeddings and the output (3.4), the target's two only, or none"
    )
    bidirectional: bool = setting(
        True, "The encoder's first layer reads both ways", only={"family": ["lstm-attention"]}
    )
    residuals: bool = setting(
        True, "Add each layer's input to its output, from the second on (GNMT: third)", only=_LSTMS
    )
    kernel: int = setting(3, "Neighbouring positions that a layer sees", least=1, only={"family": ["convolution"]})

    @property
    def longest(self) -> int | None:
        """The tokens of the longest text, END among them; None where positions are not learned."""
        learned = self.family == "convolution" or (self.family == "transformer" and self.positions == "learned")
        return self.max_positions - self.first_position if learned else None

    def check_transformer(self, source_size: int, target_size: int) -> None:
        """Refuse a Transformer whose sizes do not fit together.

        Raises:
            HeedfulError: with the sizes, and what to change.
        """
        check_ranges(self, "model")
        if self.d_model % self.heads and not (self.d_k and self.d_v):
            raise HeedfulError(
                f"model: d_model {self.d_model} is not a multiple of {self.heads} heads; change one, or set d_k and d_v"
            )
        if self.rotary and (self.d_k or self.d_model // self.heads) % 2:
            raise HeedfulError("model: rotary turns pairs of numbers, but d_k is odd; change d_model, heads or d_k")
        self.check_sharing(source_size, target_size)

    def check_sharing(self, source_size: int, target_size: int) -> None:
        """Refuse to share an embedding between vocabularies that differ.

        Raises:
            HeedfulError: with both sizes, and what to change.
        """
        if self.share == "all" and source_size != target_size:
            raise HeedfulError(
                f'model: share = "all" needs a joint vocabulary, but there are {source_size} source and {target_size} '
                f'target tokens; set vocabulary.joint = true or model.share = "target"'
            )
