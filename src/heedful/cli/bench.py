"""`heedful bench train` and `heedful bench translate`."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from rich.table import Table

from heedful.cli.model import load, say_if_slow, search_of
from heedful.cli.settings import POSITIVE, Bundle, Device, Json, SearchFlags, Threads, Weights, flags, given
from heedful.cli.terminal import terminal
from heedful.config import read_toml
from heedful.errors import HeedfulError
from heedful.inspection.timing import matrix_peak, peak_memory, time_training, time_translation
from heedful.pipeline import begin
from heedful.recipe import Recipe, build
from heedful.text.pairs import read_lines
from heedful.training.precision import dtype_of

RecipeFlags: Any = flags(Recipe, build())


def train(
    recipe: Annotated[Path, Parameter(help="A recipe (TOML); flags change single settings of it")],
    /,
    *,
    steps: Annotated[int, Parameter(help="Steps to time, after three that are not", validator=POSITIVE)] = 20,
    json_: Json = False,
    settings: Annotated[RecipeFlags | None, Parameter(name="*")] = None,
) -> None:
    """Show where a training step's time goes, on the recipe's own data; no model is kept.

    All settings of `heedful train` are flags here too.
    """
    chosen = build(read_toml(recipe), given(settings), where=str(recipe))
    with TemporaryDirectory() as folder:
        run = begin(chosen, Path(folder))
        accumulate = chosen.batches.accumulate
        timed = time_training(run.model, iter(run.stream()), chosen.training, accumulate=accumulate, steps=steps + 3)
        _, _, _, *found = timed
    phases = {name: sum(getattr(step, name) for step in found) for name in ("data", "forward", "backward", "optimizer")}
    _show(
        phases,
        {"target tokens": sum(step.tokens for step in found), "steps": len(found)},
        sum(step.flops for step in found),
        run.device,
        str(dtype_of(chosen.training.precision, run.device)).removeprefix("torch."),
        json_,
    )


def translate(
    bundle: Bundle,
    /,
    *,
    input: Annotated[Path, Parameter(name=["--input", "-i"], help="Text to translate")],
    lines: Annotated[
        int, Parameter(help="Lines of it to translate; the first 64 once before, untimed", validator=POSITIVE)
    ] = 1000,
    batch: Annotated[int, Parameter(help="Lines translated together", validator=POSITIVE)] = 64,
    json_: Json = False,
    device: Device = "cpu",
    threads: Threads = 0,
    weights: Weights = "float32",
    search: Annotated[SearchFlags | None, Parameter(name="*")] = None,
) -> None:
    """Show where a translation's time goes. All search settings of `heedful translate` are flags here too.

    Compiled steps are taken apart with one thread. In use such a search is one call that Python does not interrupt;
    so the same lines are translated as a whole once more, by one thread and by all.
    """
    translator = load(bundle, device, threads, weights)
    say_if_slow(translator)
    config = search_of(translator, given(search))
    text = [line or "" for line in read_lines(input)][:lines]
    if not text:
        raise HeedfulError(f"{input}: the file is empty; give some lines to translate")
    every, compiled = torch.get_num_threads(), translator.inference.one_thread
    torch.set_num_threads(1 if compiled else every)
    time_translation(translator, text[:64], config, batch)
    found = time_translation(translator, text, config, batch)
    phases = {name: getattr(found, name) for name in ("text", "encode", "step", "select", "search")}
    counted = {"sentences": found.sentences, "target tokens": found.tokens}
    more: dict[str, float] = {}
    for workers in sorted({1, every}) if compiled else ():
        began = time.perf_counter()
        for _ in translator.translate(text, config, batch=batch, workers=workers):
            pass
        threads_used = "1 thread" if workers == 1 else f"{workers} threads"
        more[f"sentences a second as a whole, {threads_used}"] = len(text) / (time.perf_counter() - began)
    _show(phases, counted, found.flops, translator.device, weights, json_, more)


def _show(
    phases: dict[str, float],
    counted: dict[str, int],
    flops: int,
    device: torch.device,
    precision: str,
    as_json: bool,
    more: dict[str, float] | None = None,
) -> None:
    seconds, memory = sum(phases.values()), peak_memory(device)  # before matrices are measured, which have their own
    measured = "float32" if precision == "int8" else precision  # torch has no product of 8 bits to measure with
    peak = matrix_peak(device, getattr(torch, measured))
    figures = {
        "seconds": phases,
        **{f"{name} a second": count / seconds for name, count in counted.items()},
        "GFLOP/s": flops / seconds / 1e9,
        f"matrix peak in {measured}, GFLOP/s": peak / 1e9,
        "share of the peak, %": 100 * flops / seconds / peak,
        "peak memory, MB": memory / 1e6,
        "precision": precision,
        "threads": torch.get_num_threads(),
        **(more or {}),
    }
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    for name, taken in phases.items():
        table.add_row(name, f"{taken:.2f} s", f"{100 * taken / seconds:.0f} %")
    table.add_row("all", f"[bold]{seconds:.2f} s[/]", "")
    table.add_section()
    for name, figure in figures.items():
        if isinstance(figure, float):
            table.add_row(name, f"{figure:,.1f}")
        elif not isinstance(figure, dict):
            table.add_row(name, str(figure))
    terminal().print(table)
