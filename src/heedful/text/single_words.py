"""Single words with their translations, found in the pairs, so that a model can learn what people look up."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice

from heedful.text.pairs import Triple

CLOSING = ",.!?\u060c\u061f\u0964\u3001\u3002\uff01\uff0c\uff1f"  # also in Arabic, Hindi, Chinese and Japanese
# Pairs that are read: the words found grow ever more slowly in number, the memory does not
PAIRS = 200_000
LINKS, LINKS_OF_ONE = 30_000_000, 10_000  # between words of one side and of the other; of a long pair none
LEAST = 0.3  # of Dice's coefficient


def word_pairs(pairs: Iterable[Triple]) -> list[tuple[str, str]]:
    """Return words with their translations, as the pairs show them: most certain first, what opens lines last.

    Two words belong together if each is the other's best by Dice's coefficient, 2 n(both) / (n(one) + n(other)) over
    pairs, and that is at least `LEAST`. Frequent words, which stand beside everything, and rare ones are left out.
    Where a word opens lines by itself, as in "No, thank you.", or is a line, its translation is what mostly does so.
    """
    letters = rf"(?:[^\W\d_]|[{_marks()}])+"
    word = re.compile(rf"{letters}(?:['\u2019-]{letters})*")
    chosen, sides, links = list[tuple[str, str]](), list[list[list[str]]](), 0
    for _, *pair in islice(pairs, PAIRS):
        words = [word.findall(text) for text in pair]
        new = len(words[0]) * len(words[1])
        if new > LINKS_OF_ONE:
            continue
        chosen.append((pair[0], pair[1]))
        sides.append(words)
        links += new
        if links > LINKS:
            break
    forms = [_forms(pair[side] for pair in sides) for side in (0, 1)]
    found = [[{word.lower() for word in pair[side]} for pair in sides] for side in (0, 1)]
    count = [Counter(word for words in each for word in words) for each in found]
    usable = [{word for word, times in each.items() if 4 <= times <= len(sides) // 50} for each in count]
    together: Counter[tuple[str, str]] = Counter()
    for source, target in zip(*found, strict=True):
        here = target & usable[1]
        together.update((one, other) for one in source & usable[0] for other in here)
    best: list[dict[str, tuple[float, str]]] = [{}, {}]
    for (one, other), times in together.items():
        score = 2 * times / (count[0][one] + count[1][other])
        for side, key, value in ((0, one, other), (1, other, one)):
            best[side][key] = max(best[side].get(key, (0.0, "")), (score, value))
    mutual = sorted(
        (-score, one, other) for one, (score, other) in best[0].items() if score >= LEAST and best[1][other][1] == one
    )
    opening = _openings(chosen, re.compile(rf"({word.pattern})\s*[{CLOSING}]"), count[0], together)
    found_words = [(one, other) for _, one, other in mutual if one not in opening] + list(opening.items())
    return [(_written(one, forms[0]), _written(other, forms[1])) for one, other in found_words]


def _openings(
    pairs: Sequence[tuple[str, str]], alone: re.Pattern[str], count: Counter[str], together: Counter[tuple[str, str]]
) -> dict[str, str]:
    """Return, for each word that begins sources `alone`, the word that mostly begins their targets so, in lower case.

    It does so at least three times, and in at least one of 200 pairs that have the word: "no" does, "gut" does not. Or
    it is a line of its own once, and its target is a word too: "Stop!" says what the word means where it stands alone.
    Of words that do so as often, the one that is oftener `together` with it anywhere is taken.
    """
    times = defaultdict[str, Counter[str]](Counter)
    whole = set[str]()
    for source, target in pairs:
        first, second = alone.match(source), alone.match(target)
        if first and second:
            times[first[1].lower()][second[1].lower()] += 1
            if first.end() >= len(source.rstrip()) and second.end() >= len(target.rstrip()):
                whole.add(first[1].lower())
    found = dict[str, str]()
    for one, others in times.items():
        often, _, other = max((others[other], together[one, other], other) for other in others)
        if one in whole or often >= max(3, count[one] / 200):
            found[one] = other
    return found


def _forms(texts: Iterable[list[str]]) -> Mapping[str, Counter[str]]:
    """Return for each word in lower case how often it is written how, inside sentences."""
    found = defaultdict[str, Counter[str]](Counter)
    for words in texts:
        for word in words[1:]:
            found[word.lower()][word] += 1
    return found


def _written(word: str, forms: Mapping[str, Counter[str]]) -> str:
    """Return a lower-cased word as it is mostly written inside sentences: "TV", too."""
    known = forms.get(word) or {word: 1}
    return max(known, key=lambda form: (known[form], form))  # of forms alike, the one with a small letter first


@cache
def _marks() -> str:
    """Return the signs that belong to the letter before them, as vowels in Hindi and Thai do; for Python no letters."""
    return "".join(mark for mark in map(chr, range(0x300, 0x3100)) if unicodedata.category(mark)[0] == "M")
