"""Standard streams as every command uses them."""

import sys
from collections.abc import Iterator

from rich.console import Console

from heedful.text.pairs import decoded_lines


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # as `print` does: rich's own would end the process with 1, as if something had failed


def terminal(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, which takes ":100:" for text and not for a picture."""
    return _Terminal(stderr=stderr, highlight=False, emoji=False)


def standard_input() -> Iterator[str]:
    r"""Yield the lines of standard input as `read_lines` does those of a file; only \n ends a line.

    Raises:
        HeedfulError: a line is not UTF-8.
    """
    for line in decoded_lines(sys.stdin.buffer, "standard input"):
        yield (line or "").strip()
