"""Real text: paragraphs into sentences to translate, and everything else kept as it is.

A text is cut into parts that joined give it back, character by character; only parts with letters are translated. So
line breaks, tabs, blank lines, bullets and tags cannot be lost. What stands for something, {name} or an address, goes
through the model as a name that it copies; if a name does not come back, the text on its sides is translated alone.
"""

import html
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, zip_longest
from typing import NamedTuple, Protocol

from sentencex import segment

from heedful.text.capitals import is_shouted
from heedful.text.markdown import pieces as markdown_pieces
from heedful.text.markup import BLANK_LINES, END_OF_LINE, INLINE, NONE, Tag, place
from heedful.text.markup import pieces as markup_pieces

LONGEST = 300  # characters of a sentence; a longer one is split where a clause ends
STAND_INS = (
    "Tom",
    "Boston",
    "Mary",
    "Australia",
)  # names that a model of everyday sentences copies; tried by measurement
REPEATS = 4  # so many times the same few words in a row are a model that has lost its way
NO_REPEAT = 4  # tokens that may not come twice in an output that is asked for with care
LINE_ENDS = re.compile(f"({END_OF_LINE}+)")
COLUMN_ENDS = re.compile(r"(?<=\t)(?!\t)")  # a model is told nothing of where they were
LATIN = r"0-9A-Za-z_\u00c0-\u024f"
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"  # scripts without spaces
QUOTES = "\"'\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"  # what opens in one language closes in another
OPENING, CLOSING = rf"{QUOTES}(\[\u00bf\u00a1", rf"{QUOTES})\]"
LITTLE = re.compile(r"\b(an?|and|are|at|by|do|for|from|how|in|is|of|on|or|the|to|was|what|when|where|who|with)\b", re.I)
BULLET = re.compile(r"\s*(?:(?:[-*•\u2013>#]+|\d{1,3}[.)])\s+)*")
# Its parts are bounded or begin at a boundary, so that no text takes time in proportion to its square.
PLACEHOLDER = re.compile(
    r"""
    [$%\#@]?(?:\{\{[ ]?|\{)[^{}\s][^{}\n]*\}?\}     # {name}, {{ name }}, ${name}, %{name}, #{name}
  | \{\}                                            # {}
  | %\(\w+\)[a-z]                                 # %(name)s
  | %(?:\d{1,2}\$)?[-+0\#]{0,3}\d{0,3}(?:\.\d{1,3})?(?:l?l?[sdifgxu](?!\w)|@)  # %s, %05.2f, %1$s, %ld, %@
  | (?:https?://|www\.)[^UNSPACED\s<>"']*[^UNSPACED\s<>"'.,;:!?)\]]
  | (?<![^\WUNSPACED]|[.+-])(?:[^\WUNSPACED]|[.+-]){1,64}@(?:[^\WUNSPACED]|-)+(?:\.(?:[^\WUNSPACED]|-)+)+  # e-mail
  | `[^`\s](?:[^`\n]*[^`\s])?`                      # code
    """.replace("UNSPACED", UNSPACED),
    re.VERBOSE,
)


class Part(NamedTuple):
    """A piece of a text, and whether it is to be translated."""

    text: str
    translate: bool


@dataclass(frozen=True)
class Sentence:
    """What a model is asked to translate.

    `careful` asks for an output that does not repeat itself, `align` for one that says which words belong together.
    """

    text: str
    careful: bool = False
    align: bool = False


class Answer(Protocol):
    """A translation; `alignment` has (source word, target word) where it was asked for."""

    @property
    def text(self) -> str:
        """The translation."""
        ...

    @property
    def alignment(self) -> Sequence[tuple[int, int]]:
        """Words that belong together."""
        ...


Translating = Generator[list[Sentence], Sequence[Sequence[Answer]], list[str]]


def translating(
    text: str,
    language: str = "",
    *,
    markup: bool = False,
    count: int = 1,
    fits: Callable[[str], bool] = lambda sentence: True,
) -> Translating:
    """Translate a text with somebody else's model: yield sentences, be sent their translations, return `count` texts.

    Each sentence is answered by its translations, best first; at most two lots of sentences are asked for.

    Args:
        text: anything; half surrogate pairs become question marks
        language: code of its language, for the rules that find the ends of sentences
        markup: tags are kept, and entities understood
        count: how many texts to return: the n-th has the n-th translation of every sentence, or its last
        fits: whether a model has room for a sentence; one that does not fit is cut where a clause ends
    """
    parts = list(split(text, language, markup=markup, fits=fits))
    asked = {i: _Asked(part.text, language, markup=markup) for i, part in enumerate(parts) if part.translate}
    if not asked:
        return [clean(text)] * count
    wanted = [Sentence(one.masked, align=bool(one.tags)) for one in asked.values()]
    answers = dict(zip(asked, (yield wanted), strict=True))
    again: dict[tuple[int, int], Sentence] = {}
    found: dict[int, list[str]] = {}
    for i, one in asked.items():
        good = [one.restored(answer) for answer in answers[i]]
        kept = [answer for answer in good if answer is not None]
        if kept and good[0] is not None:
            found[i] = kept
        else:
            again |= {(i, n): sentence for n, sentence in one.second.items()}
    if again:
        second = dict(zip(again, (yield list(again.values())), strict=True))
        answered = defaultdict[int, dict[int, Sequence[Answer]]](dict)
        for (i, n), answer in second.items():
            answered[i][n] = answer
        found |= {i: one.patched(answered[i]) for i, one in asked.items() if i not in found}
    return [
        _together(
            (found[i][min(n, len(found[i]) - 1)], part.text) if i in found else (part.text, "")
            for i, part in enumerate(parts)
        )
        for n in range(count)
    ]


def split(
    text: str,
    language: str = "",
    *,
    markup: bool = False,
    fits: Callable[[str], bool] = lambda sentence: True,
) -> Iterator[Part]:
    """Cut a text into sentences, none longer than LONGEST or one that does not fit, and what stands between them.

    >>> [part.text for part in split("- Hi, {name}! How are you?\\n\\n42", "en")]
    ['- ', 'Hi, {name}!', ' ', 'How are you?', '\\n\\n', '42']
    """
    inline = INLINE if markup else NONE
    for piece, prose in (markup_pieces if markup else markdown_pieces)(clean(text)):
        if not prose:
            yield from _some(piece)
            continue
        for number, line in enumerate((BLANK_LINES if markup else LINE_ENDS).split(piece)):
            if number % 2 or not line:
                yield from _some(line)
            else:
                yield from _sentences(line, language, fits, inline)


def as_read(sentence: str, language: str = "") -> str:
    """Return a sentence as a model reads it in `translating`, without markup.

    >>> as_read("Hello {name}, Where Is The Station?"), as_read("Where Is The Station?")
    ('Hello Tom, where is the station?', 'Where is the station?')
    """
    return _Asked(clean(sentence), language, markup=False).masked


def careful(no_repeat_ngram: int) -> int:
    """Return the `no_repeat_ngram` of an output asked for with care: NO_REPEAT, or less if less was wanted."""
    return min(no_repeat_ngram or NO_REPEAT, NO_REPEAT)


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
    """A sentence on its way through a model: placeholders as names, inline tags and entities taken out."""

    def __init__(self, text: str, language: str, *, markup: bool) -> None:
        self.markup = markup
        self._given = text
        inline = INLINE if markup else NONE
        tags = [found[0] for found in inline.finditer(text)]
        texts = [self._read(piece) for piece in _between(text, inline)]
        self._pieces = texts, tags
        self.text = "".join(texts)
        self.placeholders: list[str] = [held for piece in texts for held in PLACEHOLDER.findall(piece)]
        shouted = is_shouted(PLACEHOLDER.sub(" ", self.text))  # in which a name would be the only word that is not
        free = [] if shouted else [name for name in STAND_INS if name not in text]
        self.names = free[: len(self.placeholders)]
        names = iter(self.names)
        masked = [PLACEHOLDER.sub(lambda found: next(names, found[0]), piece) for piece in texts]
        ends = accumulate(map(len, masked))
        self.tags = [Tag(at, tag) for at, tag in zip(ends, tags, strict=False)]
        self.masked = "".join(masked)
        if self.tags:  # words are counted where tags go with them, and not every vocabulary separates them at &nbsp;
            self.masked = re.sub(r"\s", " ", self.masked)
        if is_titled(self.masked) and not language.startswith("de"):  # whose nouns all have capitals
            self.masked = _in_lower_case(self.masked, self.names)
        self.repeated = False  # whether an answer did, and shall be asked for with care

    @cached_property
    def parts(self) -> list[Part]:
        """The sentence in parts, for translating what stands around tags and placeholders."""
        return list(_alone(*self._pieces, self._written, self._held))

    @property
    def second(self) -> dict[int, Sentence]:
        """What to ask for if the first answer was of no use: the text on all sides alone, or the same with care."""
        if not self.placeholders and not self.tags:
            return {0: Sentence(self.masked, careful=True)}
        return {n: Sentence(part.text, careful=self.repeated) for n, part in enumerate(self.parts) if part.translate}

    def restored(self, answer: Answer) -> str | None:
        """Return the translation with placeholders and tags, or None where it is of no use."""
        text = one_line(answer.text)
        repeated = repeats(text) and not repeats(self.text)
        self.repeated |= repeated
        if repeated or not text.strip():
            return None
        if len(self.names) < len(self.placeholders) or any(len(_whole(name).findall(text)) != 1 for name in self.names):
            return None
        if Counter(PLACEHOLDER.findall(self._with_placeholders(text, plain=True))) != Counter(self.placeholders):
            return None
        if not self.tags:
            return self._with_placeholders(self._written(text))
        if not answer.alignment or any(re.search(f"[{UNSPACED}]{{4}}", side) for side in (self.masked, text)):
            return None  # words are what spaces separate, and here there are none
        return self._with_placeholders(place(self.tags, self.masked, text, answer.alignment))

    def patched(self, answers: Mapping[int, Sequence[Answer]]) -> list[str]:
        """Return the sentence from what was translated on all sides of its placeholders and tags, or with more care."""
        if not self.placeholders and not self.tags:
            return [self._written(one_line(answer.text).strip() or self.text) for answer in answers[0]]
        made = []
        for n, part in enumerate(self.parts):
            answer = one_line(answers[n][0].text) if n in answers else ""
            invented = [held for held in PLACEHOLDER.findall(answer) if held not in part.text]
            for held in invented:
                answer = answer.replace(held, " ")
            answer = answer if answer.strip() else part.text  # better untranslated than lost
            made.append(self._written(answer) if n in answers else part.text)
        return ["".join(made)]

    def _read(self, piece: str) -> str:
        return LINE_ENDS.sub(" ", html.unescape(piece)) if self.markup else piece

    def _written(self, text: str) -> str:
        return html.escape(text, quote=False) if self.markup else text

    def _held(self, placeholder: str) -> str:
        """Return a placeholder as the text has it, where it has it so: {{ a > b }} is a program's."""
        return placeholder if placeholder in self._given else self._written(placeholder)

    def _with_placeholders(self, text: str, *, plain: bool = False) -> str:
        if not self.names:
            return text
        written = [held if plain else self._held(held) for held in self.placeholders]
        held = dict(zip(self.names, written, strict=True))
        return _any_of(self.names).sub(lambda name: held[name[0]], text)


def is_titled(sentence: str) -> bool:
    """Return whether each of four or more words begins with a capital, little ones too, as in an English headline.

    Without a little word they may be names.

    >>> is_titled("Where Is The Station?"), is_titled("Tom lives in Boston."), is_titled("Ann Lee Met Bob Ray.")
    (True, False, False)
    """
    words = [word for word in sentence.split() if word[0].isalpha()]
    if not LITTLE.search(sentence):
        return False
    return len(words) > 3 and not sentence.isupper() and all(word[0].isupper() for word in words)


def one_line(text: str) -> str:
    """Return a translation as one line: a model that spells in bytes can spell the end of one."""
    return LINE_ENDS.sub(" ", clean(text))


def _in_lower_case(sentence: str, names: Sequence[str]) -> str:
    first, *rest = re.split(r"(\s+)", sentence)
    same = {"I", *names}
    return first + "".join(
        word if (word.isupper() and word != "A") or set(re.findall(r"\w+", word)) & same else word.lower()
        for word in rest
    )


def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![{LATIN}]){name}(?![{LATIN}])")


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![{LATIN}])(?:{'|'.join(names)})(?![{LATIN}])")


def _between(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands before, between and after the matches of a pattern: one piece more than there are matches."""
    end = 0
    for found in pattern.finditer(text):
        yield text[end : found.start()]
        end = found.end()
    yield text[end:]


def _alone(
    texts: Sequence[str], tags: Sequence[str], written: Callable[[str], str], as_given: Callable[[str], str]
) -> Iterator[Part]:
    """Yield a sentence in parts: its placeholders and tags, as they are to be written, and the texts around them."""
    for text, tag in zip_longest(texts, tags, fillvalue=""):
        placeholders = [*PLACEHOLDER.findall(text), ""]
        for piece, placeholder in zip(_between(text, PLACEHOLDER), placeholders, strict=True):
            for part in _trimmed(piece, NONE):
                yield part if part.translate else Part(written(part.text), False)
            yield from _some(as_given(placeholder))
        yield from _some(tag)


def _sentences(line: str, language: str, fits: Callable[[str], bool], inline: re.Pattern[str]) -> Iterator[Part]:
    bullet = BULLET.match(line)
    start = bullet.end() if bullet else 0
    if start:
        yield Part(line[:start], False)
    rest = line[start:]
    plain = inline.sub("", rest)
    columns = COLUMN_ENDS if inline is NONE else NONE  # in markup a tab is a space
    lengths = (
        len(piece) for sentence in _segments(plain, language, columns) for piece in _fitting(sentence, LONGEST, fits)
    )
    for piece in _cut(rest, lengths, inline):
        yield from _trimmed(piece, inline)


def _segments(text: str, language: str, columns: re.Pattern[str]) -> Iterator[str]:
    """Cut a text where sentences or columns end, but not within an address, of which such rules know little."""
    sentences = list(segment(language.partition("-")[0].lower() or "en", text)) if text else []
    if "".join(sentences) != text:
        sentences = [text]
    sentences = [piece for sentence in sentences for piece in columns.split(sentence)]
    within = {at for found in PLACEHOLDER.finditer(text) for at in range(found.start() + 1, found.end())}
    begin = 0
    for end in accumulate(map(len, sentences)):
        if end not in within:
            yield text[begin:end]
            begin = end


def _cut(text: str, lengths: Iterable[int], inline: re.Pattern[str]) -> Iterator[str]:
    """Cut a text into pieces of so many characters, inline tags not counted; closing tags stay with what they close."""
    tags = deque(inline.finditer(text))
    begin = end = 0
    for length in lengths:
        left, end = length, begin
        while tags and (tags[0].start() - end < left or (tags[0].start() - end == left and tags[0][0][1] == "/")):
            left -= tags[0].start() - end
            end = tags.popleft().end()
        end += left
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _fitting(sentence: str, longest: int, fits: Callable[[str], bool]) -> Iterator[str]:
    """Cut into pieces that fit and are not longer than `longest`, half as long ones where they do not fit."""
    for piece in _short(sentence, longest):
        if longest < 4 or fits(piece):  # a placeholder is never cut, and a name stands for it
            yield piece
        else:
            yield from _fitting(piece, min(longest, len(piece)) // 2, fits)


def _short(sentence: str, longest: int) -> Iterator[str]:
    """Cut at the last end of a clause that fits, else at the last space, else anywhere but within a placeholder."""
    wholes = deque(found.span() for found in PLACEHOLDER.finditer(sentence)) if len(sentence) > longest else deque()
    begin = 0
    while len(sentence) - begin > longest:
        head = sentence[begin : begin + longest]
        ends = [found.end() for found in re.finditer(r"[,;:\u2013\u2014)]\s", head)] or [
            found.end() for found in re.finditer(r"\s", head)
        ]
        at = begin + max(ends, default=longest)
        while wholes and wholes[0][1] <= begin:
            wholes.popleft()
        for first, last in wholes:
            if first >= at:
                break
            if last > at:
                at = first if first > begin else last
        yield sentence[begin:at]
        begin = at
    yield sentence[begin:]


def _trimmed(piece: str, inline: re.Pattern[str]) -> Iterator[Part]:
    """Yield a piece without the space around it, and that space by itself; without letters, nothing to translate."""
    inner = piece.strip()
    words = PLACEHOLDER.sub(" ", html.unescape(inline.sub(" ", inner)))  # an entity alone, &nbsp;, has no letters
    if not any(character.isalpha() for character in words):
        yield from _some(piece)
        return
    start = piece.index(inner)
    end = start + len(inner)
    if whole := _wrapped(inner, inline):  # tags around all of it stay where they are
        opening, closing = whole
        yield from _some(piece[:start] + inner[:opening])
        yield from _trimmed(inner[opening:closing], inline)
        yield from _some(inner[closing:] + piece[end:])
        return
    yield from _some(piece[:start])
    yield Part(inner, True)
    yield from _some(piece[end:])


def _wrapped(text: str, inline: re.Pattern[str]) -> tuple[int, int] | None:
    """Return where the content of a text begins and ends if the first of its tags goes with the last, around it all."""
    tags = list(inline.finditer(text))
    if len(tags) != 2 or tags[0].start() or tags[1].end() != len(text):
        return None
    opens, closes = tags[0][0][1] != "/", tags[1][0][1] == "/"
    return (tags[0].end(), tags[1].start()) if opens and closes and tags[0][1] == tags[1][1] else None


def _together(parts: Iterable[tuple[str, str]]) -> str:
    """Join what each part has become, beside what it was if it was translated.

    Sentences of Chinese touch; of a language with spaces they do not.
    """
    made: list[str] = []
    before = ""
    for text, translated in parts:
        touch = translated and re.search(f"[{UNSPACED}][{CLOSING}]*$", before)
        if touch and re.search(rf"[.!?…][{CLOSING}]*$", made[-1]) and re.match(rf"[{OPENING}]*\w", text):
            made.append(" ")
        made.append(text)
        before = translated
    return "".join(made)


def _some(text: str) -> list[Part]:
    return [Part(text, False)] if text else []
