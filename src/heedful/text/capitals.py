"""Lines in capitals: a model that knows lower case needs no second language for them."""

import re

WORD = re.compile(r"[^\W\d_]{2,}")


def is_shouted(line: str) -> bool:
    """Return whether a line is all in capitals on purpose: more than one word, or one and an exclamation mark.

    A word alone in capitals is likely an abbreviation.

    >>> [is_shouted(line) for line in ("WHERE ARE YOU?", "STOP!", "NASA", "I am OK.", "42!")]
    [True, True, False, False, False]
    """
    words = len(WORD.findall(line))
    return in_capitals(line) and (words > 1 or (words == 1 and line.rstrip().endswith("!")))


def in_capitals(text: str) -> bool:
    """Return whether no letter of a text is in lower case, and one at least is a capital.

    German has a capital of ß, and hardly anybody writes it.

    >>> [in_capitals(text) for text in ("NASA", "DIE STRAßE", "Straße", "42")]
    [True, True, False, False]
    """
    return text.replace("ß", "ẞ").isupper()
