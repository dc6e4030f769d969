"""The text of a recipe, made ready for training: examined, its vocabulary learned, encoded, and what to judge by."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from heedful import files
from heedful.config import to_table
from heedful.data.tokens import EncodingCounts, TokenStore, content_key, encode_corpus
from heedful.decoding import lexicon
from heedful.decoding.lexicon import Lexicon
from heedful.errors import HeedfulError
from heedful.recipe import Recipe
from heedful.text import augment, corpus
from heedful.text.corpus import DataConfig, Examined, Report
from heedful.text.pairs import Triple
from heedful.text.vocabulary import Vocabulary, learn
from heedful.training.processes import local_rank, rank, wait_for_all

DAYS_KEPT = 60  # of a corpus, encoded, that no training has read
KEY = "[0-9a-f]" * 32  # what such a corpus is called, as a pattern: the folder may have files of others
# What the stored tokens do not depend on, beside the content of the files: a new setting makes them again unless it is
# named here. How many pairs are held out is known once the files have been read.
WITHOUT_EFFECT = (
    *("folder", "source", "target", "pairs", "weights", "languages", "capitals", "attribution"),
    *("development_source", "development_target", "development_pairs", "held_out"),
)
TOKENS_VERSION = 3  # of the way that they are made
COPIES_VERSION = 6  # of the way that altered copies are made
WORDS_VERSION = 3  # of the way that single words are found
LEXICON_PAIRS = 20_000  # enough for the words that are seen often; a second or two


def check_cache() -> None:
    """Refuse to begin, before hours of reading, where nothing can be written to keep what is encoded.

    Raises:
        HeedfulError: with the folder, and how to name another.
    """
    if any(_cache().glob(f"{KEY}.arrow")):
        return  # it may have what is wanted, and need no writing
    with _needing_room(_cache()):
        _cache().mkdir(parents=True, exist_ok=True)
        files.check_writable(_cache())


def _cache() -> Path:
    return files.cache_folder() / "tokens"


@contextmanager
def _needing_room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HeedfulError(f"{folder}: {error.strerror or error}; set HEEDFUL_CACHE to a folder with room") from None


def examine(data: DataConfig) -> Examined:
    """Return the verdict on each training pair, and the development pairs that are given.

    Raises:
        HeedfulError: something in the files or the settings that the user can mend.
    """
    return corpus.examine(corpus.corpora(data), corpus.development(data), data)


def learn_vocabulary(recipe: Recipe, examined: Examined) -> Vocabulary:
    """Learn the vocabulary from all that will be trained on."""
    sources = (source for _, source, _ in _training_pairs(examined))
    targets = (target for _, _, target in _training_pairs(examined))
    tags = sorted({tag for tag in recipe.data.tags if tag})
    return learn(sources, targets, recipe.vocabulary, tags=tags)


def encode(examined: Examined, vocabulary: Vocabulary) -> TokenStore:
    """Return the training pairs as ids, from the cache where they are there, and complete the report.

    Raises:
        HeedfulError: no pair is short enough.
    """
    data = examined.config
    inputs = [file for corpus in examined.corpora for file in corpus if file]
    alone = [number for number, corpus in enumerate(examined.corpora) if corpus.target is None]
    settings = {
        "version": TOKENS_VERSION,
        **({"copies": COPIES_VERSION} if data.altered or data.words else {}),
        **({"words": WORDS_VERSION} if data.words else {}),
        **({"alone": alone} if alone else {}),  # two files of pairs are not a source and its target
        "kinds": [[suffix.lower() for suffix in path.suffixes] for path in inputs],
        "held_out": examined.report.held_out,
        **{name: value for name, value in to_table(data).items() if name not in WITHOUT_EFFECT},
    }
    path = _cache() / f"{content_key(inputs, json.dumps(settings), vocabulary)}.arrow"
    notes = path.with_suffix(".json")
    if rank() == 0:
        files.mark_used(path, notes)
        for ours in (f"{KEY}.arrow", f"{KEY}.json", f".{KEY}.*.tmp"):
            files.remove_unused(path.parent, DAYS_KEPT, ours)
    for here in (rank() == 0, local_rank() == 0):  # and then where another machine has its own cache
        if here and not (path.is_file() and notes.is_file()):
            with _needing_room(path.parent):  # the texts were read once already: it is the cache that is meant
                made = encode_corpus(_training_pairs(examined), vocabulary, path, data.max_length, data.max_ratio)
                files.write_text(notes, json.dumps(made._asdict()))
        wait_for_all()
    try:
        store, encoded = TokenStore(path), EncodingCounts(**json.loads(notes.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:  # pyarrow's are of the first two
        raise HeedfulError(
            f"{path}: damaged ({error}); remove it and {notes.name} beside it, and they are made anew"
        ) from None
    _complete(examined.report, encoded, store)
    if not len(store):
        report = examined.report
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items() if count)
        limit = "max_ratio" if encoded.ratio > encoded.too_long else "max_length"
        raise HeedfulError(f"no pair left of {report.read:,} read: {reasons}; raise data.{limit}")
    return store


def development_pairs(examined: Examined) -> list[tuple[str, str]]:
    """Return what to judge by: the pairs given, read as they are, or those held out.

    Those have their corpus's tag in front, as it stands in training.
    """
    if examined.given:
        return examined.given
    tagged = augment.augmented(examined.held_out(), tags=examined.config.tags)
    return [(source, target) for _, source, target in tagged]


def learn_lexicon(store: TokenStore, seed: int) -> Lexicon:
    """Return a lexicon of some of the training pairs."""
    chosen = np.random.default_rng(seed).choice(len(store), min(len(store), LEXICON_PAIRS), replace=False)
    chosen.sort()
    return lexicon.learn(zip(store.lines("source", chosen), store.lines("target", chosen), strict=True))


def _training_pairs(examined: Examined) -> Iterator[Triple]:
    data = examined.config
    yield from augment.augmented(examined.training(), tags=data.tags, altered=data.altered, seed=data.seed)
    if data.words:
        yield from augment.augmented(examined.words, tags=data.tags)


def _complete(report: Report, encoded: EncodingCounts, store: TokenStore) -> None:
    """Count what encoding found."""
    report.added = encoded.kept + encoded.too_long + encoded.ratio - report.kept
    report.drop("too long", encoded.too_long)
    report.drop("ratio", encoded.ratio)
    report.unknown = encoded.unknown
    if len(store):
        for side, lengths in (("source", store.source_lengths_N), ("target", store.target_lengths_N)):
            report.lengths[side] = [float(lengths.mean()), float(np.median(lengths)), float(lengths.max())]
