"""Several models as one, as in the ensembles of table 2: a token's probability is the mean of what they give it.

Probabilities are averaged, not their logarithms: where one model rules a token out, the others can still choose it.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.engine import Engine


class Ensemble(EncoderDecoder):
    """Models of any families with the same vocabulary, side by side; what they think is [.., D], one after another."""

    def __init__(self, members: Sequence[EncoderDecoder]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._widths = [member.output.in_features for member in members]

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> list[Any]:
        """Encode source sentences, padded on the right, once for each member."""
        return [member.encode(source_BS, source_lengths_B) for member in members_of(self)]

    def decode(self, target_in_BT: Int[Tensor, "B T"], memory: list[Any]) -> Float[Tensor, "B T D"]:
        """Return the members' hidden states after each given token; position t sees none after t."""
        return torch.cat(
            [member.decode(target_in_BT, own) for member, own in zip(members_of(self), memory, strict=True)], dim=-1
        )

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Map the members' hidden states to the logarithm of their mean probability."""
        parts = torch.split(hidden, self._widths, dim=-1)
        return log_mean([member.logits(part) for member, part in zip(members_of(self), parts, strict=True)])


class States(list[Any]):
    """What each member remembers of a search."""

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "States":
        """Keep the given hypotheses in that order, and, if given, only these sentences."""
        return States(state.select(rows_N, sentences_B) for state in self)


class EnsembleInference:
    """An ensemble, ready to translate: the engines of its members take each step together."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self.one_thread = all(engine.one_thread for engine in engines)

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> list[Any]:
        """Encode source sentences, padded on the right, once for each engine."""
        return [engine.encode(source_BS, source_lengths_B) for engine in self._engines]

    def start(self, encoded: list[Any]) -> States:
        """Return the state before the first step."""
        return States(engine.start(own) for engine, own in zip(self._engines, encoded, strict=True))

    def step(self, token_N: Int[Tensor, " N"], state: States) -> tuple[list[Tensor], States]:
        """Return the engines' hidden states after one more token of each hypothesis."""
        found = [engine.step(token_N, own) for engine, own in zip(self._engines, state, strict=True)]
        return [hidden for hidden, _ in found], States(own for _, own in found)

    def logits(self, hidden: list[Tensor]) -> Float[Tensor, "N V"]:
        """Map the engines' hidden states to the logarithm of their mean probability."""
        return log_mean([engine.logits(own) for engine, own in zip(self._engines, hidden, strict=True)])


def members_of(model: EncoderDecoder) -> list[EncoderDecoder]:
    """Return the models that a model consists of: an ensemble's members, or itself."""
    return [cast(EncoderDecoder, member) for member in model.members] if isinstance(model, Ensemble) else [model]


def log_mean(logits: Sequence[Float[Tensor, "*batch V"]]) -> Float[Tensor, "*batch V"]:
    """Return the logarithm of the mean of the probabilities that several logits stand for."""
    logs = torch.stack([each.log_softmax(-1) for each in logits])
    return logs.logsumexp(0) - math.log(len(logits))
