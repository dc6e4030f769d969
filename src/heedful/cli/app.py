"""The program `heedful`: its commands, and how it ends when something goes wrong."""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, UnusedCliTokensError

import heedful
from heedful import native
from heedful.cli.terminal import terminal
from heedful.errors import HeedfulError

# how torch says so, which has no exception of its own for a processor
NO_MEMORY = "allocate memory|out of memory|not enough memory|bad_alloc"
COMMANDS = {
    "train": "Train a model on pairs of text.",
    "translate": "Translate lines of text with a model.",
    "score": "Score given translations with a model.",
    "evaluate": "Measure a model: BLEU, chrF, TER, or error rates.",
    "attend": "Show what a model attends to while it translates a sentence.",
    "serve": "Serve models over HTTP, with a page to look inside.",
    "align": "Find which attention head aligns words, and keep it in the model.",
    "average": "Average checkpoints into a new model.",
    "configure": "Change a finished model's languages and search settings.",
    "ensemble": "Put models together into one: the mean of their probabilities.",
    "info": "Describe a model: parameters, cost, provenance.",
    "demo": "Translate, then learn to pronounce English in three minutes.",
    "lab list": "List the experiments on the paper's claims.",
    "lab run": "Run an experiment, or all of them.",
    "lab report": "Write the page of the experiments that were run.",
    "bench train": "Show where a training step's time goes, on a recipe's own data.",
    "bench translate": "Show where a translation's time goes.",
}
GROUPS = {
    "lab": "The paper's claims as experiments: question, figure, table, verdict.",
    "bench": "Show where the time goes, in training and in translating.",
}


def make_app() -> App:
    """Return the application; each command's module is imported only when the command runs."""
    app = App(
        name="heedful",
        help="The Transformer of [italic]Attention Is All You Need[/], trained on your own pairs of text.",
        help_epilogue="Begin with `heedful translate en-de`, or `heedful train --preset fast --pairs my.tsv`.",
        console=terminal(paged=True),
        help_format="rich",  # the default, markdown, takes a tenth of a second to import
        version=lambda: heedful.__version__,
        result_action="return_value",  # else it ends the process itself, before what is below has its say
        suppress_keyboard_interrupt=False,
    )
    groups = {name: App(name=name, help=help, help_epilogue="") for name, help in GROUPS.items()}
    for name, help in COMMANDS.items():
        group, _, command = name.rpartition(" ")
        groups.get(group, app).command(f"heedful.cli.{group or command}:{command}", name=command, help=help)
    for group_app in groups.values():
        app.command(group_app)
    return app


def main() -> NoReturn:
    """Run the command line and end the process."""
    _open_streams()
    _prepare(sys.argv)
    # the same everywhere: Windows would write what it can in a code page, and its own line ends
    # and a name of a file that is no UTF-8 shall not fail when all is done
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]
    try:
        make_app()(sys.argv[1:], exit_on_error=False, print_error=False)
        status = _flush()
    except UnusedCliTokensError as error:
        left = " ".join(error.unused_tokens or ())
        remedy = (
            "a file goes with its flag (--input FILE), a flag with several values is repeated (--languages en "
            "--languages de), a yes/no flag stands alone (--model.rotary, --model.no-rotary), and text with spaces "
            "wants quotes"
        )
        status = _say(f"nothing takes {left!r} here; {remedy}", 2)
    except CycloptsError as error:
        status = _say(" ".join(str(error).split()), 2)
    except HeedfulError as error:
        status = _say(str(error), 2)
    except BrokenPipeError:
        status = _silence()
    except KeyboardInterrupt:
        status = _say("interrupted", 130)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search(NO_MEMORY, str(error)):
            status = _show_where()
        else:
            status = _say("not enough memory; try a smaller --batch, --beam or batches.tokens, or shorter lines", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _say(
            f"{where}{error.strerror or error}; look at its path and permissions, or make room on its disk", 2
        )
    except Exception:
        status = _show_where()
    _end(status)


def _open_streams() -> None:
    """Open what a daemon may have closed, before a model's file takes its number and is written to as if it were it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # each gets the lowest number that is free, which is its own
            stream = Path(os.devnull).open(mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - it stays
            setattr(sys, name, stream)


def _prepare(arguments: list[str]) -> None:
    """Begin to compile before all else is imported; not for what is answered at once."""
    if {"--help", "-h", "--new-key"} & set(arguments):
        return
    if arguments[1:2] in (["translate"], ["attend"], ["serve"]):
        native.prepare("search")
    elif arguments[1:2] in (["train"], ["demo"], ["bench"]):
        native.prepare("training", "search")


def _end(status: int) -> NoReturn:
    """End the process; one that failed among several does not take leave of the others, who may wait for it."""
    try:
        sys.stdout.flush()
    except OSError:  # it was said already, or nobody is there to hear it
        _silence()
    distributed = sys.modules.get("torch.distributed")
    if status and distributed and distributed.is_available() and distributed.is_initialized():
        os._exit(status)  # torchrun then ends them
    sys.exit(status)


def _flush() -> int:
    sys.stdout.flush()
    return 0


def _say(message: str, status: int) -> int:
    print(f"heedful: {message}", file=sys.stderr, flush=True)
    return status


def _show_where() -> int:
    """A mistake of ours: with its traceback, as Python ends by itself."""
    traceback.print_exc()
    return 1


def _silence() -> int:
    """Whoever read our output has left: end as a shell tool does, without another word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
