"""What a decoder remembers between steps. Storage only: attention is the same with it or without.

`N` hypotheses, `B` sentences, `H` heads, `K` d_k or d_v, `M` positions remembered, `S` source length.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROOM = 32  # positions by which a full cache grows


class KeysValues(NamedTuple):
    """Keys and values, projected and split into heads: what a query attends to."""

    key_BHMK: Tensor
    value_BHMK: Tensor

    def select(self, rows: Tensor) -> "KeysValues":
        """Return the keys and values of the given rows, in that order."""
        return KeysValues(self.key_BHMK.index_select(0, rows), self.value_BHMK.index_select(0, rows))


class SelfCache:
    """The keys and values of one decoder layer's past positions, in buffers with room to grow."""

    def __init__(self) -> None:
        self._buffers: KeysValues | None = None
        self._length = 0

    def append(self, new: KeysValues) -> KeysValues:
        """Remember one more position and return all of them; `new` is [N, H, 1, K]."""
        if self._buffers is None:
            self._buffers = KeysValues(*(functional.pad(tensor, (0, 0, 0, ROOM - 1)) for tensor in new))
        else:
            if self._length == self._buffers.key_BHMK.size(2):
                self._buffers = KeysValues(*(functional.pad(tensor, (0, 0, 0, ROOM)) for tensor in self._buffers))
            for buffer, tensor in zip(self._buffers, new, strict=True):
                buffer[:, :, self._length] = tensor[:, :, 0]
        self._length += 1
        return KeysValues(*(buffer[:, :, : self._length] for buffer in self._buffers))

    def select(self, rows_N: Tensor) -> None:
        """Keep the given hypotheses, in that order."""
        if self._buffers is not None:
            self._buffers = self._buffers.select(rows_N)


@dataclass(frozen=True)
class DecoderState:
    """Everything a step needs: per layer the past and the projected memory, and the position.

    The memory stands there once per sentence, however many hypotheses a sentence has; hypotheses of a sentence
    are neighbours, so that row n belongs to sentence n // (N / B).
    """

    past: tuple[SelfCache, ...]
    memory: tuple[KeysValues, ...]
    memory_allowed_B11S: Tensor | None
    position: int = 0

    def advance(self) -> "DecoderState":
        """Return the state one position further."""
        return replace(self, position=self.position + 1)

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "DecoderState":
        """Keep the given hypotheses, in that order; with `sentences_B`, keep only those sentences' memory.

        The state that this is called on must not be used again.
        """
        for cache in self.past:
            cache.select(rows_N)
        if sentences_B is None:
            return self
        allowed = self.memory_allowed_B11S
        return replace(
            self,
            memory=tuple(memory.select(sentences_B) for memory in self.memory),
            memory_allowed_B11S=None if allowed is None else allowed.index_select(0, sentences_B),
        )


def lengths_to_mask(lengths_B: Tensor, width: int) -> Tensor | None:
    """Return [B, 1, 1, width], True where a position holds a token; None where all do, which costs nothing."""
    if bool((lengths_B == width).all()):
        return None
    return (torch.arange(width, device=lengths_B.device) < lengths_B[:, None])[:, None, None, :]
