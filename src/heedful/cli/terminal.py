"""The terminal as every command writes to it."""

import os
from pathlib import Path

from rich.console import Console

WIDE = 160  # columns of what is not a terminal
STANDARD_OUTPUT = Path("/dev/stdout"), Path("/dev/fd/1"), Path("/proc/self/fd/1")


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # as `print` does: rich's own would end the process with 1, as if something had failed


def terminal(*, stderr: bool = False, paged: bool = False) -> Console:
    """Return a console on standard output or standard error, which takes ":100:" for text and not for a picture.

    A file or a pipe is WIDE, unless COLUMNS says otherwise; one that is `paged`, which somebody reads through a pager,
    is as wide as the terminal.
    """
    console = _Terminal(stderr=stderr, highlight=False, emoji=False)
    if not (console.is_terminal or paged or "COLUMNS" in os.environ):
        console.width = WIDE
    return console
