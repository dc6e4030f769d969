"""Training pairs as people type them: altered copies beside the pairs, and tags.

Corpora hold tidy sentences about the same few people. Others leave the full stop out, write in lower case, mistype a
letter, name somebody else, paste a paragraph. A model that saw each of these with its translation has an answer to
them.
"""

import random
import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence

from heedful.text.pairs import Triple

RECENT = 1000  # earlier pairs that one may be joined with: neighbours in a file are often alike
NAMES = 5000
SYLLABLE = re.compile("[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff]")  # or a word: without it the pair is another one


def augmented(
    pairs: Iterable[Triple], *, tags: Sequence[str] = (), altered: float = 0.0, seed: int = 1
) -> Iterator[Triple]:
    """Yield each pair, its corpus's tag in front of its source; after a share `altered` of them, an altered copy.

    Which copies are made follows from the arguments alone. A tag tells the model where a pair comes from, as in
    tagged back-translation (Caswell et al. 2019).
    """
    alter = _Alterations(seed)
    for corpus, source, target in pairs:
        tag = f"{tags[corpus]} " if tags and tags[corpus] else ""
        yield corpus, tag + source, target
        if altered and alter.generator.random() < altered:
            copy = alter(source, target, tag)
            if copy != (source, target):  # the first pair has no other to be joined with
                yield corpus, tag + copy[0], copy[1]
        alter.remember(source, target, tag)


class _Alterations:
    """Makes altered copies; knows the last pairs, to join with, and the names met so far, to put in place of others."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)
        # by tag, which may tell of another direction
        self._recent = defaultdict[str, deque[tuple[str, str]]](lambda: deque(maxlen=RECENT))
        self._names: dict[str, None] = {}

    def remember(self, source: str, target: str, tag: str) -> None:
        """Let later copies use this pair."""
        self._recent[tag].append((source, target))
        if len(self._names) < NAMES:
            self._names.update(dict.fromkeys(names_in(source, target)))

    def __call__(self, source: str, target: str, tag: str) -> tuple[str, str]:
        """Return one altered copy. The shares are a guess at what people type: names above all, where there is one."""
        if self._names and self.generator.random() < 0.5:
            named = renamed(source, target, self._names, self.generator)
            if named != (source, target):
                return named
        kind = self.generator.random()
        copy = source, target
        if kind < 0.45:
            bare = without_stop(source, target) if kind < 0.30 else copy
            copy = (bare[0].lower(), bare[1]) if kind > 0.15 else bare
        elif kind < 0.80:
            copy = mistyped(source, self.generator), target
        if copy != (source, target):
            return copy
        recent = self._recent[tag]  # also where there was no stop and no capital to lose
        others = self.generator.sample(list(recent), min(len(recent), self.generator.randint(1, 3)))
        return joined([(source, target), *others])


def names_in(source: str, target: str) -> list[str]:
    """Return the words inside `source` that begin with a capital and stand in `target` as they are."""
    there = set(re.findall(r"\w+", target))
    inner = (match[0] for match in re.finditer(r"\w+", source) if match.start())
    return [word for word in inner if word in there and word.istitle() and len(word) > 1]


def renamed(source: str, target: str, names: Collection[str], generator: random.Random) -> tuple[str, str]:
    """Put another of `names` in the place of one that both sides have."""
    there = set(re.findall(r"\w+", target))
    found = [word for word in re.findall(r"\w+", source) if word in there and word in names]
    if not found:
        return source, target
    old, new = generator.choice(found), invented(list(names), generator)
    source, target = (re.sub(rf"\b{re.escape(old)}\b", new, side) for side in (source, target))
    return source, target


def invented(names: Sequence[str], generator: random.Random) -> str:
    """Return one of `names`, or a new one, the head of one and the tail of another: names are copied, not known."""
    first, second = generator.choice(names), generator.choice(names)
    if generator.random() < 0.3:
        return first
    return (first[: generator.randint(1, len(first))] + second[generator.randint(0, len(second) - 1) :].lower()).title()


def without_stop(source: str, target: str) -> tuple[str, str]:
    """Take a statement's full stop off both sides; a question loses its mark on the source side only."""
    bare = (source.rstrip(". "), target.rstrip(". ")) if source.endswith(".") else (source.rstrip("?!… "), target)
    return bare if all(bare) else (source, target)  # "..." says something, nothing does not


def mistyped(text: str, generator: random.Random) -> str:
    """Return `text` with one letter of a longer word lost, doubled, swapped with the next or mistaken for another."""
    letters = [letter.isalpha() and not SYLLABLE.match(letter) for letter in text]
    inner = [i for i in range(1, len(text) - 1) if all(letters[i - 1 : i + 2])]
    if not inner:
        return text
    i = generator.choice(inner)
    before, letter, after = text[:i], text[i], text[i + 1 :]
    other = text[generator.choice(inner)].lower()
    return generator.choice(
        [before + after, before + letter * 2 + after, before + after[0] + letter + after[1:], before + other + after]
    )


def joined(pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return several pairs as one paragraph."""
    return " ".join(source for source, _ in pairs), " ".join(target for _, target in pairs)
