"""`heedful train`."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from heedful.cli.display import show
from heedful.cli.settings import flags, given
from heedful.config import read_toml
from heedful.errors import HeedfulError
from heedful.pipeline import Event, resume, run
from heedful.recipe import Recipe, build
from heedful.training.loop import Evaluation, Step
from heedful.training.processes import join, rank, world_size

SAME_WISH = 1.0  # seconds
STOPPING = b"\nheedful: stopping once a step is done, and saving; once more ends at once\n"

RecipeFlags: Any = flags(Recipe, build())


def train(
    recipe: Annotated[Path | None, Parameter(help="A recipe (TOML); flags change single settings of it")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Model folder to write (default: runs/ and the recipe's name)")] = None,
    resume_from: Annotated[Path | None, Parameter(name="--resume", help="Go on with a stopped run")] = None,
    tensorboard: Annotated[Path | None, Parameter(help="Also write TensorBoard event files into this folder")] = None,
    settings: Annotated[RecipeFlags | None, Parameter(name="*")] = None,
) -> None:
    """Train a model on pairs of text: from raw text to a model folder, in one go.

    Data may be two aligned files (--source, --target) or one file of pairs (--pairs); .gz and .zst are read as they
    are. Ctrl-C saves and stops, with status 130; --resume goes on, as if nothing had been, on a processor to the last
    bit.
    """
    changes = given(settings)
    join()  # before anything that can be wrong on one machine alone: the others would wait for it for hours
    with _graceful() as stopping:
        if resume_from is not None:
            if recipe or changes or out:
                raise HeedfulError(
                    f"--resume takes nothing else: the run goes on with {resume_from / 'recipe.toml'}; edit that to "
                    f"train longer (training.steps), or train another model from its weights: --start-from "
                    f"{shlex.quote(str(resume_from))} --out NEW"
                )
            folder, events = resume_from, resume(resume_from, stopping)
        else:
            if recipe and recipe.suffix != ".toml" and not recipe.exists():
                raise HeedfulError(
                    f"{recipe}: no such recipe; a flag with several values is repeated (--data.languages en "
                    "--data.languages de), and a yes/no flag stands alone (--model.rotary, --model.no-rotary)"
                )
            table = read_toml(recipe) if recipe else {}
            chosen = build(table, changes, where=str(recipe or "flags"))
            folder = out or Path("runs") / (recipe.stem if recipe else "model")
            events = run(chosen, folder, stopping)
        if rank() != 0:  # of several, the first one speaks
            for _ in events:
                pass
            return
        finished = show(_recorded(events, tensorboard) if tensorboard else events, folder)
    if not finished and world_size() == 1:  # so that a script does not go on with half a model; torchrun would complain
        sys.exit(130)


@contextmanager
def _graceful() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, TERM or HUP into a wish to stop after this step; a second one, later, ends at once.

    Not one in the same second: under torchrun a manager's TERM to all processes arrives from torchrun too.
    """
    first: float | None = None

    def ask(_number: int, _frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            if rank() == 0:
                with suppress(OSError):  # who reads it may have got the signal too
                    os.write(2, STOPPING)  # not print: the signal may have come in the middle of one
        if time.monotonic() - first > SAME_WISH:
            raise KeyboardInterrupt

    heard = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup has it ignored
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: first is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _recorded(events: Iterator[Event], folder: Path) -> Iterator[Event]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise HeedfulError("--tensorboard needs the extra: pip install 'heedful[tensorboard]'") from None
    writer = SummaryWriter(str(folder))
    try:
        for event in events:
            for name, value in _scalars(event).items():
                writer.add_scalar(name, value, getattr(event, "step", 0))
            yield event
    finally:
        writer.close()


def _scalars(event: Event) -> dict[str, float]:
    if isinstance(event, Step):
        return {
            "training/loss": event.loss,
            "training/rate": event.rate,
            "training/tokens_per_second": event.tokens_per_second,
        }
    if isinstance(event, Evaluation):
        return {f"development/{name}": value for name, value in event.scores.items()}
    return {}
