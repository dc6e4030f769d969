"""Real text: paragraphs into sentences to translate, and everything else kept as it is.

A text is cut into parts that joined give it back, character by character; only parts with letters are translated. So
line breaks, blank lines, bullets, spaces and tags cannot be lost. What stands for something, {name} or an address, goes
through the model as a name that it copies; if a name does not come back, the text on its sides is translated alone.
"""

import html
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sentencex import segment

LONGEST = 300  # characters of a sentence; a longer one is split where a clause ends
STAND_INS = (
    "Tom",
    "Boston",
    "Mary",
    "Australia",
)  # names that a model of everyday sentences copies; tried by measurement
REPEATS = 4  # so many times the same few words in a row are a model that has lost its way
NO_REPEAT = 4  # subwords that may not come twice in an output that is asked for with care
LINE_ENDS = re.compile(r"([\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+)")
BULLET = re.compile(r"\s*(?:(?:[-*•\u2013>#]+|\d{1,3}[.)])\s+)*")
# Its parts are bounded or begin at a boundary, so that no text takes time in proportion to its square.
PLACEHOLDER = re.compile(
    r"""
    \$?\{\{?[^{}\s][^{}\n]*\}?\}                    # {name}, {{name}}, ${name}
  | %\(\w+\)[a-z] | %[-+0\#]{0,3}\d{0,3}(?:\.\d{1,3})?[sdifgx]\b  # %s, %05.2f, %(name)s
  | https?://[^\s<>"']*[^\s<>"'.,;:!?)\]] | www\.[^\s<>"']*[^\s<>"'.,;:!?)\]]
  | (?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+                    # an e-mail address
  | `[^`\n]+`                                       # code
    """,
    re.VERBOSE,
)
# A tag, a comment, or all of an element whose content is not prose.
MARKUP = re.compile(
    r"""
    <!--(?:(?!<!--).)*?-->
  | <(script|style|code|pre|textarea)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>
  | </?[a-zA-Z!][^<>]*>
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


class Part(NamedTuple):
    """A piece of a text, and whether it is to be translated."""

    text: str
    translate: bool


@dataclass(frozen=True)
class Sentence:
    """What a model is asked to translate; `careful` asks for an output that does not repeat itself."""

    text: str
    careful: bool = False


Translating = Generator[list[Sentence], list[list[str]], list[str]]


def translating(text: str, language: str = "", *, markup: bool = False, count: int = 1) -> Translating:
    """Translate a text with somebody else's model: yield sentences, be sent their translations, return `count` texts.

    Each sentence is answered by its translations, best first; at most two lots of sentences are asked for.

    Args:
        text: anything; half surrogate pairs become question marks
        language: code of its language, for the rules that find the ends of sentences
        markup: tags are kept, and entities understood
        count: how many texts to return: the n-th has the n-th translation of every sentence, or its last
    """
    parts = list(split(text, language, markup=markup))
    asked = {
        i: _Asked(html.unescape(part.text) if markup else part.text) for i, part in enumerate(parts) if part.translate
    }
    if not asked:
        return [clean(text)] * count
    answers = dict(zip(asked, (yield [Sentence(one.masked) for one in asked.values()]), strict=True))
    again: dict[tuple[int, int], Sentence] = {}
    found: dict[int, list[str]] = {}
    for i, one in asked.items():
        good = [one.restored(answer) for answer in answers[i]]
        kept = [answer for answer in good if answer is not None]
        if kept and good[0] is not None:
            found[i] = kept
        elif one.placeholders:
            again |= {(i, n): Sentence(part.text) for n, part in enumerate(one.between) if part.translate}
        else:
            again[i, 0] = Sentence(one.masked, careful=True)
    if again:
        second = dict(zip(again, (yield list(again.values())), strict=True))
        for i, one in asked.items():
            if i not in found:
                found[i] = one.patched({n: answers for (j, n), answers in second.items() if i == j})
    return [
        "".join(_chosen(found[i], n, markup) if i in found else part.text for i, part in enumerate(parts))
        for n in range(count)
    ]


def split(text: str, language: str = "", *, markup: bool = False, longest: int = LONGEST) -> Iterator[Part]:
    """Cut a text into sentences, none longer than `longest`, and what stands between them.

    >>> [part.text for part in split("- Hi, {name}! How are you?\\n\\n42", "en")]
    ['- ', 'Hi, {name}!', ' ', 'How are you?', '\\n\\n', '42']
    """
    for piece in _tags(clean(text)) if markup else [Part(clean(text), True)]:
        if not piece.translate:
            yield piece
            continue
        for number, line in enumerate(LINE_ENDS.split(piece.text)):
            if number % 2 or not line:
                yield from [Part(line, False)] if line else []
            else:
                yield from _sentences(line, language, longest)


def clean(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair, which JSON can hold, is no character."""
    return text.encode("utf-8", "replace").decode()


def repeats(text: str) -> bool:
    """Return whether the same one to four words stand `REPEATS` times in a row.

    >>> repeats("the cat the cat the cat the cat"), repeats("the cat sat on the mat")
    (True, False)
    """
    words = text.split()
    return any(
        all(words[at + i] == words[at + i % size] for i in range(size * REPEATS))
        for size in range(1, 5)
        for at in range(len(words) - size * REPEATS + 1)
    )


class _Asked:
    """A sentence on its way through a model."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.placeholders: list[str] = PLACEHOLDER.findall(text)
        free = [name for name in STAND_INS if name not in text]
        self.names = free[: len(self.placeholders)]
        names = iter(self.names)
        self.masked = PLACEHOLDER.sub(lambda found: next(names, found[0]), text)
        self.masked = _in_lower_case(self.masked, self.names) if is_titled(self.masked) else self.masked

    @property
    def between(self) -> list[Part]:
        """The sentence in parts, its placeholders parts of their own."""
        parts, end = [], 0
        for found in PLACEHOLDER.finditer(self.text):
            parts += [*_trimmed(self.text[end : found.start()]), Part(found[0], False)]
            end = found.end()
        return [*parts, *_trimmed(self.text[end:])]

    def restored(self, answer: str) -> str | None:
        """Return the translation with its placeholders, or None if one is missing or too many, or it repeats itself."""
        answer = one_line(answer)
        if repeats(answer) and not repeats(self.text):
            return None
        if len(self.names) < len(self.placeholders) or any(
            len(_whole(name).findall(answer)) != 1 for name in self.names
        ):
            return None
        held = dict(zip(self.names, self.placeholders, strict=True))
        restored = _any_of(self.names).sub(lambda name: held[name[0]], answer) if held else answer
        return restored if Counter(PLACEHOLDER.findall(restored)) == Counter(self.placeholders) else None

    def patched(self, answers: dict[int, list[str]]) -> list[str]:
        """Return the sentence from what was translated on the sides of its placeholders, or with more care."""
        if not self.placeholders:
            return [one_line(answer) for answer in answers[0]]
        pieces = []
        for n, part in enumerate(self.between):
            answer = one_line(answers[n][0]) if n in answers else part.text
            pieces.append(PLACEHOLDER.sub(" ", answer) if n in answers else answer)  # a model may invent some
        return ["".join(pieces)]


def is_titled(sentence: str) -> bool:
    """Return whether each of four or more words begins with a capital, as in an English headline.

    >>> is_titled("Where Is The Station?"), is_titled("Tom lives in Boston.")
    (True, False)
    """
    words = [word for word in sentence.split() if word[0].isalpha()]
    return len(words) > 3 and not sentence.isupper() and all(word[0].isupper() for word in words)


def one_line(text: str) -> str:
    """Return a translation as one line: a model that spells in bytes can spell the end of one."""
    return LINE_ENDS.sub(" ", clean(text))


def _in_lower_case(sentence: str, names: Sequence[str]) -> str:
    first, *rest = re.split(r"(\s+)", sentence)
    same = {"I", *names}
    return first + "".join(
        word if word.isupper() or set(re.findall(r"\w+", word)) & same else word.lower() for word in rest
    )


def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){name}(?!\w)")


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)")


def _chosen(answers: list[str], n: int, markup: bool) -> str:
    answer = answers[min(n, len(answers) - 1)]
    return html.escape(answer, quote=False) if markup else answer


def _tags(text: str) -> Iterator[Part]:
    end = 0
    for found in MARKUP.finditer(text):
        yield Part(text[end : found.start()], True)
        yield Part(found[0], False)
        end = found.end()
    yield Part(text[end:], True)


def _sentences(line: str, language: str, longest: int) -> Iterator[Part]:
    bullet = BULLET.match(line)
    start = bullet.end() if bullet else 0
    if start:
        yield Part(line[:start], False)
    rest = line[start:]
    sentences = list(segment(language or "en", rest)) if rest else []
    for sentence in sentences if "".join(sentences) == rest else [rest]:
        for piece in _short(sentence, longest):
            yield from _trimmed(piece)


def _short(sentence: str, longest: int) -> Iterator[str]:
    """Cut at the last end of a clause that fits, else at the last space, else anywhere but within a placeholder."""
    while len(sentence) > longest:
        head = sentence[:longest]
        ends = [found.end() for found in re.finditer(r"[,;:\u2013\u2014)]\s", head)] or [
            found.end() for found in re.finditer(r"\s", head)
        ]
        at = max(ends, default=longest)
        for found in PLACEHOLDER.finditer(sentence):
            if found.start() < at < found.end():
                at = found.start() or found.end()
        yield sentence[:at]
        sentence = sentence[at:]
    yield sentence


def _trimmed(piece: str) -> Iterator[Part]:
    """Yield a piece without the space around it, and that space by itself; without letters, nothing to translate."""
    inner = piece.strip()
    words = PLACEHOLDER.sub(" ", html.unescape(inner))  # an entity alone, &nbsp;, has no letters either
    if not any(character.isalpha() for character in words):
        yield from [Part(piece, False)] if piece else []
        return
    start = piece.index(inner)
    around = Part(piece[:start], False), Part(inner, True), Part(piece[start + len(inner) :], False)
    yield from (part for part in around if part.text)
