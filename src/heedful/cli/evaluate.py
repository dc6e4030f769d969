"""`heedful evaluate`."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from heedful import bundle as bundles
from heedful.cli.model import load, say_if_slow, search_of
from heedful.cli.output import writing
from heedful.cli.settings import Device, Json, Reverse, SearchFlags, Threads, Weights, flags, given
from heedful.cli.terminal import STANDARD_OUTPUT, terminal
from heedful.config import from_table
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.evaluation.error_rates import error_rates, gather_references
from heedful.evaluation.scores import Comparison, ScoreConfig, compare, score_corpus, tokenizer_of
from heedful.text.pairs import Corpus, read_lines, read_pairs

ScoreFlags: Any = flags(ScoreConfig)
Row = dict[str, Any]  # metric, score, details, signature
Translating = Callable[[list[str]], Iterator[str]]


def evaluate(
    bundle: Annotated[Path | None, Parameter(help="Model folder, en-de or de-en; or give --outputs")] = None,
    /,
    *,
    source: Annotated[Path | None, Parameter(help="Text to translate; without --reference a file of pairs")] = None,
    reference: Annotated[tuple[Path, ...], Parameter(help="Reference translations; repeatable", negative=())] = (),
    outputs: Annotated[Path | None, Parameter(help="Score this text instead of translating")] = None,
    against: Annotated[
        Path | None,
        Parameter(help="A second model to compare with; p: how likely two equally good ones would differ as much"),
    ] = None,
    symbols: Annotated[
        bool, Parameter(help="Word and symbol error rates, any of several references", negative=())
    ] = False,
    save: Annotated[Path | None, Parameter(help="Write the translations here")] = None,
    json_: Json = False,
    reverse: Reverse = None,
    device: Device = "cpu",
    threads: Threads = 0,
    weights: Weights = "float32",
    scoring: Annotated[ScoreFlags | None, Parameter(name="*")] = None,
    search: Annotated[SearchFlags | None, Parameter(name="*")] = None,
) -> None:
    """Translate a test set and score it: sacreBLEU's BLEU, chrF and TER with their signatures.

    With --symbols, equal lines of the source are one input, and each of their references counts as right.
    """
    config = from_table(ScoreConfig, given(scoring), "evaluate")
    from_table(SearchConfig, given(search), "search")
    if outputs and not against and (given(search) or reverse or threads or (device, weights) != ("cpu", "float32")):
        raise HeedfulError(f"{outputs} are translated already: leave settings of search, --weights and such out")
    if symbols and (against or given(scoring)):
        raise HeedfulError(
            "--symbols gives word and symbol error rates alone: leave --against, --lowercase and such out"
        )
    if source is None and not reference:
        raise HeedfulError("nothing to compare with: give --reference, or a file of pairs as --source")
    _check(bundle, source, outputs, against)
    if save:
        _check_save(save, [source, *reference, outputs])
    if (told := bundle or against) and "tokenize" not in given(scoring):
        languages = _manifest(told).get("languages") or ("", "")
        config = replace(config, tokenize=tokenizer_of(languages[1]))
    if symbols and source is None:
        raise HeedfulError("--symbols needs --source, to tell which references belong to the same input")
    sources, references = _read(source, reference)
    made = _lines(outputs) if outputs else None
    _check_lengths([(source, sources), (outputs, made), *zip(reference or (source,), references, strict=True)])
    options: dict[str, Any] = {"reverse": reverse, "device": device, "threads": threads, "weights": weights}
    # both are loaded before either translates for minutes: what is wrong with one is said at once
    translate = _translating(bundle, given(search), options) if bundle else None
    translate_too = _translating(against, given(search), options) if against else None
    lines = sources or []
    if symbols and made:
        _check_alike(lines, made)
    found: list[str] = []
    with writing(save) if save else nullcontext() as file:  # before minutes of translating: it may not be writable
        arriving: Iterable[str] = made or []
        if translate:
            arriving = _one_each(translate, lines) if symbols else translate(lines)
        for line in arriving:
            found.append(line)
            if file:  # window by window: what is translated is kept whatever happens
                file.write(f"{line}\n")
    rows = _error_rates(lines, references, found) if symbols else _scores(found, references, config)
    if translate_too:
        compared = compare(found, list(translate_too(lines)), references, config)
        rows += _comparisons(f"{bundle or outputs} against {against}", compared)
    _print(rows, json_)


def _check(bundle: Path | None, source: Path | None, outputs: Path | None, against: Path | None) -> None:
    """Refuse what cannot be done before minutes of translating, not after them."""
    if bundle and outputs:
        raise HeedfulError(f"either {bundle} translates or {outputs} are its outputs: leave one of them out")
    if not bundle and not outputs:
        raise HeedfulError("evaluate needs a model folder, or --outputs that are translated already")
    if (bundle or against) and source is None:
        raise HeedfulError(f"{bundle or against} has nothing to translate: give --source")
    for folder in filter(None, (bundle, against)):
        _manifest(folder)


def _check_save(save: Path, read: Sequence[Path | None]) -> None:
    """Refuse to write the translations where something else is."""
    if save.is_dir():
        raise HeedfulError(f"{save}: a folder; give --save the name of a file")
    if save in STANDARD_OUTPUT:  # which may be a file that the scores go to
        raise HeedfulError(f"{save}: the scores go there; give --save the name of a file")
    if save.resolve() in {path.resolve() for path in read if path}:
        raise HeedfulError(f"{save}: read as a text, which the translations would replace; give --save another name")


def _read(source: Path | None, references: Sequence[Path]) -> tuple[list[str] | None, list[list[str]]]:
    """Return the lines of the source and of each reference, every file read once: it may be a pipe."""
    if source and not references:
        pairs = list(read_pairs(Corpus(source, None)))
        return [pair.source or "" for pair in pairs], [[pair.target or "" for pair in pairs]]
    return _lines(source) if source else None, [_lines(path) for path in references]


def _check_lengths(texts: Sequence[tuple[Path | None, list[str] | None]]) -> None:
    """All that is given must have as many lines."""
    (first, lines), *others = [(path, lines) for path, lines in texts if path and lines is not None]
    for path, other in others:
        if len(other) != len(lines):
            raise HeedfulError(f"{first} has {len(lines):,} lines and {path} {len(other):,}; they must match")


def _scores(outputs: list[str], references: list[list[str]], config: ScoreConfig) -> list[Row]:
    return [
        {"metric": s.name, "score": s.value, "details": s.details, "signature": s.signature}
        for s in score_corpus(outputs, references, config)
    ]


def _comparisons(who: str, compared: Iterable[Comparison]) -> list[Row]:
    return [
        {
            "metric": f"{c.name}, {who}",
            "score": f"{c.first:.2f} : {c.second:.2f}",
            **{"first": round(c.first, 3), "second": round(c.second, 3), "p": c.p_value},
            "details": f"p = {c.p_value:.4f}",
            "signature": c.signature,
        }
        for c in compared
    ]


def _error_rates(lines: list[str], references: list[list[str]], found: list[str]) -> list[Row]:
    """Count equal lines once, with all of their references."""
    outputs = dict(zip(lines, found, strict=True))
    gathered = gather_references(lines * len(references), list(chain.from_iterable(references)))
    possible = {line: ways for line, ways in gathered.items() if line or any(ways)}  # an empty row is no input
    if not possible:
        raise HeedfulError("nothing to score: all lines are empty")
    # a shorter list of references is filled up with empty lines
    accepted = [list(filter(str.strip, each)) or each for each in possible.values()]
    rates = error_rates([outputs[line] for line in possible], accepted)
    details = f"{rates.inputs:,} inputs, any of several references"
    named = {"word error rate": rates.word, "symbol error rate": rates.symbol}
    return [{"metric": name, "score": rate, "details": details, "signature": ""} for name, rate in named.items()]


def _manifest(folder: Path) -> dict[str, Any]:
    return bundles.read_manifest(bundles.locate(folder))


def _check_alike(lines: list[str], outputs: list[str]) -> None:
    """Refuse equal lines whose outputs differ."""
    found: dict[str, str] = {}
    for line, output in zip(lines, outputs, strict=True):
        if found.setdefault(line, output) != output:
            raise HeedfulError(f"'{line}' stands in --source more than once: its --outputs must be the same")


def _translating(bundle: Path, search: dict[str, Any], options: dict[str, Any]) -> Translating:
    translator = load(bundle, **options)
    say_if_slow(translator)
    config = search_of(translator, {"n_best": 1, **search})
    _ = translator.compiled or translator.inference  # refused here if it knows no such weights
    return lambda lines: (found[0].text for found in translator.translate(_counted(lines), config))


def _one_each(translate: Translating, lines: list[str]) -> Iterator[str]:
    """Translate equal lines once."""
    outputs = translate(list(dict.fromkeys(lines)))
    known: dict[str, str] = {}
    for line in lines:
        if line not in known:
            known[line] = next(outputs)
        yield known[line]


def _counted(lines: list[str]) -> Iterator[str]:
    print(f"translating {len(lines):,} lines", file=sys.stderr)
    yield from lines


def _lines(path: Path) -> list[str]:
    return [line or "" for line in read_lines(path)]


def _print(rows: list[Row], as_json: bool) -> None:
    if as_json:  # rounded here alone: a score rounded twice would not be its metric's own
        rounded = [row | {"score": round(s, 3) if isinstance(s := row["score"], float) else s} for row in rows]
        print(json.dumps(rounded, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        score = row["score"]
        shown = f"{score:.2f}" if isinstance(score, float) else score
        table.add_row(escape(row["metric"]), shown, row["details"].removeprefix(f"{row['metric']} = {shown} "))
    console = terminal()
    console.print(table)
    for row in rows:
        if row["signature"]:
            console.print(f"[dim]{escape(row['metric'])}: {row['signature']}[/]", soft_wrap=True)
