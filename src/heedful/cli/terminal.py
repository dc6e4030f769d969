"""The terminal as every command writes to it."""

from rich.console import Console


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # as `print` does: rich's own would end the process with 1, as if something had failed


def terminal(*, stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, which takes ":100:" for text and not for a picture."""
    return _Terminal(stderr=stderr, highlight=False, emoji=False)
