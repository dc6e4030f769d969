"""`heedful attend`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.text import Text

from heedful import files
from heedful.cli.model import load, say_if_slow, search_of
from heedful.cli.settings import Bundle, Device, SearchFlags, Threads, given
from heedful.cli.standard_input import standard_input
from heedful.cli.terminal import terminal
from heedful.decoding.explanation import Explanation, readable
from heedful.errors import HeedfulError
from heedful.inspection.attention_map import draw_map
from heedful.inspection.attention_page import attention_page
from heedful.inspection.attention_plot import plot_attention


def attend(
    bundle: Bundle,
    text: Annotated[str | None, Parameter(help="What to translate (default: the first line of standard input)")] = None,
    /,
    *,
    show: Annotated[
        str,
        Parameter(
            help="Which attention to show here, counted from 0: cross.1 is a layer's mean, cross.1.0 one of its heads; "
            "encoder.0 and decoder.0 too (default: the one that aligns words)"
        ),
    ] = "",
    without: Annotated[
        tuple[str, ...], Parameter(help="Switch off a head, cross.1.0, or all of a layer, cross.1; repeatable")
    ] = (),
    rank: Annotated[int, Parameter(help="Which of the beam's outputs to look into; 1 = the best")] = 1,
    html: Annotated[Path | None, Parameter(help="Write a web page: one file, all layers and heads")] = None,
    plot: Annotated[Path | None, Parameter(help="Draw all layers and heads into a picture: .png, .svg, .pdf")] = None,
    kind: Annotated[
        Literal["cross", "encoder", "decoder"] | None, Parameter(help="Which attention --plot draws (default: cross)")
    ] = None,
    npz: Annotated[Path | None, Parameter(help="Write the numbers as NumPy arrays, one for each layer")] = None,
    json_: Annotated[bool, Parameter(name="--json", help="Print everything as JSON", negative=())] = False,
    device: Device = "cpu",
    threads: Threads = 0,
    search: Annotated[SearchFlags | None, Parameter(name="*")] = None,
) -> None:
    """Translate a sentence, and show what the model attended to: which source piece for each piece that it wrote.

    Works for every family with attention. In the terminal a row is shaded by its largest weight; --html has all of it.
    """
    if kind and not plot:
        raise HeedfulError(
            "--kind is for the picture: give --plot FILE too; here --show chooses, such as --show cross.1"
        )
    written = [path.resolve() for path in (html, plot, npz) if path]
    if len(set(written)) < len(written):
        raise HeedfulError("--html, --plot and --npz name one file; give each its own")
    translator = load(bundle, device, threads)
    say_if_slow(translator)
    if without:
        translator = translator.without(*without)
    config = search_of(translator, given(search))
    if "n_best" not in given(search) and not config.sample:
        config = config.with_all_outputs()  # for the alternatives of the page
    found = translator.explain(next(standard_input(), "") if text is None else text, config, rank=rank)
    chosen = _chosen(found, show)  # before anything is written: there may be no such head
    page = attention_page(found, without) if html else ""  # too: it may be too long for one
    if plot:
        plot_attention(found, kind or "cross", plot)
    if html:
        files.write_text(html, page)
    if npz:
        with files.replacing(npz) as aside, aside.open("wb") as file:
            np.savez_compressed(
                file,
                source_pieces=np.array(found.source_pieces),
                target_pieces=np.array(found.target_pieces),
                log_probabilities=np.array(found.log_probabilities),
                **found.attention,  # type: ignore[arg-type]
            )
    if json_:
        print(json.dumps({**found.to_table(), "without": without}, ensure_ascii=False))
    else:
        _print(found, *chosen)


def _print(found: Explanation, label: str, weights: np.ndarray | None, rows: list[str], columns: list[str]) -> None:
    console = terminal()
    console.print(Text(found.text, style="bold"))
    line = Text()
    for piece, log_probability in zip(found.target_pieces, found.log_probabilities, strict=True):
        probability = np.exp(log_probability)
        style = "yellow" if probability < 0.5 else "dim"
        line.append(f"{readable(piece)} ").append(f"{probability:.2f}  ", style=style)
    console.print(line)
    console.print(f"\n{label}\n", style="dim")
    if weights is not None:
        console.print(draw_map(weights, columns, rows), soft_wrap=True)


def _chosen(found: Explanation, show: str) -> tuple[str, np.ndarray | None, list[str], list[str]]:
    if not found.attention:
        return "this model attends to nothing: its decoder sees one state of the encoder", None, [], []
    place, head = found.part(show or found.aligner)
    count, (kind, layer) = len(found.attention[place]), place.split(".")
    what = f"head {head}" if head is not None else f"mean of {count} heads" if count > 1 else "its one head"
    label = f"{kind} attention, layer {layer}, {what}: each row looks at the columns"
    return label, found.weights_of(place, head), *found.axes(kind)
