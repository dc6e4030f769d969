"""Read, check, clean and pair parallel text, streaming: no more than a few bytes a pair stay in memory."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa

from heedful.config import setting
from heedful.errors import HeedfulError
from heedful.text.augment import Triple, word_pairs

NO_TEXT = "\0"  # a line of CSV that is not UTF-8
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class DataConfig:
    """Which pairs to learn from, which to judge by, and what to leave out."""

    folder: Path | None = setting(None, "Folder that relative paths below start from")
    source: tuple[Path, ...] = setting((), "Source text, one sentence a line; repeatable", flag="source")
    target: tuple[Path, ...] = setting((), "Target text, line by line beside the source", flag="target")
    pairs: tuple[Path, ...] = setting((), "Pairs in one file: source, tab, target; CSV; or JSONL", flag="pairs")
    weights: tuple[float, ...] = setting((), "How often an epoch shows each corpus: files, then pairs; 0.1 = a tenth")
    tags: tuple[str, ...] = setting((), 'Tag in front of each corpus\'s source lines, such as "<bt>"; "" for none')
    altered: float = setting(
        0.0,
        "Share of the pairs that get an altered copy: no full stop, lower case, a typo, another name, a paragraph",
        least=0,
        most=1,
    )
    words: bool = setting(False, "Also learn single words: those that mostly stand together in the pairs")
    languages: tuple[str, ...] = setting((), "Code of the source language, and again of the target's, as en, de")
    capitals: bool = setting(
        False, "Translate a line in capitals as one in lower case, and write the output in capitals; not for symbols"
    )
    attribution: str = setting("", "Whose text this is and under which licence; goes into the model folder")
    development_source: Path | None = setting(None, "Development source text", flag="dev-source")
    development_target: Path | None = setting(None, "Development target text", flag="dev-target")
    development_pairs: Path | None = setting(None, "Development pairs, TSV, CSV or JSONL", flag="dev-pairs")
    held_out: int = setting(1000, "Pairs held out for development where none are given (at most a tenth)", least=0)
    undecodable: Literal["refuse", "drop"] = setting("refuse", "What to do with a line that is not UTF-8")
    drop_duplicates: bool = setting(True, "Keep only the first of equal pairs")
    drop_identical: bool = setting(True, "Leave out pairs whose source equals their target")
    max_length: int = setting(250, "Longest side of a pair, in tokens", least=1)
    max_ratio: float = setting(9.0, "Largest ratio of the two sides' lengths, in tokens", least=1)
    seed: int = setting(1, "Seed for choosing the held-out pairs and for altering copies", least=0)


class Corpus(NamedTuple):
    """One parallel corpus: two aligned files, or one file of pairs (`target` is None)."""

    source: Path
    target: Path | None
    weight: float = 1.0


class Pair(NamedTuple):
    """A source and a target; None marks a side that is not UTF-8."""

    source: str | None
    target: str | None


@dataclass
class Report:
    """What was found in the corpora: counts of pairs, copies and words added, and why some were left out."""

    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    held_out: int = 0
    shared_with_held_out: int = 0
    leaked: int = 0
    development: int = 0
    lengths: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    unknown: int = 0
    added: int = 0

    @property
    def kept(self) -> int:
        """The number of pairs left to train on."""
        return self.read + self.added - sum(self.dropped.values()) - self.held_out - self.shared_with_held_out

    def drop(self, reason: str, count: int = 1) -> None:
        """Count pairs as left out for `reason`."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count


@dataclass
class Examined:
    """The verdict on each pair of a corpus list, in reading order: one byte a pair."""

    corpora: list[Corpus]
    undecodable: Literal["refuse", "drop"]
    use: np.ndarray  # uint8: 0 left out, 1 training, 2 held out for development
    report: Report
    given: list[tuple[str, str]]  # the development pairs that have files of their own
    tags: Sequence[str]  # one for each corpus, or none at all

    def training(self) -> Iterator[Triple]:
        """Yield (corpus number, source, target) of each training pair."""
        return self._chosen(1)

    @cached_property
    def words(self) -> list[Triple]:
        """Words of the training pairs with their translations: found when first asked for, in more readings.

        They are found apart for each tag, which may stand for a direction, and belong to the first corpus that has it.
        A source word is there as it is written inside sentences and with a capital, as people may begin with one.
        """
        tags = self.tags or ("",) * len(self.corpora)
        found = list[Triple]()
        for tag in dict.fromkeys(tags):
            for source, target in word_pairs(triple for triple in self.training() if tags[triple[0]] == tag):
                found += [(tags.index(tag), form, target) for form in (source, source.capitalize())]
        return found

    def held_out(self) -> Iterator[Triple]:
        """Yield (corpus number, source, target) of each pair held out for development."""
        return self._chosen(2)

    def _chosen(self, use: int) -> Iterator[Triple]:
        position = 0
        for number, corpus in enumerate(self.corpora):
            for pair in read_pairs(corpus, self.undecodable):
                if self.use[position] == use:
                    yield number, cast(str, pair.source), cast(str, pair.target)
                position += 1


def corpora(config: DataConfig) -> list[Corpus]:
    """Return the training corpora that `config` names.

    Raises:
        HeedfulError: no corpus; sources without targets; a file missing, a corpus given twice, or one whose sides are
            one file; weights that do not fit.
    """
    if len(config.source) != len(config.target):
        raise HeedfulError(
            f"{len(config.source)} source and {len(config.target)} target files given; each source needs its target"
        )
    found = [
        (_resolve(source, config), _resolve(target, config))
        for source, target in zip(config.source, config.target, strict=True)
    ]
    alone = [(_resolve(pairs, config), None) for pairs in config.pairs]
    files: list[tuple[Path, Path | None]] = [*found, *alone]
    if not files:
        raise HeedfulError("no training text; give --source FILE and --target FILE, or --pairs FILE")
    weights = config.weights or (1.0,) * len(files)
    if len(weights) != len(files) or min(weights) <= 0:
        raise HeedfulError(f"{len(weights)} weights for {len(files)} corpora; give one positive weight for each")
    if config.tags and len(config.tags) != len(files):
        raise HeedfulError(f'{len(config.tags)} tags for {len(files)} corpora; give one for each, "" for none')
    seen = set[tuple[Path, Path | None]]()
    for source, target in files:
        entry = source.resolve(), target.resolve() if target else None
        if entry[0] == entry[1]:
            raise HeedfulError(f"{source}: given twice, as a source and as its target; a pair has two sides")
        if entry in seen:
            raise HeedfulError(f"{source}: given twice; to see a corpus more often, give it a weight (--data.weights)")
        seen.add(entry)
    return [Corpus(source, target, weight) for (source, target), weight in zip(files, weights, strict=True)]


def check_languages(codes: Sequence[str]) -> None:
    """Refuse what does not name a source and a target language.

    Raises:
        HeedfulError: not two, or a name where a code is wanted: how text is cut into sentences depends on it.
    """
    if len(codes) != 2:
        raise HeedfulError(f"{len(codes)} languages; give the source's and the target's, such as en and de")
    for code in codes:
        if not re.fullmatch("[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", code):
            raise HeedfulError(f"language '{code}': give its code of two or three letters (ISO 639), such as en and de")


def development(config: DataConfig) -> list[tuple[str, str]]:
    """Return the development pairs that `config` names, or none.

    Raises:
        HeedfulError: half a pair of files given, a file missing or broken, or a file that is also training text.
    """
    given = (config.development_source, config.development_target)
    if any(given) and not all(given):
        raise HeedfulError("development text needs both --dev-source and --dev-target")
    chosen = config.development_pairs or config.development_source
    if chosen is None:
        return []
    target = None if config.development_pairs else cast(Path, config.development_target)
    corpus = Corpus(_resolve(chosen, config), _resolve(target, config) if target else None)
    seen = {file.resolve() for entry in corpora(config) for file in entry[:2] if file}
    for file in filter(None, corpus[:2]):
        if file.resolve() in seen:
            raise HeedfulError(f"{file}: given twice; development text may stand in one place only")
        seen.add(file.resolve())
    kept = list(read_whole_pairs(corpus, config.undecodable))
    if not kept:
        raise HeedfulError(f"{corpus.source}: no development pair in it; give a file with text on both sides")
    return kept


def read_pairs(corpus: Corpus, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[Pair]:
    """Yield the pairs of a corpus in order, whitespace at the ends of each side removed.

    Raises:
        HeedfulError: unequal line counts (with both), a malformed row, or, where refused, a line that is not UTF-8;
            each with file, line and remedy.
    """
    if corpus.target is None:
        yield from _pairs_of_one_file(corpus.source, undecodable)
        return
    sources, targets = read_lines(corpus.source, undecodable), read_lines(corpus.target, undecodable)
    lines = 0
    for source in sources:
        lines += 1
        target = next(targets, _END)
        if target is _END:
            count = lines + sum(1 for _ in sources)
            raise _unequal(corpus, count, lines - 1)
        yield Pair(source, target)
    if next(targets, _END) is not _END:
        raise _unequal(corpus, lines, lines + 1 + sum(1 for _ in targets))


def read_whole_pairs(corpus: Corpus, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[tuple[str, str]]:
    """Yield the pairs of a corpus that have text on both sides; raises what `read_pairs` raises."""
    return ((pair.source, pair.target) for pair in read_pairs(corpus, undecodable) if pair.source and pair.target)


def read_lines(path: Path, undecodable: Literal["refuse", "drop"] = "refuse") -> Iterator[str | None]:
    r"""Yield the lines of a text file, plain, gzip or zstd, without whitespace at their ends; only \n ends a line.

    Raises:
        HeedfulError: the file cannot be read, or has a line that is not UTF-8 and `undecodable` is "refuse".
    """
    for line in _raw_lines(path, undecodable):
        yield None if line is None else line.strip()


def _raw_lines(path: Path, undecodable: Literal["refuse", "drop"]) -> Iterator[str | None]:
    number = 0
    try:
        with open_bytes(path) as file:
            for line in decoded_lines(file, str(path), undecodable):
                number += 1
                yield line
    except (OSError, pa.ArrowException) as error:
        raise HeedfulError(f"{path}: cannot be read after line {number}: {error}") from None


def decoded_lines(
    file: Iterable[bytes], name: str, undecodable: Literal["refuse", "drop"] = "refuse"
) -> Iterator[str | None]:
    r"""Yield the lines of a stream of bytes, their ends as they are, without a byte order mark; only \n ends a line.

    Raises:
        HeedfulError: a line is not UTF-8 and `undecodable` is "refuse"; else it is None.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8")
            yield text.removeprefix("\ufeff") if number == 1 else text
        except UnicodeDecodeError as error:
            if undecodable == "refuse":
                raise HeedfulError(
                    f"{name}:{number}: not UTF-8 (byte {error.start + 1} of the line); {how_to_convert(line)}, "
                    f"or for training set --data.undecodable drop"
                ) from None
            yield None


def how_to_convert(content: bytes) -> str:
    """Return what to do with a text that is not UTF-8, by how it begins."""
    for start, suffix in {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}.items():
        if content.startswith(start):
            return f"it is compressed: let its name end in {suffix}"
    if content.startswith(b"PK\x03\x04"):
        return "unpack it, or save a spreadsheet as CSV UTF-8"
    if content.startswith((b"\xfd7zXZ", b"BZh")):
        return "it is compressed: unpack it"
    code = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    return f"convert the text, for example `iconv -f {code} -t utf-8`"


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressing by its suffix (.gz, .zst).

    Raises:
        HeedfulError: there is no such file.
    """
    if not path.exists() or path.is_dir():
        raise HeedfulError(f"{path}: {'a folder, not a' if path.is_dir() else 'no such'} file; check the path")
    if path.suffix not in COMPRESSION:
        return path.open("rb", buffering=1 << 20)
    return cast(IO[bytes], io.BufferedReader(pa.input_stream(str(path), compression=COMPRESSION[path.suffix]), 1 << 20))


def examine(training: list[Corpus], dev: list[tuple[str, str]], config: DataConfig) -> Examined:
    """Read the corpora once and decide for each pair whether to train on it, hold it out or leave it out.

    Where no development pairs are given, up to `config.held_out` pairs are held out; every other pair that shares
    a sentence with one of them, on whichever side it stands, is left out of training, so that the two are disjoint.

    Raises:
        HeedfulError: whatever `read_pairs` raises, or no pair is left.
    """
    report = Report(development=len(dev))
    use, keys = _first_reading(training, config, report)
    if not dev and config.held_out:
        _hold_out(use, keys, config, report)
    else:
        dev_keys = np.frombuffer(b"".join(_digest(text) for pair in dev for text in pair), dtype=np.uint64)
        shared = np.isin(keys, dev_keys).any(axis=1)
        report.leaked = int((shared & (use == 1)).sum())
    if not (use == 1).any():
        names = ", ".join(str(corpus.source) for corpus in training)
        lost = {**report.dropped, "sharing a sentence with a held-out pair": report.shared_with_held_out}
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.items() if count)
        remedy = (
            "set --data.held-out 0, or give development files" if report.shared_with_held_out else "check the files"
        )
        raise HeedfulError(f"{names}: no pair left to train on, of {report.read:,} read ({reasons}); {remedy}")
    return Examined(training, config.undecodable, use, report, dev, config.tags)


def _first_reading(training: list[Corpus], config: DataConfig, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Return (use, keys): a verdict and the 64-bit hashes of both sides, for each pair."""
    use, keys = bytearray(), bytearray()
    for corpus in training:
        before = len(use)
        for source, target in read_pairs(corpus, config.undecodable):
            reason = _reason_to_drop(source, target, config)
            if reason:
                report.drop(reason)
            use.append(not reason)
            keys += _digest(source or "") + _digest(target or "")
        if len(use) == before:
            raise HeedfulError(f"{corpus.source}: the file is empty; give a file with at least one pair")
    report.read = len(use)
    use_N = np.frombuffer(use, dtype=np.uint8)
    keys_N2 = np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, 2)
    if config.drop_duplicates:
        both = keys_N2[:, 0] * np.uint64(0x9E3779B97F4A7C15) + keys_N2[:, 1]  # order matters: (a, b) is not (b, a)
        first = np.zeros(len(use_N), dtype=bool)
        first[np.unique(both, return_index=True)[1]] = True
        report.drop("duplicate", int((~first & (use_N == 1)).sum()))
        use_N = use_N * first
    return use_N.astype(np.uint8), keys_N2


def _reason_to_drop(source: str | None, target: str | None, config: DataConfig) -> str:
    if source is None or target is None:
        return "undecodable"
    if not source or not target:
        return "empty"
    return "identical" if config.drop_identical and source == target else ""


def _hold_out(use: np.ndarray, keys: np.ndarray, config: DataConfig, report: Report) -> None:
    """Mark pairs as held out (2), and drop every other training pair that shares a sentence with one of them."""
    candidates = np.flatnonzero(use == 1)
    count = min(config.held_out, len(candidates) // 10)
    if not count:
        return
    chosen = np.random.default_rng(config.seed).choice(candidates, count, replace=False)
    # on whichever side: a corpus may stand there in both directions
    shared = np.asarray(np.isin(keys, keys[chosen]).any(axis=1))
    shared[chosen] = False
    report.held_out = report.development = count
    report.shared_with_held_out = int((shared & (use == 1)).sum())
    use[shared] = 0
    use[chosen] = 2


def _pairs_of_one_file(path: Path, undecodable: Literal["refuse", "drop"]) -> Iterator[Pair]:
    if ".csv" in path.suffixes:
        yield from _csv_pairs(path, (NO_TEXT if line is None else line for line in _raw_lines(path, undecodable)))
        return
    is_json = ".jsonl" in path.suffixes
    for number, line in enumerate(_raw_lines(path, undecodable), start=1):
        if line is None:
            yield Pair(None, None)
        elif not line.strip():
            yield Pair("", "")
        elif is_json:
            yield _json_pair(line, f"{path}:{number}")
        else:
            columns = line.split("\t")
            if len(columns) < 2:
                raise HeedfulError(f"{path}:{number}: no tab in this row; a row is source, tab, target")
            yield Pair(columns[0].strip(), columns[1].strip())


def _json_pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
        source, target = row["source"], row["target"]
        json.dumps([source, target], ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, KeyError, TypeError):
        raise HeedfulError(f'{where}: expected an object such as {{"source": "…", "target": "…"}}') from None
    if not (isinstance(source, str) and isinstance(target, str)):
        raise HeedfulError(f"{where}: source and target must both be texts")
    return Pair(_one_line(source), _one_line(target))


def _csv_pairs(path: Path, lines: Iterator[str]) -> Iterator[Pair]:
    """Yield the first two columns as spreadsheets write them, quoted where need be; between them , or ; or a tab."""
    head, number = list(islice(lines, 20)), 0
    try:
        rows = csv.reader(chain(head, lines), delimiter=_delimiter(head), strict=True)
        for row in rows:
            number = rows.line_num
            if any(NO_TEXT in field for field in row):
                yield Pair(None, None)
            elif len(row) == 1 and row[0].strip():
                raise HeedfulError(f"{path}:{number}: one column in this row; a row is source, comma, target")
            else:
                yield Pair(*map(_one_line, row[:2])) if len(row) > 1 else Pair("", "")
    except csv.Error as error:
        raise HeedfulError(f"{path}:{number + 1}: no comma-separated values ({error}); see its quotes") from None


def _delimiter(head: list[str]) -> str:
    """Return what stands between the columns; the last row of a head may go on after it, and has no say."""
    for mark in ("\t", ";"):
        with suppress(csv.Error):  # which the whole reading names by its row
            rows = list(csv.reader(head, delimiter=mark))
            if all(len(row) > 1 for row in rows[:-1] or rows if row):
                return mark
    return ","


def _one_line(text: str) -> str:
    """A row is one line of text on either side: line breaks inside it become spaces."""
    return " ".join(text.split("\n")).strip()


def _resolve(path: Path, config: DataConfig) -> Path:
    full = path if config.folder is None else config.folder / path
    if not full.is_file():
        remedy = "check the path" if config.folder else "check the path, or give the folder with --data.folder"
        raise HeedfulError(f"{full}: no such file; {remedy}")
    return full


def _unequal(corpus: Corpus, sources: int, targets: int) -> HeedfulError:
    return HeedfulError(
        f"{corpus.source} has {sources:,} lines and {corpus.target} has {targets:,}; "
        f"line n of one must belong to line n of the other: mend the files"
    )


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


_END = cast(str | None, object())
