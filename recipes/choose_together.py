"""Translate with several models that read the same lines in ways of their own, and keep what they find best together.

    python recipes/choose_together.py --output OUT MODEL SOURCE [MODEL SOURCE ...]

Line n of each SOURCE stands for the same text. Each model proposes its six best outputs for each line, all models score
all proposals, and the one with the largest mean probability is written. An ensemble counts for as many as its members.
`heedful ensemble` is simpler and faster where all models read the same lines in the same vocabulary.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from heedful import Translator, files
from heedful.errors import HeedfulError
from heedful.model.ensemble import members_of
from heedful.text.pairs import read_lines

PROPOSALS = 6
PATIENCE = 2.0  # else a very sure model's search can end with improbable short outputs, before its best has ended


def propose(translator: Translator, lines: Sequence[str]) -> list[list[str]]:
    """Return a model's best outputs for each line."""
    config = replace(translator.search, beam=PROPOSALS, n_best=PROPOSALS, patience=PATIENCE)
    return [[output.text for output in found] for found in translator.translate(lines, config)]


def choose(translators: Sequence[Translator], sources: Sequence[Sequence[str]]) -> list[str]:
    """Return the best of all models' proposals for each line; `sources` are the lines as each model reads them."""
    proposals = [propose(translator, lines) for translator, lines in zip(translators, sources, strict=True)]
    candidates = [
        list(dict.fromkeys(text for found in line for text in found)) for line in zip(*proposals, strict=True)
    ]
    outputs = [text for found in candidates for text in found]
    owner = [row for row, found in enumerate(candidates) for _ in found]
    total: np.ndarray = np.full(len(outputs), -math.inf)
    for translator, lines in zip(translators, sources, strict=True):
        scored = translator.score([lines[row] for row in owner], outputs)
        own = np.array([output.log_probability for output in scored])
        total = np.logaddexp(total, own + math.log(len(members_of(translator.model))))
    best: dict[int, int] = {}
    for i, row in enumerate(owner):
        if row not in best or total[i] > total[best[row]]:
            best[row] = i
    return [outputs[best[row]] for row in range(len(candidates))]


def main() -> None:
    """Read the command line, translate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL SOURCE", help="a model folder, and the text that it reads")
    parser.add_argument("--output", type=Path, required=True, help="where to write, a line for each line")
    arguments = parser.parse_args()
    names, paths = arguments.models[::2], [Path(path) for path in arguments.models[1::2]]
    if len(names) != len(paths):
        parser.error(f"{names[-1]}: give the text that it reads after it")
    try:
        sources = [[line or "" for line in read_lines(path)] for path in paths]
        if len({len(lines) for lines in sources}) > 1:
            parser.error(
                "the texts have " + ", ".join(f"{len(lines):,}" for lines in sources) + " lines: give equal ones"
            )
        with files.replacing(arguments.output) as aside:
            aside.touch()  # before minutes of translating: there may be no way to write here
            chosen = choose([Translator.load(name) for name in names], sources)
            aside.write_text("".join(f"{line}\n" for line in chosen), encoding="utf-8", newline="\n")
    except (HeedfulError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
