"""Batches by token budget over length buckets: seeded, and resumable at any step.

`B` batch, `S` source length, `T` target length, `N` pairs of the corpus.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heedful.config import setting
from heedful.data.lines import flatten, pad
from heedful.data.tokens import TokenStore
from heedful.errors import HeedfulError
from heedful.text.vocabulary import BEGIN, PAD, Vocabulary


@dataclass(frozen=True)
class BatchConfig:
    """How pairs are gathered into batches."""

    tokens: int = setting(4096, "Tokens in a batch, padding included, on its longer side; fewer: less memory", least=1)
    accumulate: int = setting(1, "Batches whose gradients make one step", least=1)
    seed: int = setting(1, "Seed of the order", least=0)


class Batch(NamedTuple):
    """Pairs of similar length, padded. `target_in` is `target_out` moved right by one, as in section 3.1."""

    source_BS: Tensor
    source_lengths_B: Tensor
    target_in_BT: Tensor
    target_out_BT: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        # not elsewhere: mps may read the memory after it was given back (pytorch issue 189690)
        return Batch(*(tensor.to(device, non_blocking=device.type == "cuda") for tensor in self))


def plan_epoch(
    source_lengths_N: np.ndarray, target_lengths_N: np.ndarray, tokens: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Cut the pairs into batches of at most `tokens` on the longer side, little padded, in random order.

    Pairs are ordered by target length, then by source length: up and down in turn, so that the source lengths
    do not jump where one target length ends and the next begins. Ties are broken at random.

    Batches have their numbers of pairs from a short list: oneDNN compiles a product for each shape, which on some
    processors takes longer than the product (docs/performance.md).
    """
    target_N, source_N = target_lengths_N.astype(np.int64), source_lengths_N.astype(np.int64)
    snake_N = np.where(target_N % 2 == 0, source_N, -source_N)
    order = np.lexsort((generator.random(len(target_N)), snake_N, target_N))
    batches, start, width = [], 0, 0
    longer_N = np.maximum(source_N, target_N)[order]
    for position, length in enumerate(longer_N.tolist()):
        width = max(width, length)
        while width * (position - start + 1) > tokens and position > start:
            end = start + _common(position - start)
            batches.append(order[start:end])
            start, width = end, int(longer_N[end : position + 1].max())
    if len(order) > start:
        batches.append(order[start:])
    return [batches[i] for i in generator.permutation(len(batches))]


def _common(rows: int) -> int:
    """Round down to a number with four binary digits and zeros after them."""
    step = 1 << max(rows.bit_length() - 4, 0)
    return rows // step * step


def collate(source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]) -> Batch:
    """Make a batch of (ids, lengths) of both sides."""
    source_BS = pad(*source, width=int(source[1].max()))
    target_out_BT = pad(*target, width=int(target[1].max()))
    target_in_BT = np.roll(target_out_BT, 1, axis=1)
    target_in_BT[:, 0] = BEGIN
    target_in_BT[target_out_BT == PAD] = PAD
    tensors = (source_BS, source[1].astype(np.int64), target_in_BT, target_out_BT)
    return Batch(*(torch.from_numpy(tensor) for tensor in tensors))


def batch_of(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """Make a batch of lists of ids."""
    return collate(flatten(sources), flatten(targets))


class BatchStream:
    """Endless batches of a token store. Its whole state is (epoch, position); the rest follows from the seed.

    Subword dropout makes lines longer: one that would then have more than `longest` tokens stays as it is stored. With
    several processes each takes every `world`-th batch, beginning with its own `rank`.
    """

    def __init__(
        self,
        store: TokenStore,
        config: BatchConfig,
        *,
        vocabulary: Vocabulary | None = None,
        subword_dropout: float = 0.0,
        weights: Sequence[float] = (),
        longest: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._store, self._config, self._weights = store, config, weights
        self._vocabulary, self._subword_dropout, self._longest = vocabulary, subword_dropout, longest
        self._rank, self._world = rank, world
        self.epoch, self.position = 0, 0
        self._plan: list[np.ndarray] = []
        self._planned = -1

    def state(self) -> dict[str, int | str]:
        """Return what `restore` needs to continue with the very next batch."""
        return {"corpus": self._store.name, "epoch": self.epoch, "position": self.position}

    def restore(self, state: Mapping[str, int | str]) -> None:
        """Continue where the stream that gave `state` stood.

        Raises:
            HeedfulError: that stream read other data.
        """
        if state["corpus"] != self._store.name:
            raise HeedfulError(
                "the text files or the data settings are not those that this training began with, or heedful reads "
                "them otherwise than its version of then: put them back, or train anew with another --out"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self.position + self._world > max(len(self.plan()), self._world):
                self.epoch, self.position = self.epoch + 1, 0
            plan = self.plan()
            rows = plan[(self.position + self._rank) % len(plan)]
            self.position += self._world
            yield self._collate(rows)

    def plan(self) -> list[np.ndarray]:
        """Return the rows of each batch of the present epoch, over all processes."""
        if self._planned != self.epoch:
            generator = np.random.default_rng((self._config.seed, self.epoch))
            rows = self._rows_of_epoch(generator)
            lengths = self._store.source_lengths_N[rows], self._store.target_lengths_N[rows]
            self._plan = [rows[batch] for batch in plan_epoch(*lengths, self._config.tokens, generator)]
            self._planned = self.epoch
        return self._plan

    def padding(self) -> float:
        """Return the share of padding in the present epoch's batches, over both sides."""
        slots, tokens = 0, 0
        for rows in self.plan():
            for lengths in (self._store.source_lengths_N[rows], self._store.target_lengths_N[rows]):
                slots += len(lengths) * int(lengths.max())
                tokens += int(lengths.sum())
        return 1 - tokens / slots

    def _rows_of_epoch(self, generator: np.random.Generator) -> np.ndarray:
        """Each pair `weight` times; the fraction of a weight by chance, anew each epoch."""
        rows = np.arange(len(self._store))
        if not self._weights or set(self._weights) == {1.0}:
            return rows
        weight_N = np.asarray(self._weights)[self._store.corpus_N]
        times_N = np.floor(weight_N + generator.random(len(rows))).astype(np.int64)
        return np.repeat(rows, times_N) if times_N.any() else rows  # a tiny corpus may have bad luck

    def _collate(self, rows: np.ndarray) -> Batch:
        if not (self._subword_dropout and self._vocabulary):
            return collate(self._store.take("source", rows), self._store.take("target", rows))
        seed = int(np.random.default_rng((self._config.seed, self.epoch, self.position)).integers(2**31))
        sides = []
        for side in ("source", "target"):
            lines = self._store.lines(side, rows)
            resampled = self._vocabulary.resample(lines, side, self._subword_dropout, seed)  # type: ignore[arg-type]
            longest = max(map(len, resampled)) if self._longest is None else self._longest
            both = zip(lines, resampled, strict=True)
            sides.append(flatten([new if len(new) <= longest else old.tolist() for old, new in both]))
        return collate(*sides)
