"""Lines in capitals: a model that knows lower case needs no second language for them."""

import re
import unicodedata

TAG = re.compile(r"<[^<>\s]+> ")
WORD = re.compile(r"[^\W\d_]{2,}")


def is_shouted(line: str) -> bool:
    """Return whether a line is all in capitals on purpose: more than one word, or one and an exclamation mark.

    A word alone in capitals is likely an abbreviation.

    >>> [is_shouted(line) for line in ("WHERE ARE YOU?", "STOP!", "NASA", "I am OK.", "42!")]
    [True, True, False, False, False]
    """
    words = len(WORD.findall(line))
    return in_capitals(line) and (words > 1 or (words == 1 and line.rstrip().endswith("!")))


def split_tag(line: str) -> tuple[str, str]:
    """Return the tag in front of a line, such as "<2de> ", and the rest: capitals are a matter of the rest.

    >>> [split_tag(line) for line in ("<2de> WHERE ARE YOU?", "WHERE ARE YOU?")]
    [('<2de> ', 'WHERE ARE YOU?'), ('', 'WHERE ARE YOU?')]
    """
    tag = TAG.match(line)
    return (tag.group(), line[tag.end() :]) if tag else ("", line)


def in_capitals(text: str) -> bool:
    """Return whether all letters of a text are capitals, and there is one at least.

    German has a capital of ß, and hardly anybody writes it. Letters of a script that has no capitals are none.

    >>> [in_capitals(text) for text in ("NASA", "DIE STRAßE", "Straße", "42", "他在 NASA 工作。")]
    [True, True, False, False, False]
    """
    return text.replace("ß", "ẞ").isupper() and not any(unicodedata.category(sign) == "Lo" for sign in text)
