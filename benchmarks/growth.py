"""How the cost of training and of search grows: with length, vocabulary, batch, width and corpus.

    python benchmarks/growth.py [--axes length,vocabulary,batch,width,corpus,memory] [--data FOLDER-OF-TATOEBA]

A tiny model (4+4 layers, d_model 128, d_ff 256, 4 heads, vocabulary of 8,000; 2,048 target tokens in sentences of
32) with random weights and text, one thing being changed at a time; where length is, training keeps its tokens and
translation its number of sentences, 16. Beside each time stands what theory says of it: floating-point operations, by
formula. Both are fitted by a power of what is changed, over all points and over the last two: time should not grow
faster than the operations do. Times are the least of several repetitions. `memory` holds the peak of fresh processes
against tokens and vocabulary together: a term tokens x vocabulary would show in their mixed difference.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from heedful.config import from_table
from heedful.data.batches import batch_of
from heedful.data.tokens import encode_corpus
from heedful.decoding.search import search_by_steps
from heedful.decoding.settings import SearchConfig
from heedful.decoding.whole_search import whole_search
from heedful.heap import keep_heap
from heedful.inspection.cost import search_flops
from heedful.inspection.timing import peak_memory, time_training
from heedful.model.compiled_inference import compiled
from heedful.model.family import engine_of
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.text.pairs import Corpus, read_pairs
from heedful.text.vocabulary import END, VocabularyConfig, learn
from heedful.training.settings import TrainingConfig

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tatoeba-en-de"


class Work(NamedTuple):
    """What is changed one at a time."""

    length: int = 32
    vocabulary: int = 8000
    tokens: int = 2048
    d_model: int = 128

    def model(self) -> Transformer:
        """Return the random model."""
        sizes = {
            "encoder_layers": 4,
            "decoder_layers": 4,
            "heads": 4,
            "d_model": self.d_model,
            "d_ff": 2 * self.d_model,
        }
        torch.manual_seed(1)
        return Transformer(from_table(ModelConfig, sizes, "benchmark"), self.vocabulary, self.vocabulary)

    def lines(self) -> list[list[int]]:
        """Return sentences of `length` tokens, as many as make up the tokens."""
        ids = np.random.default_rng(1).integers(4, self.vocabulary, (max(1, self.tokens // self.length), self.length))
        return [[*line[:-1], END] for line in ids.tolist()]


AXES: dict[str, tuple[str, list[int]]] = {
    "length": ("length", [16, 32, 64, 128, 256, 512, 1024]),
    "vocabulary": ("vocabulary", [1000, 2000, 4000, 8000, 16000, 32000]),
    "batch": ("tokens", [256, 512, 1024, 2048, 4096, 8192]),
    "width": ("d_model", [64, 128, 256, 512]),
}


def train(work: Work, steps: int = 5) -> tuple[float, float]:
    """Return the seconds of a training step and its operations."""
    model, config = work.model(), TrainingConfig(precision="float32")  # alike on all processors
    batches = repeat(batch_of(work.lines(), work.lines()))
    _, *found = time_training(model, iter(batches), config, steps=steps)
    return min(step.seconds for step in found), found[0].flops


def translate(work: Work) -> tuple[float, float]:
    """Return the seconds of greedy search on one thread for outputs as long as the inputs, and its operations."""
    model, lines = work.model().eval(), work.lines()
    config = SearchConfig(beam=1, length_penalty=0.0, max_extra=1, min_length=work.length - 1)
    if made := compiled(model):
        once = partial(whole_search, made, lines, config)
    else:
        once = partial(search_by_steps, engine_of(model), lines, config)
    flops = sum(search_flops(model.config, work.vocabulary, work.length, work.length, 1).values())
    return least(once), len(lines) * flops


def least(once: Callable[[], object], enough: float = 1.0) -> float:
    """Return the least seconds of a call, which is made at least twice and for about a second."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < enough:
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return min(times)


def exponents(x: list[int], y: list[float]) -> str:
    """Return the powers of x that y grows with: fitted over all points, and between the last two."""
    slope = float(np.polyfit(np.log(x), np.log(y), 1)[0])
    return f"{slope:.2f} / {math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2]):.2f}"


def show(title: str, name: str, x: list[int], columns: dict[str, list[float]]) -> None:
    """Print a table in Markdown, with the fitted exponents under it."""
    print(f"\n**{title}**\n\n| {name} | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for row, value in enumerate(x):
        print(f"| {value:,} | {' | '.join(f'{column[row]:,.4g}' for column in columns.values())} |")
    print(f"| exponent, all / last | {' | '.join(exponents(x, column) for column in columns.values())} |", flush=True)


def grow(axis: str) -> None:
    """Measure along one axis."""
    field, values = AXES[axis]
    columns: dict[str, list[float]] = {
        name: [] for name in ("training step, ms", "its GFLOP", "translation, ms", "its GFLOP ")
    }
    for value in values:
        work = Work()._replace(**{field: value})
        searching = work._replace(tokens=16 * value) if field == "length" else work
        (seconds, flops), (searched, search_flop) = train(work), translate(searching)
        for column, figure in zip(
            columns.values(),
            (1e3 * seconds, flops / 1e9, 1e3 * searched, search_flop / 1e9),
            strict=True,
        ):
            column.append(figure)
    show(axis, field, values, columns)


def grow_corpus(data: Path) -> None:
    """Measure reading, learning a vocabulary of, and encoding ever more of a corpus."""
    pairs = [(0, p.source or "", p.target or "") for p in read_pairs(Corpus(data / "train.en", data / "train.de"))]
    most = len(pairs)
    counts = [most // 10, most // 5, most // 2, most]
    seconds: dict[str, list[float]] = {"learning the vocabulary, s": [], "encoding, s": []}
    for count in counts:
        began = time.perf_counter()
        settings = VocabularyConfig(size=8000)
        words = learn((s for _, s, _ in pairs[:count]), (t for _, _, t in pairs[:count]), settings)
        learned = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            encode_corpus(iter(pairs[:count]), words, Path(folder) / "tokens.arrow", 250, 9.0)
        seconds["learning the vocabulary, s"].append(learned - began)
        seconds["encoding, s"].append(time.perf_counter() - learned)
    show("corpus", "pairs", counts, seconds)


def grow_memory() -> None:
    """Print the peak memory of training with few and many tokens, small and large vocabulary, and what only both need.

    Each large tensor gets memory of its own here and gives it back: holes in a heap that is kept, others in each run,
    come to more than the term that is looked for.
    """
    alone = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
    peaks: dict[tuple[int, int], float] = {}
    print("\n**memory of training, MB**\n\n| tokens a step | vocabulary of 1,000 | of 32,000 |\n|---|---|---|")
    for tokens in (2048, 16384):
        for vocabulary in (1000, 32000):
            command = [sys.executable, __file__, "--peak", str(tokens), str(vocabulary)]
            ran = subprocess.run(command, capture_output=True, check=True, env=alone)
            peaks[tokens, vocabulary] = json.loads(ran.stdout) / 1e6
        print(f"| {tokens:,} | {peaks[tokens, 1000]:,.0f} | {peaks[tokens, 32000]:,.0f} |")
    both = peaks[16384, 32000] - peaks[16384, 1000] - peaks[2048, 32000] + peaks[2048, 1000]
    term = (16384 - 2048) * (32000 - 1000) * 2 / 1e6
    print(
        f"\nmixed difference {both:+,.0f} MB; logits of 2 bytes for all tokens would make it {term:+,.0f}", flush=True
    )


def main() -> None:
    """Measure along all axes, one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axes", default="length,vocabulary,batch,width,corpus,memory")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        train(Work(tokens=options.peak[0], vocabulary=options.peak[1]), steps=3)
        print(peak_memory(torch.device("cpu")))
        return
    if "corpus" in options.axes.split(",") and not (options.data / "train.en").is_file():
        parser.error(f"{options.data}: no train.en there; give --data FOLDER, or --axes without corpus (docs/data.md)")
    keep_heap()
    for axis in options.axes.split(","):
        if axis == "corpus":
            grow_corpus(options.data)
        elif axis == "memory":
            grow_memory()
        else:
            grow(axis)


if __name__ == "__main__":
    main()
