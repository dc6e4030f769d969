"""The terminal as every command writes to it."""

import errno
import os
import sys
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console

WIDE = 160  # columns of what is not a terminal
GONE = {errno.EPIPE, errno.EIO, errno.EINVAL}  # what a closed pipe and a closed terminal say; the last one on Windows
STANDARD_OUTPUT = Path("/dev/stdout"), Path("/dev/fd/1"), Path("/proc/self/fd/1")


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # as `print` does: rich's own would end the process with 1, as if something had failed


class _Lasting:
    """Standard error for hours of work: what cannot be written, goes nowhere, and all of it once its reader is gone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, if it can be written."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._leave(error)
        return len(text)

    def flush(self) -> None:
        """Write what waits, if it can be written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        if error.errno in GONE:  # and not a disk that is full, which may have room again
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), self._stream.fileno()
            )  # what still waits would fail at the end, too


def terminal(*, stderr: bool = False, paged: bool = False, lasting: bool = False) -> Console:
    """Return a console on standard output or standard error, which takes ":100:" for text and not for a picture.

    A file or a pipe is WIDE, unless COLUMNS says otherwise; one that is `paged`, which somebody reads through a pager,
    is as wide as the terminal. A `lasting` one is standard error, and work goes on though its reader leaves: a closed
    terminal, a pipe whose other end got the Ctrl-C too.
    """
    file = cast(IO[str], _Lasting(sys.stderr)) if lasting else None
    console = _Terminal(file=file, stderr=stderr, highlight=False, emoji=False)
    if not (console.is_terminal or paged or "COLUMNS" in os.environ):
        console.width = WIDE
    return console


def is_live(console: Console) -> bool:
    """Whether lines can be drawn over: not in a file or a pipe, nor in an editor's shell (TERM=dumb)."""
    return console.is_terminal and not console.is_dumb_terminal
