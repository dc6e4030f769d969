"""Which pairs of parallel text to learn from: no more than a few bytes a pair stay in memory."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import starmap
from pathlib import Path
from typing import Literal, cast

import numpy as np

from heedful.config import setting
from heedful.errors import HeedfulError
from heedful.text.capitals import TAG
from heedful.text.pairs import Corpus, Triple, read_pairs, read_whole_pairs
from heedful.text.single_words import word_pairs

LEFT_OUT, TRAINING, HELD_OUT = 0, 1, 2  # verdicts on a pair
WORD_TIMES = 4  # shown once an epoch, only 42 to 75 % of the words were remembered (docs/LOG.md, 2026-11-29)


@dataclass(frozen=True)
class DataConfig:
    """Which pairs to learn from, which to judge by, and what to leave out."""

    folder: Path | None = setting(None, "Folder that relative paths below start from")
    source: tuple[Path, ...] = setting((), "Source text, one sentence a line; repeatable", flag="source")
    target: tuple[Path, ...] = setting((), "Target text, line by line beside the source", flag="target")
    pairs: tuple[Path, ...] = setting(
        (), 'Pairs in one file: source, tab, target; .csv; or .jsonl of "source" and "target"', flag="pairs"
    )
    weights: tuple[float, ...] = setting(
        (), "How often an epoch shows each corpus, first of source, then of pairs; 0.1 = a tenth"
    )
    tags: tuple[str, ...] = setting((), 'Tag in front of each corpus\'s source lines, such as "<bt>"; "" for none')
    altered: float = setting(
        0.0,
        "Share of the pairs that get an altered copy: no full stop, lower case, a typo, another name, a paragraph",
        least=0,
        most=1,
    )
    words: bool = setting(
        False, "Also learn single words, often: those that mostly stand together in the pairs, open lines, or are lines"
    )
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


Looks = dict[Path, tuple[int, int]]  # a file's size, and when it was changed last, in nanoseconds


@dataclass
class Examined:
    """The verdict on each pair of a corpus list, in reading order: one byte a pair."""

    config: DataConfig
    corpora: list[Corpus]
    use: np.ndarray  # uint8: LEFT_OUT, TRAINING or HELD_OUT
    report: Report
    given: list[tuple[str, str]]  # the development pairs that have files of their own
    files: Looks  # as they were when the verdicts were found

    def training(self) -> Iterator[Triple]:
        """Yield (corpus number, source, target) of each training pair."""
        return self._chosen(TRAINING)

    @cached_property
    def words(self) -> list[Triple]:
        """Words of the training pairs with their translations: found when first asked for, in more readings.

        They are found apart for each tag, which may stand for a direction, and belong to the first corpus that has it.
        A source word is there as it is written inside sentences, in lower case and with a capital, as people type it,
        each of these `WORD_TIMES` times: what an epoch shows once, beside sentences, is not remembered.
        """
        tags = self.config.tags or ("",) * len(self.corpora)
        found = list[Triple]()
        for tag in dict.fromkeys(tags):
            for source, target in word_pairs(triple for triple in self.training() if tags[triple[0]] == tag):
                forms = dict.fromkeys((source, source.lower(), source.capitalize()))
                found += [(tags.index(tag), form, target) for form in forms for _ in range(WORD_TIMES)]
        return found

    def held_out(self) -> Iterator[Triple]:
        """Yield (corpus number, source, target) of each pair held out for development."""
        return self._chosen(HELD_OUT)

    def _chosen(self, use: int) -> Iterator[Triple]:
        """Yield the pairs of one verdict, in another reading of the files.

        Raises:
            HeedfulError: they are not what they were, so that verdicts would fall on other pairs.
        """
        pairs = (
            (number, pair)
            for number, corpus in enumerate(self.corpora)
            for pair in read_pairs(corpus, self.config.undecodable)
        )
        for verdict, (number, pair) in zip(self.use, pairs, strict=False):
            if verdict == use:
                if pair.source is None or pair.target is None:
                    break  # it was text when it was looked at first
                yield number, pair.source, pair.target
        if changed := [path for path, look in _looks(self.corpora).items() if look != self.files[path]]:
            raise HeedfulError(f"{changed[0]}: changed while it was read; train anew when it is whole")


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
    if len(weights) != len(files) or not all(0 < weight < float("inf") for weight in weights):
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
    return list(starmap(Corpus, files))


def check_tags(tags: Sequence[str]) -> None:
    """Refuse tags that stand in words, out of which they would be cut, or that are not told from text in capitals.

    Raises:
        HeedfulError: with the form that a tag has.
    """
    for tag in filter(None, tags):
        if not TAG.fullmatch(f"{tag} "):
            raise HeedfulError(f"tag {tag!r}: give it angle brackets and no blank, such as '<bt>'")


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
    if any(given) and config.development_pairs:
        raise HeedfulError("development text is given twice: leave --dev-pairs out, or --dev-source and --dev-target")
    chosen = config.development_pairs or config.development_source
    if chosen is None:
        return []
    target = None if config.development_pairs else cast(Path, config.development_target)
    corpus = Corpus(_resolve(chosen, config), _resolve(target, config) if target else None)
    seen = {file.resolve() for entry in corpora(config) for file in entry if file}
    for file in filter(None, corpus):
        if file.resolve() in seen:
            raise HeedfulError(f"{file}: given twice; development text may stand in one place only")
        seen.add(file.resolve())
    kept = list(read_whole_pairs(corpus, config.undecodable))
    if not kept:
        raise HeedfulError(f"{corpus.source}: no development pair in it; give a file with text on both sides")
    return kept


def examine(training: list[Corpus], dev: list[tuple[str, str]], config: DataConfig) -> Examined:
    """Read the corpora once and decide for each pair whether to train on it, hold it out or leave it out.

    Where no development pairs are given, up to `config.held_out` pairs are held out; every other pair that shares
    a sentence with one of them, on whichever side it stands, is left out of training, so that the two are disjoint.

    Raises:
        HeedfulError: whatever `read_pairs` raises, or no pair is left.
    """
    report, files = Report(development=len(dev)), _looks(training)
    use, keys = _first_reading(training, config, report)
    if not dev and config.held_out:
        _hold_out(use, keys, config, report)
    else:
        texts = [text for source, target in dev for text in (source, _untagged(source, config.tags), target)]
        dev_keys = np.frombuffer(b"".join(map(_digest, texts)), dtype=np.uint64)
        shared = np.isin(keys, dev_keys).any(axis=1)
        report.leaked = int((shared & (use == TRAINING)).sum())
    if not (use == TRAINING).any():
        names = ", ".join(str(corpus.source) for corpus in training)
        lost = {**report.dropped, "sharing a sentence with a held-out pair": report.shared_with_held_out}
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.items() if count)
        remedy = (
            "set --data.held-out 0, or give development files" if report.shared_with_held_out else "check the files"
        )
        raise HeedfulError(f"{names}: no pair left to train on, of {report.read:,} read ({reasons}); {remedy}")
    return Examined(config, training, use, report, dev, files)


def _looks(training: Sequence[Corpus]) -> Looks:
    """Return the size and the time of the last change of each file."""
    files = dict.fromkeys(path for corpus in training for path in corpus if path)
    return {path: (status.st_size, status.st_mtime_ns) for path in files for status in [path.stat()]}


def _first_reading(training: list[Corpus], config: DataConfig, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Return (use, keys): a verdict and the 64-bit hashes of both sides, for each pair."""
    use, keys = bytearray(), bytearray()
    for corpus in training:
        before = len(use)
        for source, target in read_pairs(corpus, config.undecodable):
            reason = _reason_to_drop(source, target, config)
            if reason:
                report.drop(reason)
            use.append(LEFT_OUT if reason else TRAINING)
            keys += _digest(source or "") + _digest(target or "")
        if len(use) == before:
            raise HeedfulError(f"{corpus.source}: the file is empty; give a file with at least one pair")
    report.read = len(use)
    use_N = np.frombuffer(use, dtype=np.uint8)
    keys_N2 = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
    if config.drop_duplicates:
        both = keys_N2[:, 0] * np.uint64(0x9E3779B97F4A7C15) + keys_N2[:, 1]  # order matters: (a, b) is not (b, a)
        first = np.zeros(len(use_N), dtype=bool)
        first[np.unique(both, return_index=True)[1]] = True
        report.drop("duplicate", int((~first & (use_N == TRAINING)).sum()))
        use_N = np.where(first, use_N, LEFT_OUT)
    return use_N.astype(np.uint8), keys_N2


def _reason_to_drop(source: str | None, target: str | None, config: DataConfig) -> str:
    if source is None or target is None:
        return "undecodable"
    if not source or not target:
        return "empty"
    return "identical" if config.drop_identical and source == target else ""


def _hold_out(use: np.ndarray, keys: np.ndarray, config: DataConfig, report: Report) -> None:
    """Mark pairs as held out, and drop every other training pair that shares a sentence with one of them."""
    candidates = np.flatnonzero(use == TRAINING)
    count = min(config.held_out, len(candidates) // 10)
    if not count:
        return
    chosen = np.random.default_rng(config.seed).choice(candidates, count, replace=False)
    # on whichever side: a corpus may stand there in both directions
    shared = np.asarray(np.isin(keys, keys[chosen]).any(axis=1))
    shared[chosen] = False
    report.held_out = report.development = count
    report.shared_with_held_out = int((shared & (use == TRAINING)).sum())
    use[shared] = LEFT_OUT
    use[chosen] = HELD_OUT


def _untagged(source: str, tags: Sequence[str]) -> str:
    """Return a line of development text without the tag that its corpus would have: training text is seen without."""
    return next((source[len(tag) + 1 :] for tag in tags if tag and source.startswith(f"{tag} ")), source)


def _resolve(path: Path, config: DataConfig) -> Path:
    full = path if config.folder is None else config.folder / path
    if full.is_dir():
        raise HeedfulError(f"{full}: a folder; name the file in it")
    if full.exists() and not full.is_file():
        raise HeedfulError(
            f"{full}: a pipe, but a text is read several times; write it to a file (.gz and .zst are read)"
        )
    if not full.is_file():
        raise HeedfulError(f"{full}: no such file; check the path, or give the folder of the texts with --data.folder")
    return full


def _digest(text: str) -> bytes:
    text = " ".join(filter(None, text.split(" ")))  # tokens do not tell one blank from several
    return blake2b(text.encode(), digest_size=8).digest()
