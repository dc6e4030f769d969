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
    return line.isupper() and (words > 1 or (words == 1 and line.rstrip().endswith("!")))
