"""Where translations are written: standard output, or a file whose work of hours is not lost."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from heedful import files
from heedful.errors import HeedfulError
from heedful.text.pairs import COMPRESSION


@contextmanager
def writing(path: Path | None) -> Iterator[IO[str]]:
    """Yield standard output, or a file beside `path` that takes its place at the end.

    What was written before an error, or a signal that ends the process, is kept as PATH.partial, and said.

    Raises:
        HeedfulError: standard output is closed, or the file's name ends as if it were compressed.
    """
    if path is None:
        if getattr(sys.stdout, "name", "") == os.devnull:  # it was none: see app.py
            raise HeedfulError("standard output is closed; give --output FILE")
        yield sys.stdout
    else:
        if path.suffix.lower() in COMPRESSION:
            raise HeedfulError(f"{path}: written as plain text; leave {path.suffix} out, and compress it afterwards")
        kept: list[Path] = []
        try:
            with (
                _ended_by_signals(),
                files.replacing(path, kept) as aside,
                aside.open("w", encoding="utf-8", newline="\n") as file,
            ):
                yield file
        finally:
            for place in kept:
                print(f"heedful: what was translated so far is in {place}", file=sys.stderr)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let TERM (a cluster's manager) and HUP (a closed terminal) end as an exception does, so that work is kept."""
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no HUP
    ours = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]  # nohup lets HUP be ignored
    for number in ours:
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
