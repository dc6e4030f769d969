"""Subwords (section 5.1) on sentencepiece: learn, save, load, encode, decode.

A token is one position of a text, a number in the vocabulary; its piece is how it is spelt, "▁the".
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from heedful.config import setting
from heedful.errors import HeedfulError
from heedful.files import remove, write_bytes

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
FORBIDDEN = PAD, UNKNOWN, BEGIN  # they never stand in an output
LEARNING_THREADS = 16  # stands in the file, which shall be the same wherever it is made
SAMPLE_LINES, SAMPLE_CHARACTERS = 1_000_000, 64 << 20  # that subwords are learned from, at most
SPACE = "\u2581"  # how sentencepiece marks the beginning of a word
JOINT, SIDES = "vocabulary.model", {"source": "vocabulary.source.model", "target": "vocabulary.target.model"}  # files


@dataclass(frozen=True)
class VocabularyConfig:
    """How text becomes tokens."""

    kind: Literal["bpe", "unigram", "characters", "symbols"] = setting(
        "bpe", "Subwords by byte-pair encoding or unigram model, characters, or whitespace-separated symbols"
    )
    size: int = setting(
        8000, "Size: tokens to choose from, a joint vocabulary's in all; fewer if the text has not so many", least=1
    )
    joint: bool = setting(True, "One vocabulary for both sides, as in the paper; else one for each")
    byte_fallback: bool = setting(True, "Spell what the vocabulary lacks in bytes, so that nothing is unknown")
    dropout: float = setting(
        0.0, "Subword dropout in training: probability of skipping a merge", least=0, most=1, only={"kind": ["bpe"]}
    )
    normalization: Literal["identity", "nfkc", "nmt_nfkc"] = setting(
        "identity", "Unicode normalisation; identity keeps every character"
    )


class Vocabulary:
    """Turns text into ids and back. Ids 0 to 3 are padding, unknown, begin and end on both sides.

    `source` and `target` are sentencepiece processors; in a joint vocabulary they are the same object.
    """

    def __init__(self, source: bytes, target: bytes | None = None) -> None:
        if not source or target == b"":
            raise RuntimeError("an empty model")
        self._models = (source, target)
        self.source = sentencepiece.SentencePieceProcessor(model_proto=source)
        self.target = self.source if target is None else sentencepiece.SentencePieceProcessor(model_proto=target)

    @cached_property
    def _has_many_segmentations(self) -> bool:
        try:
            self.source.encode("a", enable_sampling=True, alpha=0.1, nbest_size=-1)
        except RuntimeError:
            return False
        return True

    @cached_property
    def _unknown(self) -> dict[str, str]:
        """How an unknown token is shown, by side."""
        sides = {side: getattr(self, side) for side in SIDES}
        return {side: SPACE * _has_words_alone(one) + one.id_to_piece(UNKNOWN) for side, one in sides.items()}

    @property
    def joint(self) -> bool:
        """Whether both sides share one vocabulary."""
        return self.target is self.source

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of the source's and of the target's vocabulary."""
        return self.source.vocab_size(), self.target.vocab_size()

    @property
    def least_size(self) -> int:
        """The smallest size that subwords of this text can have: its characters, bytes, tags and special tokens."""
        sides = [[one.id_to_piece(i) for i in range(one.vocab_size())] for one in {self.source, self.target}]
        return max(sum(len(piece) == 1 or piece.startswith("<") for piece in side) for side in sides)

    def encode_source(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode source lines; each ends with END."""
        return _encode(self.source, lines, threads)

    def encode_target(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode target lines; each ends with END, and BEGIN is not part of it."""
        return _encode(self.target, lines, threads)

    def decode_target(self, ids: Sequence[int]) -> str:
        """Decode target ids to one line of text; ids that do not spell valid UTF-8 become U+FFFD."""
        return _one_line(self.target.decode([i for i in ids if i > END]))

    def pieces(self, ids: Sequence[int], side: Literal["source", "target"]) -> list[str]:
        """Return the written form of each id, as sentencepiece shows it.

        Where all tokens are words, one that is unknown has the mark of a word's beginning as well.
        """
        processor, unknown = getattr(self, side), self._unknown[side]
        return [unknown if i == UNKNOWN else processor.id_to_piece(int(i)) for i in ids]

    def share_in_bytes(self, ids: Sequence[int], side: Literal["source", "target"]) -> float:
        """Return which share of these tokens spells, in bytes, characters that the vocabulary lacks."""
        processor = getattr(self, side)
        return sum(map(int, map(processor.is_byte, ids))) / max(len(ids), 1)

    def lacking(self, tags: Iterable[str]) -> list[str]:
        """Return those of `tags` that are no token of the source side: they are spelt in pieces."""
        return [tag for tag in tags if tag and self.source.piece_to_id(tag) == UNKNOWN]

    def resample(self, ids: Sequence[Sequence[int]], side: str, dropout: float, seed: int) -> list[list[int]]:
        """Segment encoded lines anew with subword dropout (Provilkov et al. 2020); a function of its arguments.

        Characters and whitespace symbols have one segmentation only: those come back as they are. So do lines with an
        unknown token, whose text is not known any more.
        """
        if not self._has_many_segmentations:
            return [list(map(int, line)) for line in ids]
        processor = getattr(self, side)
        texts = [processor.decode([int(i) for i in line if i > END]) for line in ids]
        sentencepiece.set_random_generator_seed(seed & 0x7FFFFFFF)
        options = {"enable_sampling": True, "alpha": dropout, "nbest_size": -1}
        anew = [processor.encode(text, add_eos=True, **options) for text in texts]
        return [list(map(int, old)) if UNKNOWN in old else new for old, new in zip(ids, anew, strict=True)]

    def files(self) -> dict[str, bytes]:
        """Return the vocabulary's files by name: one if joint, else one for each side."""
        source, target = self._models
        if target is None:
            return {JOINT: source}
        return {SIDES["source"]: source, SIDES["target"]: target}

    def save(self, folder: Path) -> None:
        """Write the vocabulary's files into `folder`, in place of those of an earlier one."""
        own = self.files()
        for name in (JOINT, *SIDES.values()):
            if name in own:
                write_bytes(folder / name, own[name])
            else:
                remove(folder / name)

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read a vocabulary that `save` wrote.

        Raises:
            HeedfulError: the files are missing or are not sentencepiece models.
        """
        try:
            if (folder / JOINT).exists():
                return cls((folder / JOINT).read_bytes())
            return cls(*((folder / name).read_bytes() for name in SIDES.values()))
        except (OSError, RuntimeError) as error:
            raise HeedfulError(f"{folder}: no usable vocabulary in it ({error}); copy the whole model folder") from None


def _encode(processor: Any, lines: Sequence[str], threads: int) -> list[list[int]]:
    if threads > 1:
        found: list[list[int]] = processor.encode(list(lines), add_eos=True, num_threads=threads)
        return found
    # A list starts threads, one at least: that costs 0.2 ms, where a line is encoded in 0.005.
    return [processor.encode(line, add_eos=True) for line in lines]


def learn(
    sources: Iterable[str],
    targets: Iterable[str],
    config: VocabularyConfig,
    *,
    tags: Sequence[str] = (),
) -> Vocabulary:
    """Learn a vocabulary from text; each of `tags` becomes one token of the source side.

    Raises:
        HeedfulError: the text is too poor for any vocabulary.
    """
    if config.joint:
        return Vocabulary(_learn_one(chain(sources, targets), config, tags))
    return Vocabulary(_learn_one(sources, config, tags), _learn_one(targets, config, ()))


def _learn_one(lines: Iterable[str], config: VocabularyConfig, tags: Sequence[str]) -> bytes:
    sentences = _sample(lines)
    size = config.size
    try:
        return _train(sentences, config, size, tags)
    except RuntimeError as error:
        # A small corpus does not bear a large vocabulary: take what sentencepiece says it bears.
        limit = re.search(r"value <= (\d+)", str(error))
        if least := re.search(r"\d+ vs (\d+)", str(error)):
            raise HeedfulError(
                f"vocabulary.size {size} is less than this text has characters, bytes and tags; set it to at least "
                f"{least[1]}"
            ) from None
        if not limit:
            raise HeedfulError(f"no vocabulary of {size} can be learned from this text: {_last(error)}") from None
        return _train(sentences, config, int(limit[1]), tags)


def _train(sentences: list[str], config: VocabularyConfig, size: int, tags: Sequence[str]) -> bytes:
    model = io.BytesIO()
    kinds = {"bpe": "bpe", "unigram": "unigram", "characters": "char", "symbols": "word"}
    arguments: dict[str, Any] = {
        "model_type": kinds[config.kind],
        "vocab_size": size,
        "byte_fallback": config.byte_fallback,
        # With few characters none is rare; for large scripts the tail is spelt in bytes.
        "character_coverage": 0.9998 if config.byte_fallback else 1.0,
        "normalization_rule_name": config.normalization,
        "user_defined_symbols": list(tags),
        "hard_vocab_limit": config.kind == "bpe",
        "max_sentence_length": 65536,
        "num_threads": LEARNING_THREADS,
        "minloglevel": 3,
        "pad_id": PAD,
        "unk_id": UNKNOWN,
        "bos_id": BEGIN,
        "eos_id": END,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, **arguments)
    return model.getvalue()


def _sample(lines: Iterable[str]) -> list[str]:
    """Thin a long text out evenly: whenever the sample is full, every second line of it goes, and the stride doubles.

    Subword statistics settle long before a million lines; without a bound the learner's memory grows with the text.
    """
    kept: list[str] = []
    stride, size = 1, 0
    for number, line in enumerate(lines):
        if number % stride:
            continue
        kept.append(line)
        size += len(line)
        if len(kept) >= SAMPLE_LINES or size >= SAMPLE_CHARACTERS:
            kept = kept[::2]
            stride, size = stride * 2, sum(map(len, kept))
    return kept


def _has_words_alone(processor: sentencepiece.SentencePieceProcessor) -> bool:
    written = range(END + 1, processor.vocab_size())
    return all(processor.id_to_piece(i).startswith((SPACE, "<")) for i in written)  # <bt>, a tag, or <0xC3>, a byte


def _one_line(text: str) -> str:
    # Word models spell the space before an unknown symbol as the byte form of U+2581. Line breaks cannot stand
    # in a line of output: one line in, one line out.
    return re.sub(r"[\n\r]", " ", text.replace(SPACE, " ")).strip()


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
