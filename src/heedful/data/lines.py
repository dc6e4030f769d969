"""Lines of ids as arrays, and together with lines of like length; without torch."""

from collections.abc import Iterator, Sequence

import numpy as np

from heedful.text.vocabulary import PAD


def flatten(lines: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids one after another, lengths) of lists of ids."""
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    return np.array([i for line in lines for i in line], dtype=np.int64), lengths


def pad(flat: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Lay ids that follow one another out as rows of `width`, padded with PAD."""
    padded = np.full((len(lengths), width), PAD, dtype=np.int64)
    padded[np.arange(width) < lengths[:, None]] = flat
    return padded


def pairs_by_length(sources: Sequence[list[int]], targets: Sequence[list[int]], batch: int) -> Iterator[list[int]]:
    """Cut pairs into batches by their longer sides."""
    longer = [max(pair, key=len) for pair in zip(sources, targets, strict=True)]
    return by_length(list(range(len(longer))), longer, batch)


def by_length(rows: list[int], sources: list[list[int]], batch: int) -> Iterator[list[int]]:
    """Cut rows, longest first, into batches of `batch` rows, fewer where they are very long."""
    lengths = np.array([len(sources[i]) for i in rows])
    order = [rows[i] for i in np.argsort(-lengths, kind="stable")]
    position = 0
    while position < len(order):
        widest = len(sources[order[position]])
        count = max(1, min(batch, batch * 128 // widest))
        yield order[position : position + count]
        position += count


def shared(rows: list[int], sources: list[list[int]], batch: int, workers: int) -> list[list[int]]:
    """Return rows of similar length together, at least one batch for each worker where there are so many rows."""
    batches = list(by_length(rows, sources, min(batch, -(-len(rows) // workers))))
    if workers == 1 or len(batches) > workers:
        return batches
    order = [row for each in batches for row in each]  # one each: none shall have all of the long ones
    return [order[first::workers] for first in range(min(workers, len(order)))]
