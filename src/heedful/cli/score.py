"""`heedful score`."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heedful.cli.model import load
from heedful.cli.settings import POSITIVE, Bundle, Device, Threads
from heedful.errors import HeedfulError
from heedful.text.pairs import Corpus, read_pairs
from heedful.translator import WINDOW, Output


def score(
    bundle: Bundle,
    /,
    *,
    source: Annotated[Path, Parameter(help="Source text, or, without --target, a file of pairs (TSV, CSV or JSONL)")],
    target: Annotated[Path | None, Parameter(help="Translations to score, line by line")] = None,
    length_penalty: Annotated[float | None, Parameter(help="Alpha of the penalty (default: the model's own)")] = None,
    jsonl: Annotated[bool, Parameter(help="Write a JSON object a line, with word alignments", negative=())] = False,
    batch: Annotated[
        int, Parameter(help="Pairs scored together; the result stays the same, but for rounding", validator=POSITIVE)
    ] = 64,
    device: Device = "cpu",
    threads: Threads = 0,
) -> None:
    """Score given translations by teacher forcing: score and log-probability, tab-separated, a line for each pair.

    The score is the one that `translate` reports for the same tokens: log-probability over the length penalty.
    """
    translator = load(bundle, device, threads)
    if length_penalty is not None:
        translator.search = replace(translator.search, length_penalty=length_penalty)
        translator.search.check()
    pairs = iter(read_pairs(Corpus(source, target)))
    read = 0
    while window := list(islice(pairs, WINDOW)):
        sources, targets = [pair.source or "" for pair in window], [pair.target or "" for pair in window]
        for output in translator.score(sources, targets, batch=batch, align=jsonl, start=read):
            _print(output, jsonl)
        read += len(window)
    if not read:
        raise HeedfulError(f"{source}: the file is empty; give at least one pair")


def _print(output: Output, jsonl: bool) -> None:
    if jsonl:
        row = {"score": output.score, "log_probability": output.log_probability, "alignment": output.alignment}
        print(json.dumps(row))
    else:
        print(f"{output.score:.6f}\t{output.log_probability:.6f}")
