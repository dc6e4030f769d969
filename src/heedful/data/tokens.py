"""The corpus as ids: an Arrow file, memory-mapped, so that memory grows by some bytes a pair only."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from heedful.files import replacing
from heedful.text.vocabulary import UNKNOWN, Vocabulary
from heedful.threads import cores

CHUNK = 20_000  # pairs encoded, written and mapped at a time,
CHARACTERS = 16_000_000  # or fewer, where lines are whole documents: as numbers they take several times their room
SCHEMA = pa.schema([("source", pa.list_(pa.uint16())), ("target", pa.list_(pa.uint16())), ("corpus", pa.uint16())])
WIDE_SCHEMA = pa.schema([("source", pa.list_(pa.int32())), ("target", pa.list_(pa.int32())), ("corpus", pa.uint16())])


class EncodingCounts(NamedTuple):
    """What encoding a corpus found: pairs kept, pairs dropped by reason, unknown tokens."""

    kept: int
    too_long: int
    ratio: int
    unknown: int


class TokenStore:
    """Encoded pairs on disk, named by their content. Of a pair memory holds 10 bytes: lengths and corpus."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._starts = np.cumsum([0, *map(len, self._table.column("corpus").chunks)])  # where each chunk begins
        self.source_lengths_N = self._lengths("source")
        self.target_lengths_N = self._lengths("target")
        self.corpus_N = self._table.column("corpus").to_numpy()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def take(self, side: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (ids one after another, lengths) of the given rows of "source" or "target"."""
        # row by row: a `take` of the whole column copies all of its chunks, the corpus, for every batch
        column, chunks = self._table.column(side), np.searchsorted(self._starts, rows, side="right") - 1
        places = zip(chunks.tolist(), (rows - self._starts[chunks]).tolist(), strict=True)
        slices = [column.chunk(chunk).slice(row, 1) for chunk, row in places]
        taken = pa.concat_arrays(slices) if slices else pa.array([], column.type)
        return taken.flatten().to_numpy(zero_copy_only=False).astype(np.int64), np.diff(taken.offsets.to_numpy())

    def lines(self, side: str, rows: np.ndarray) -> list[np.ndarray]:
        """Return the ids of each of the given rows of "source" or "target"."""
        flat, lengths = self.take(side, rows)
        return np.split(flat, np.cumsum(lengths)[:-1])

    def _lengths(self, side: str) -> np.ndarray:
        chunks = [np.diff(chunk.offsets.to_numpy()) for chunk in self._table.column(side).chunks]
        return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int32)


def content_key(files: Iterable[Path], settings: str, vocabulary: Vocabulary) -> str:
    """Return a name for the store of these files under this vocabulary, from their content alone."""
    digest = sha256()
    for content in (settings.encode(), *vocabulary.files().values()):
        digest.update(len(content).to_bytes(8, "big") + content)
    for file in files:
        digest.update(file.stat().st_size.to_bytes(8, "big"))  # tells where one file ends and the next begins
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def encode_corpus(
    pairs: Iterable[tuple[int, str, str]],
    vocabulary: Vocabulary,
    path: Path,
    max_length: int,
    max_ratio: float,
) -> EncodingCounts:
    """Encode (corpus number, source, target) triples on all cores and write the store to `path`, atomically."""
    counts = np.zeros(4, dtype=np.int64)
    schema = SCHEMA if max(vocabulary.sizes) <= 1 << 16 else WIDE_SCHEMA
    threads = cores()
    with (
        replacing(path) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, schema) as writer,
    ):
        for chunk in _chunks(pairs):
            corpus, source_lines, target_lines = zip(*chunk, strict=True)
            source = vocabulary.encode_source(source_lines, threads)
            target = vocabulary.encode_target(target_lines, threads)
            verdicts = [_verdict(len(s), len(t), max_length, max_ratio) for s, t in zip(source, target, strict=True)]
            keep = [row for row, verdict in enumerate(verdicts) if verdict == 0]
            counts[:3] += np.bincount(verdicts, minlength=3)
            counts[3] += sum(line.count(UNKNOWN) for side in (source, target) for line in side)
            columns = [
                [source[row] for row in keep],
                [target[row] for row in keep],
                [corpus[row] for row in keep],
            ]
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return EncodingCounts(*(int(count) for count in counts))


def _verdict(source: int, target: int, max_length: int, max_ratio: float) -> int:
    """Return 0 to keep a pair of these lengths, 1 if it is too long, 2 if its ratio is too large."""
    longer, shorter = max(source, target) - 1, min(source, target) - 1  # END is not counted
    if longer > max_length:
        return 1
    return 2 if longer > max_ratio * max(shorter, 1) else 0


def _chunks(pairs: Iterable[tuple[int, str, str]]) -> Iterator[list[tuple[int, str, str]]]:
    chunk: list[tuple[int, str, str]] = []
    characters = 0
    for pair in pairs:
        chunk.append(pair)
        characters += len(pair[1]) + len(pair[2])
        if len(chunk) == CHUNK or characters > CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
