"""Put the three training words that are spelt most alike, and how they sound, beside each word of CMUdict.

    python recipes/similar_words.py FOLDER-OF-CMUDICT OUT [WORDS ...]

with further files of words, a word a line, for a model that was trained so to read: OUT has each by its name.

For `A B B O T T` of val.words, OUT/val.words has

    A B B O T T | A B B O T T ' S = ae b ah t s | A B O T T = ah b aa t | A B B O U D = ah b aw d

with phones in small letters, since B is a letter and a phone. A model that attends can then copy what it would
otherwise have to remember, as translators do with a translation memory (Bulté and Tezcan 2019, "Neural fuzzy repair").
Words come from train.words alone, and a word never stands beside itself.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from heedful import files

LONGEST = 6  # letters in a piece of spelling, of which words are held to be made
BESIDE = 3  # words
CANDIDATES = 40  # alike as a whole, of which those are chosen that have what the others have not
ONCE = np.zeros(1)
WHOLE = 0.3  # added to the likeness, so that what is new in a word counts even where the whole is little alike
KNOWN = 0.2  # what a piece counts that a word chosen before has already


def pieces(word: str) -> set[str]:
    """Return the pieces of 2 to 6 letters of a word; its ends count as letters."""
    word = f"^{word}$"
    return {word[i : i + n] for n in range(2, LONGEST + 1) for i in range(len(word) - n + 1)}


class Dictionary:
    """Training words by their spelling.

    Two words are as alike as their pieces, each with the weight of its length times the logarithm of how rare it is:
    the cosine of both words' vectors. Sums are rounded, so that no machine's order of adding decides.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.made_of = [pieces(word) for word in words]
        rows: dict[str, list[int]] = defaultdict(list)
        for row, made in enumerate(self.made_of):
            for piece in made:
                rows[piece].append(row)
        self.rows = {piece: np.array(found) for piece, found in rows.items()}
        self.lengths = np.array([self._length(made) for made in self.made_of])

    def similar(self, word: str) -> list[str]:
        """Return up to three other words: each time the one alike that has most of what those before it have not."""
        made = pieces(word)
        left = {piece: self._weight(piece) for piece in made}
        alike = self._alike(made)
        last = max(len(alike) - CANDIDATES, 0)
        nearest = np.flatnonzero((alike > 0) & (alike >= np.partition(alike, last)[last]))
        candidates = [row for row in nearest[np.argsort(-alike[nearest], kind="stable")] if self.words[row] != word]
        chosen: list[int] = []
        while len(chosen) < min(BESIDE, len(candidates)):
            gains = {
                row: round(sum(left[piece] for piece in self.made_of[row] & left.keys()) * (WHOLE + alike[row]), 9)
                for row in candidates
                if row not in chosen
            }
            chosen.append(max(gains, key=gains.__getitem__))
            for piece in self.made_of[chosen[-1]] & left.keys():
                left[piece] *= KNOWN
        return [self.words[row] for row in chosen]

    def _alike(self, made: set[str]) -> np.ndarray:
        """Return how alike each training word is to one that is made of these pieces."""
        alike = np.zeros(len(self.words))
        for piece in made & self.rows.keys():
            alike[self.rows[piece]] += self._weight(piece) ** 2
        found: np.ndarray = (alike / self.lengths / self._length(made)).round(9)
        return found

    def _length(self, made: set[str]) -> float:
        """Return the length of the vector of a word made of these pieces."""
        return math.hypot(*(self._weight(piece) for piece in made)) or 1.0

    def _weight(self, piece: str) -> float:
        """Return what it counts that two words share a piece; an unknown one is as rare as one of a single word."""
        return len(piece) * math.log(len(self.words) / len(self.rows.get(piece, ONCE)))


def main() -> None:
    """Write the six files, and those of further words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of CMUdict: train, val and test, .words and .phones")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("words", type=Path, nargs="*", help="further files of words, which have no pronunciations yet")
    arguments = parser.parse_args()
    folder, out = arguments.folder, arguments.out
    if not (folder / "train.words").is_file():
        parser.error(f"{folder}: no train.words in it; give the folder of CMUdict")
    parts = [folder / f"{part}.words" for part in ("val", "test", "train")]
    read = [*parts, *arguments.words]
    if len({path.name for path in read}) < len(read):
        parser.error(f"{out} takes one file of each name; give files of other names than each other's and the folder's")
    if {(out / path.name).resolve() for path in read} & {path.resolve() for path in read}:
        parser.error(f"{out}: what is written there would replace what is read; give another folder")
    try:
        _write(folder, out, parts, read)
    except (OSError, ValueError) as error:  # a file that is missing, is no text, or has more lines than its other half
        parser.error(str(error))


def _write(folder: Path, out: Path, parts: Sequence[Path], read: Sequence[Path]) -> None:
    """Write what is read, and the phones of the parts, into `out`."""
    lines_of = {path: _lines(path) for path in read}
    out.mkdir(parents=True, exist_ok=True)
    sounds: dict[str, str] = {}  # of several ways to say a word the first
    for word, phones in zip(_lines(folder / "train.words"), _lines(folder / "train.phones"), strict=True):
        sounds.setdefault(word, phones.lower())
    dictionary = Dictionary([word.replace(" ", "") for word in sounds])
    for path, lines in lines_of.items():
        beside = {}
        for word in dict.fromkeys(lines):
            similar = [" ".join(other) for other in dictionary.similar(word.replace(" ", ""))]
            beside[word] = " | ".join([word, *(f"{other} = {sounds[other]}" for other in similar)])
        files.write_text(out / path.name, "".join(f"{beside[word]}\n" for word in lines))
        print(f"{out / path.name}: {len(beside):,} words")
    for path in (part.with_suffix(".phones") for part in parts):
        files.write_text(out / path.name, path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()
