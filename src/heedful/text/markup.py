"""Tags in a text: some stand between what is translated, others go with the words that they stand around.

<b>, <a href> and the like belong to words. The sentence is translated without them, and each word of the translation
gets the tags of the word that it is aligned with; so they are always nested well, and none is lost.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

END_OF_LINE = r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]"
BLANK_LINES = re.compile(rf"((?>\r\n|{END_OF_LINE})[ \t]*(?>\r\n|{END_OF_LINE})\s*)")  # in markup one end is a space
# What follows the name of a tag: > may stand in a value in quotes, whose length is bounded, as some never close.
ATTRIBUTES = r"""(?:(?>[^<>=]+|=\s*"[^"]{0,4096}"|=\s*'[^']{0,4096}'|=)*(?=>)|[^<>]*)"""
# A tag, a comment, an instruction (<?xml ?>, <?php ?>, <% %>), or all of an element whose content is not prose: code,
# say, or an address in pieces. Comments, scripts and PHP end where they first can, or never.
MARKUP = re.compile(
    r"""
    <!--.*?(?:-->|\Z)
  | <\?(?:php\b|=).*?(?:\?>|\Z)
  | <\?(?:(?!<\?).)*?\?>
  | <%(?:(?!<%).)*?%>
  | <(script|style|textarea)(?![\w:.-])ATTRIBUTES(?<!/)>.*?(?:</\1\s*>|\Z)
  | <(code|pre)(?![\w:.-])ATTRIBUTES>(?:(?!<\2\b).)*?</\2\s*>
  | <a\sATTRIBUTES>(?:</?span\b[^<>]*>)+(?:https?://|www\.)(?:[^\s<>]|</?span\b[^<>]*>)*</a>
  | </?[a-zA-Z!]ATTRIBUTES>
    """.replace("ATTRIBUTES", ATTRIBUTES),
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
INLINE = re.compile(
    r"</?(abbr|a|bdi|big|b|cite|del|dfn|em|font|ins|i|kbd|label|mark|q|samp|small|span|strong|sub|sup|s|time|tt|u|var)"
    rf"(?:\s{ATTRIBUTES})?>",
    re.IGNORECASE,
)
MARKS = re.compile(r"[.,:!?…]+$")
NONE = re.compile(r"(?!)")  # the inline tags of a text without markup


class Tag(NamedTuple):
    """A tag, and where it stood in the text that is left without tags."""

    at: int
    text: str


class Span(NamedTuple):
    """An element around some words, [first, last)."""

    first: int
    last: int
    opening: str
    closing: str
    marks: bool  # whether its own last character is a mark such as a full stop


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Cut a text at the tags that end a sentence; yield each piece and whether it is prose, inline tags in it."""
    end = 0
    for found in MARKUP.finditer(text):
        if INLINE.fullmatch(found[0]) and not BLANK_LINES.search(found[0]):  # at which the text is cut
            continue
        yield text[end : found.start()], True
        yield found[0], False
        end = found.end()
    yield text[end:], True


def place(tags: Sequence[Tag], source: str, target: str, links: Iterable[tuple[int, int]]) -> str:
    """Return `target`, escaped, with the tags of `source` around the words that are aligned with theirs.

    Args:
        tags: those that stood in the source, in order
        source, target: a sentence without tags and its translation
        links: (source word, target word), words being what spaces (U+0020) separate

    >>> place([Tag(4, "<b>"), Tag(7, "</b>")], "The cat sleeps.", "Es schläft die Katze.", [(2, 1), (0, 2), (1, 3)])
    'Es schläft die <b>Katze</b>.'
    """
    spans, alone = _spans(tags, source)
    looks = {t: s for s, t in links}
    words = re.split(r"( +)", target)  # words and the spaces between them; other white space is part of a word
    made: list[str] = []
    now: list[Span] = []  # the elements that are open, the outermost first
    placed = set[int]()
    for number, word in enumerate(words[::2]):
        source_word = looks.get(number)
        # a word that is aligned with nothing stands where its neighbour before it does
        wanted = now if source_word is None else [span for span in spans if span.first <= source_word < span.last]
        same = _common(now, wanted)
        _close(made, now[same:])
        made += words[2 * number - 1 : 2 * number]
        made += [tag for first, tag in alone if first == source_word]
        alone = [one for one in alone if one[0] != source_word]
        made += [span.opening for span in wanted[same:]]
        made.append(html.escape(word, quote=False))
        placed.update(map(id, wanted))
        now = wanted
    _close(made, now)
    # no word is aligned with these; nothing is dropped
    made += [span.opening + span.closing for span in spans if id(span) not in placed]
    return "".join([*made, *(tag for _, tag in alone)])


def _close(made: list[str], spans: Sequence[Span]) -> None:
    """Close elements after the last word, before a mark behind it that was not theirs."""
    marks = MARKS.search(made[-1]) if made and spans and not any(span.marks for span in spans) else None
    if marks:
        made[-1:] = [made[-1][: marks.start()], *(span.closing for span in reversed(spans)), marks[0]]
    else:
        made += [span.closing for span in reversed(spans)]


def _spans(tags: Sequence[Tag], source: str) -> tuple[list[Span], list[tuple[int, str]]]:
    """Pair opening tags with their closing ones; return these, and the rest with the word that each stands before."""
    spans: list[tuple[int, Span]] = []
    alone: list[tuple[int, int, str]] = []
    waiting: list[tuple[int, Tag, str]] = []
    opened_by_name = Counter[str]()  # of those that wait, so that none is sought in vain: a page may be all tags
    for number, tag in enumerate(tags):
        name = _name(tag)
        if not tag.text.startswith("</"):
            waiting.append((number, tag, name))
            opened_by_name[name] += 1
            continue
        if not opened_by_name[name]:
            alone.append((number, _words_before(source, tag.at), tag.text))
            continue
        while True:
            opened, opening, its_name = waiting.pop()
            opened_by_name[its_name] -= 1
            if its_name == name:
                break
            alone.append((opened, _word_at(source, opening.at), opening.text))
        first, last = _word_at(source, opening.at), _words_before(source, tag.at)
        if first >= last:  # an icon, say: it has no words to go with
            space = " " if source[tag.at : tag.at + 1] == " " else ""
            alone += [(opened, first, opening.text), (number, first, tag.text + space)]
            continue
        marks = bool(MARKS.search(source[opening.at : tag.at]))
        spans.append((opened, Span(first, last, opening.text, tag.text, marks)))
    alone += [(n, _word_at(source, left.at), left.text) for n, left, _ in waiting]
    return [span for _, span in sorted(spans)], [(first, text) for _, first, text in sorted(alone)]


def _common(one: Sequence[Span], other: Sequence[Span]) -> int:
    """Return how many elements both have in common, from the outermost on."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a is not b), min(len(one), len(other)))


def _name(tag: Tag) -> str:
    found = INLINE.match(tag.text)
    return found[1].lower() if found else ""


def _words_before(source: str, at: int) -> int:
    """Return how many words begin before a place."""
    return len(list(filter(None, source[:at].split(" "))))


def _word_at(source: str, at: int) -> int:
    """Return the number of the word at a place, or of the next one."""
    within = 0 < at < len(source) and source[at - 1] != " " and source[at] != " "
    return _words_before(source, at) - within
