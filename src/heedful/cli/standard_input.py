"""Standard input as every command reads it."""

import sys
from collections.abc import Iterator

from heedful.text.pairs import decoded_lines


def standard_input() -> Iterator[str]:
    r"""Yield the lines of standard input as `read_lines` does those of a file; only \n ends a line.

    Raises:
        HeedfulError: a line is not UTF-8.
    """
    for line in decoded_lines(sys.stdin.buffer, "standard input"):
        yield (line or "").strip()
