"""What a training run shows: a live line and calm tables on a terminal, plain lines elsewhere."""

import shlex
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from heedful.cli.terminal import is_live, terminal
from heedful.pipeline import Event, Finished, Prepared
from heedful.training.loop import Ended, Evaluation, Notice, Saved, Step
from heedful.training.processes import world_size

PLAIN_SECONDS = 10.0  # between two lines where the output is not a terminal


def show(events: Iterable[Event], folder: Path) -> bool:
    """Show the events of a run as they come, on standard error; return whether it came to its end.

    The run goes on where they can be shown no more.
    """
    console = terminal(lasting=True)
    display = _Live(console, folder) if is_live(console) else _Plain(console, folder)
    event: Event | None = None
    with display:
        for event in events:
            display.show(event)
    return isinstance(event, Finished)


class _Plain:
    """One line now and then: for logs and pipes."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        self.last_line, self.last_score = 0.0, ""
        self.speed, self.seconds_a_step, self.at = 0.0, 0.0, time.monotonic()
        self.steps, self.aside = 0, 0.0  # done here, and the seconds between them: evaluations, saving

    def __enter__(self) -> "_Plain":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, (Evaluation, Saved)):
            self._measure_aside()
        match event:
            case Prepared():
                self.console.print(_report(event, self.folder))
                self.begin(event)
            case Step():
                self._measure(event)
                self.step(event)
            case Evaluation():
                self.last_score = f"BLEU {event.scores['bleu']:.1f}" if "bleu" in event.scores else ""
                mark = "  best so far" if event.best else ""
                self.say(f"step {event.step:,}  development: {_scores(event.scores)}{mark}")
            case Notice():
                self.console.print(f"[yellow]note[/]  {escape(event.message)}", soft_wrap=True)
            case Saved():
                pass
            case Ended() if event.reason == "interrupted":
                folder = escape(shlex.quote(str(self.folder)))
                how = f"under torchrun, with {world_size()} processes as now" if world_size() > 1 else "with"
                self.say(f"stopped at step {event.step:,}; saved. Go on {how}: heedful train --resume {folder}")
            case Ended():
                why = "no better score for a while" if event.reason == "patience" else "all steps done"
                self.say(f"{why}: step {event.step:,}, {_clock(event.seconds)} of training")
            case Finished():
                self._finished(event)

    def begin(self, prepared: Prepared) -> None:
        """Prepare for the steps."""
        self.at, self.seconds_a_step = time.monotonic(), prepared.seconds / prepared.steps

    def step(self, step: Step) -> None:
        """Show a step."""
        now = time.monotonic()
        if now - self.last_line >= PLAIN_SECONDS or step.step in (1, step.steps):
            self.last_line = now
            self.say(f"step {step.step:,}/{step.steps:,}  {self.columns(step)}")

    def say(self, line: str) -> None:
        """Print one line, unwrapped."""
        self.console.print(line, soft_wrap=True)

    def columns(self, step: Step) -> str:
        """Return loss, speed, learning rate, time left and last score."""
        left = _clock((step.steps - step.step) * (self.seconds_a_step + self.aside / max(self.steps, 1)))
        return f"loss {step.loss:.3f}  {self.speed:,.0f} tokens/s  rate {step.rate:.1e}  {left} left  {self.last_score}"

    def _measure(self, step: Step) -> None:
        """Smooth the speed, and the time of a step."""
        now = time.monotonic()
        seconds, self.at = now - self.at, now
        self.steps += 1
        self.speed = self.speed or step.tokens_per_second
        self.speed += 0.05 * (step.tokens_per_second - self.speed)
        self.seconds_a_step += 0.05 * (seconds - self.seconds_a_step)

    def _measure_aside(self) -> None:
        """Count what was no step apart: in a moving average one evaluation would stand for hours that never come."""
        now = time.monotonic()
        self.aside, self.at = self.aside + now - self.at, now

    def _finished(self, event: Finished) -> None:
        self.console.print()
        if event.scores:
            self.say(f"development scores of the final weights: [bold]{_scores(event.scores)}[/]")
        self.say(f"model folder: [bold]{escape(str(event.folder))}[/], after {_clock(event.seconds)} in all")
        self.say(f"translate with it: heedful translate {escape(shlex.quote(str(event.folder)))} -i input.txt")


class _Live(_Plain):
    """A progress bar that stays at the bottom while lines scroll above it."""

    def __init__(self, console: Console, folder: Path) -> None:
        super().__init__(console, folder)
        self.progress = Progress(
            TextColumn("[bold]{task.completed:,}[/]/{task.total:,}"),
            BarColumn(bar_width=16),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=1, visible=False)

    def __enter__(self) -> "_Live":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def begin(self, prepared: Prepared) -> None:
        """Show the bar."""
        super().begin(prepared)
        self.progress.update(self.task, total=prepared.steps, visible=True)

    def step(self, step: Step) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=step.step, description=self.columns(step))
        if step.step == step.steps:
            self.progress.update(self.task, visible=False)


def _report(prepared: Prepared, folder: Path) -> Table:
    report = prepared.report
    table = Table(
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
        title="What there is to learn from",
        title_justify="left",
    )
    table.add_column(style="dim")
    table.add_column()
    added = f", {report.added:,} altered copies and words added" if report.added else ""
    table.add_row("pairs", f"{report.read:,} read{added}, {report.kept:,} kept")
    if report.dropped:
        table.add_row("left out", ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.dropped.items())))
    if report.held_out:
        text = f"{report.held_out:,} pairs held out, disjoint on both sides"
        shared = f"; {report.shared_with_held_out:,} pairs that share a sentence with them left out"
        table.add_row("development", text + (shared if report.shared_with_held_out else ""))
    else:
        leak = f"; {report.leaked:,} training pairs share a sentence with it" if report.leaked else ", disjoint"
        table.add_row("development", f"{report.development:,} pairs given{leak}" if report.development else "none")
    for side, (mean, median, longest) in report.lengths.items():
        table.add_row(f"{side} length", f"mean {mean:.1f}, median {median:.0f}, longest {longest:.0f} tokens")
    source, target = prepared.sizes
    unknown = f"{report.unknown:,} unknown" if report.unknown else "nothing unknown"
    table.add_row("vocabulary", f"{source:,} source and {target:,} target tokens, {unknown}")
    table.add_row("batches", f"{prepared.batches_in_epoch:,} an epoch, {100 * prepared.padding:.1f} % padding")
    table.add_row("settings", f"preset {prepared.preset}; all of them in {escape(str(folder / 'recipe.toml'))}")
    table.add_row("model", f"{prepared.parameters:,} parameters, {prepared.precision} on {prepared.device}")
    steps = f"{prepared.steps:,} steps, {prepared.epochs:,.1f} epochs"
    table.add_row("time", f"about {_clock(prepared.seconds)} for {steps}, evaluations not counted")
    return table


def _scores(scores: dict[str, float]) -> str:
    names = {"bleu": "BLEU", "chrf": "chrF", "exact": "exact %"}
    return "  ".join(f"{names.get(name, name)} {value:.2f}" for name, value in scores.items())


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
