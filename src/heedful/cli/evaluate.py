"""`heedful evaluate`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from heedful import files
from heedful.cli.settings import Device, Threads, Weights, flags, given
from heedful.config import from_table
from heedful.errors import HeedfulError
from heedful.evaluation.error_rates import error_rates, gather_references
from heedful.evaluation.scores import ScoreConfig, compare, score_corpus
from heedful.text.corpus import read_lines

ScoreFlags: Any = flags(ScoreConfig)


def evaluate(
    bundle: Annotated[Path | None, Parameter(help="Model folder; or give --outputs")] = None,
    /,
    *,
    source: Annotated[Path | None, Parameter(help="Text to translate")] = None,
    reference: Annotated[tuple[Path, ...], Parameter(help="Reference translations; repeatable", negative=())],
    outputs: Annotated[Path | None, Parameter(help="Score this text instead of translating")] = None,
    against: Annotated[Path | None, Parameter(help="A second model folder: paired bootstrap between the two")] = None,
    symbols: Annotated[
        bool, Parameter(help="Word and symbol error rates, any of several references", negative=())
    ] = False,
    save: Annotated[Path | None, Parameter(help="Write the translations here")] = None,
    beam: Annotated[int | None, Parameter(help="Beam (default: the model's own)")] = None,
    json_: Annotated[bool, Parameter(name="--json", help="Print JSON", negative=())] = False,
    device: Device = "cpu",
    threads: Threads = 0,
    weights: Weights = "float32",
    scoring: Annotated[ScoreFlags | None, Parameter(name="*")] = None,
) -> None:
    """Translate a test set and score it: sacreBLEU's BLEU, chrF and TER with their signatures.

    With --symbols, equal lines of the source are one input, and each of their references counts as right.
    """
    config = from_table(ScoreConfig, given(scoring), "evaluate")
    references = [_lines(path) for path in reference]
    if symbols:
        _print_error_rates(bundle, source, references, outputs, save, beam, device, threads, weights, json_)
        return
    found = _outputs(bundle, source, outputs, beam, device, threads, weights)
    if save:
        files.write_text(save, "".join(line + "\n" for line in found))
    scores = score_corpus(found, references, config)
    rows = [
        {"metric": s.name, "score": round(s.value, 3), "details": s.details, "signature": s.signature} for s in scores
    ]
    if against:
        other = _outputs(against, source, None, beam, device, threads, weights)
        rows += [
            {
                "metric": f"{c.name}, {bundle or outputs} against {against}",
                "score": f"{c.first:.2f} : {c.second:.2f}",
                "details": f"p = {c.p_value:.4f}",
                "signature": c.signature,
            }
            for c in compare(found, other, references, config)
        ]
    _print(rows, json_)


def _print_error_rates(
    bundle: Path | None,
    source: Path | None,
    references: list[list[str]],
    outputs: Path | None,
    save: Path | None,
    beam: int | None,
    device: str,
    threads: int,
    weights: Weights,
    as_json: bool,
) -> None:
    if source is None:
        raise HeedfulError("--symbols needs --source, to tell which references belong to the same input")
    lines = _lines(source)
    possible: dict[str, list[str]] = {}
    for reference in references:
        if len(reference) != len(lines):
            raise HeedfulError(f"{source} has {len(lines):,} lines and a reference {len(reference):,}; they must match")
        for line, ways in gather_references(lines, reference).items():
            possible.setdefault(line, []).extend(ways)
    inputs = list(possible)
    if outputs:
        given_outputs = _lines(outputs)
        if len(given_outputs) != len(lines):
            raise HeedfulError(
                f"{source} has {len(lines):,} lines and {outputs} {len(given_outputs):,}; they must match"
            )
        given_lines = dict(zip(lines, given_outputs, strict=True))
        found = [given_lines[line] for line in inputs]
    else:
        found = _translate(bundle, inputs, beam, device, threads, weights)
    if save:
        files.write_text(save, "".join(line + "\n" for line in found))
    rates = error_rates(found, [possible[line] for line in inputs])
    details = f"{rates.inputs:,} inputs, any of several references"
    _print(
        [
            {"metric": "word error rate", "score": round(rates.word, 3), "details": details, "signature": ""},
            {
                "metric": "symbol error rate",
                "score": round(rates.symbol, 3),
                "details": details,
                "signature": "",
            },
        ],
        as_json,
    )


def _outputs(
    bundle: Path | None,
    source: Path | None,
    outputs: Path | None,
    beam: int | None,
    device: str,
    threads: int,
    weights: Weights,
) -> list[str]:
    if outputs:
        return _lines(outputs)
    if source is None:
        raise HeedfulError("evaluate needs --source to translate, or --outputs that are translated already")
    return _translate(bundle, _lines(source), beam, device, threads, weights)


def _translate(
    bundle: Path | None, lines: list[str], beam: int | None, device: str, threads: int, weights: Weights
) -> list[str]:
    from dataclasses import replace

    from heedful.cli.translate import load

    if bundle is None:
        raise HeedfulError("evaluate needs a model folder, or --outputs that are translated already")
    translator = load(bundle, device, threads, weights)
    config = replace(translator.search, beam=beam or translator.search.beam)
    return [found[0].text for found in translator.translate(_counted(lines), config)]


def _counted(lines: list[str]) -> Iterator[str]:
    print(f"translating {len(lines):,} lines", file=sys.stderr)
    yield from lines


def _lines(path: Path) -> list[str]:
    return [line or "" for line in read_lines(path)]


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        score = row["score"]
        shown = f"{score:.2f}" if isinstance(score, float) else score
        table.add_row(row["metric"], shown, row["details"].removeprefix(f"{row['metric']} = {shown} "))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    for row in rows:
        if row["signature"]:
            console.print(f"[dim]{row['metric']}: {row['signature']}[/]", soft_wrap=True)
