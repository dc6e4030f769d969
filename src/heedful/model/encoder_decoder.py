"""The one interface of all families: what training, scoring and inspection know of a model."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from heedful.model.settings import ModelConfig


class EncoderDecoder(nn.Module):
    """A model that reads a source and says what may follow each token of a target.

    What `encode` returns is the family's own affair, and goes back into `decode` as it is. Search steps one position
    at a time instead, by an engine: see engine.py.
    """

    config: ModelConfig
    output: nn.Linear

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Any:
        """Encode source sentences, padded on the right."""
        raise NotImplementedError

    def decode(self, target_in_BT: Int[Tensor, "B T"], memory: Any) -> Float[Tensor, "B T D"]:
        """Return the hidden state after each given token, all positions at once; position t sees none after t."""
        raise NotImplementedError

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Map hidden states to unnormalised log-probabilities."""
        raise NotImplementedError
