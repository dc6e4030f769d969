"""Labelled brackets of constituency trees, counted as EVALB counts them: precision, recall and F1. (section 6.3)

A tree is a line such as `(S (NP (DT the) (NN cat)) (VP (VBD slept)))`. A bracket around one word and nothing else is
that word's part of speech and is not counted, nor is an outermost TOP, ROOT or empty label. Traces and function tags
are to be taken out before; punctuation counts like any word.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heedful.errors import HeedfulError

TOKEN = re.compile(r"\(\s*[^\s()]*|\)|[^\s()]+")  # an opening bracket with its label, a closing one, a word
PART_OF_SPEECH = re.compile(r"\(\s*[^\s()]+\s+[^\s()]+\s*\)")
TOPS = ("", "TOP", "ROOT")
ANY = "XX"  # stands for a word and its part of speech in a linearised tree


@dataclass(frozen=True)
class Tree:
    """The words, and the (label, first word, word after the last) of each constituent."""

    words: tuple[str, ...]
    brackets: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class BracketScores:
    """All in percent: of the brackets, and of the outputs that have every bracket right, or are trees at all."""

    precision: float
    recall: float
    f1: float
    exact: float
    well_formed: float


def parse(text: str) -> Tree:
    """Read one tree.

    Raises:
        HeedfulError: it is none; with what is wrong.

    >>> parse("(TOP (S (NP (DT the) (NN cat)) (VP (VBD slept))))").brackets
    (('NP', 0, 2), ('VP', 2, 3), ('S', 0, 3))
    """
    words, brackets = list[str](), list[tuple[str, int, int]]()
    opened, before = list[tuple[str, int]](), ""
    for token in TOKEN.findall(text):
        if not opened and (words or not token.startswith("(")):
            raise HeedfulError(f"'{token.strip()}' stands outside of the tree's brackets")
        if token.startswith("("):
            opened.append((token[1:].strip(), len(words)))
        elif token == ")":
            label, start = opened.pop()
            if start == len(words):
                raise HeedfulError(f"there is no word in ({label})")
            is_part_of_speech = len(words) - start == 1 and before != ")"
            if not is_part_of_speech and not (label in TOPS and not opened):
                brackets.append((label, start, len(words)))
        else:
            words.append(token)
        before = token
    if opened or not words:
        raise HeedfulError(f"{len(opened)} brackets are not closed" if opened else "there is no tree")
    return Tree(tuple(words), tuple(brackets))


def read_trees(path: Path) -> list[str]:
    """Return the lines of a file of trees, one a line; empty lines are left out.

    Raises:
        HeedfulError: the file cannot be read, or a line is no tree; with the number of the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would cut at U+2028 too
    except (OSError, UnicodeDecodeError) as error:
        raise HeedfulError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            parse(line or f"({ANY} {ANY})")
        except HeedfulError as error:
            raise HeedfulError(f"{path}:{number}: no bracketed tree: {error}; a line is one tree") from None
    return [line for line in lines if line.strip()]


def bracket_scores(outputs: Sequence[str], references: Sequence[str]) -> BracketScores:
    """Compare trees with their references; what is no tree, or one over another number of words, has no brackets.

    Raises:
        HeedfulError: numbers differ, or a reference is no tree.

    >>> bracket_scores(["(S (NP (D the) (N cat)) (V ran))"], ["(S (NP (D the) (N cat)) (VP (V ran)))"]).f1
    80.0
    """
    if len(outputs) != len(references) or not outputs:
        raise HeedfulError(f"{len(outputs):,} outputs and {len(references):,} trees; each output needs its tree")
    found, wanted, right, exact, well_formed = 0, 0, 0, 0, 0
    for number, (output, reference) in enumerate(zip(outputs, references, strict=True), start=1):
        tree = _parse_or_none(reference)
        if tree is None:
            raise HeedfulError(f"reference {number}: no bracketed tree: {reference[:60]!r}")
        ours = _parse_or_none(output)
        well_formed += ours is not None
        fits = ours is not None and len(ours.words) == len(tree.words)
        brackets, known = Counter(ours.brackets if ours and fits else ()), Counter(tree.brackets)
        found, wanted = found + brackets.total(), wanted + known.total()
        right += (brackets & known).total()
        exact += fits and brackets == known
    return BracketScores(
        _share(right, found, wanted),
        _share(right, wanted, found),
        _share(2 * right, found + wanted, 0),
        100 * exact / len(outputs),
        100 * well_formed / len(outputs),
    )


def linearise(tree: str) -> str:
    """Return a tree as the symbols that a model writes: each word with its part of speech becomes XX.

    >>> linearise("(S (NP (DT the) (NN cat)) (VP (VBD slept)))")
    '(S (NP XX XX ) (VP XX ) )'
    """
    return " ".join("".join(token.split()) for token in TOKEN.findall(PART_OF_SPEECH.sub(f" {ANY} ", tree)))


def bracketed(line: str) -> str:
    """Return what `linearise` made as a tree that can be scored.

    >>> bracketed("(S (NP XX XX ) (VP XX ) )")
    '(S (NP (XX XX) (XX XX) ) (VP (XX XX) ) )'
    """
    return " ".join(f"({ANY} {ANY})" if symbol == ANY else symbol for symbol in line.split())


def _share(part: int, whole: int, others: int) -> float:
    """Return a percentage; where there is nothing on this side, all is right only if there is nothing on the other."""
    return 100 * part / whole if whole else 100.0 * (not others)


def _parse_or_none(text: str) -> Tree | None:
    try:
        return parse(text)
    except HeedfulError:
        return None
