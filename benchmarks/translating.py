"""Translation speed of heedful against its peers, in turn, with the same weights on the same sentences.

    python benchmarks/translating.py BUNDLE --input test_2016_flickr.en [--reference ...] [--rounds 3]

The peers get the bundle's weights, converted, and its subwords; everybody is timed from text to text. Rows: beam 4 and
greedy at 64 sentences a batch on two cores (CTranslate2 with two workers of one thread, its fastest way; Hugging Face
with two threads), and one sentence at a time on one thread. Each contestant of a round is a fresh process that
translates 64 sentences first, untimed. Sentences a second; with a reference, BLEU of each is shown, so that nobody is
fast by being wrong.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from heedful import bundle
from heedful.decoding.search import SearchConfig
from heedful.evaluation.scores import bleu_and_chrf
from heedful.translator import Translator

Translate = Callable[[list[str]], list[str]]


class Row(NamedTuple):
    """One kind of work."""

    name: str
    beam: int
    batch: int
    threads: int


ROWS = {
    "beam": Row("beam 4, batch 64, two cores", 4, 64, 2),
    "greedy": Row("greedy, batch 64, two cores", 1, 64, 2),
    "one": Row("greedy, one sentence at a time, one thread", 1, 1, 1),
    "beam-one": Row("beam 4, one sentence at a time, one thread", 4, 1, 1),
}
CONTESTANTS = {
    "heedful": "float32",
    "ctranslate2-float32": "float32",
    "ctranslate2-int8": "int8",
    "huggingface": "float32",
}


def make(who: str, folder: Path, row: Row) -> Translate:
    """Return a function from lines to their translations."""
    torch.set_num_threads(row.threads)
    loaded = bundle.load(folder, "cpu")
    words, alpha = loaded.vocabulary, 0.0 if row.beam == 1 else 1.0
    if who == "heedful":
        translator = Translator(loaded.model, words)
        config = SearchConfig(beam=row.beam, length_penalty=alpha)
        return lambda lines: [found[0].text for found in translator.translate(lines, config, batch=row.batch)]
    if who == "huggingface":
        peer = importlib.import_module("peers.m2m100")
        engine = peer.convert(loaded)
    else:
        peer, kind = importlib.import_module("peers.ctranslate2_engine"), CONTESTANTS[who]
        with tempfile.TemporaryDirectory() as place:
            peer.convert(loaded, Path(place) / "model", quantization=None if kind == "float32" else kind)
            engine = peer.load(Path(place) / "model", kind, row.threads)

    def translate(lines: list[str]) -> list[str]:
        sources = words.encode_source(lines)
        outputs = peer.translate(engine, sources, beam=row.beam, batch=row.batch, length_penalty=alpha)
        return [words.decode_target(ids) for ids in outputs]

    return translate


def run_one(who: str, row: Row, options: argparse.Namespace) -> None:
    """Time one contestant in this process; print sentences a second and, with a reference, BLEU."""
    lines = options.input.read_text(encoding="utf-8").splitlines()[: options.lines]
    translate = make(who, options.bundle, row)
    translate(lines[:64])
    began = time.perf_counter()
    outputs = translate(lines)
    seconds = time.perf_counter() - began
    score = 0.0
    if options.reference:
        references = options.reference.read_text(encoding="utf-8").splitlines()[: options.lines]
        score = bleu_and_chrf(outputs, references)["bleu"]
    print(json.dumps({"speed": len(lines) / seconds, "bleu": score}))


def compare(row: str, contestants: list[str], options: argparse.Namespace) -> None:
    """Run every contestant once a round, in turn, and print what they reached and the ratios."""
    found: dict[str, list[dict[str, float]]] = {who: [] for who in contestants}
    for _ in range(options.rounds):
        for who in contestants:
            command = [sys.executable, __file__, str(options.bundle), "--input", str(options.input), "--one", who, row]
            command += ["--lines", str(options.lines)]
            command += ["--reference", str(options.reference)] if options.reference else []
            threads = {"OMP_NUM_THREADS": str(ROWS[row].threads if "ctranslate2" not in who else 1)}
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | threads)
            found[who].append(json.loads(ran.stdout.splitlines()[-1]))
    medians = {who: statistics.median(one["speed"] for one in each) for who, each in found.items()}
    print(f"\n{ROWS[row].name}: sentences a second")
    for who, each in found.items():
        rounds = "  ".join(f"{one['speed']:7,.1f}" for one in each)
        bleu = f"   BLEU {each[0]['bleu']:.2f}" if options.reference else ""
        ratio = "" if who == "heedful" else f"   heedful / it {medians['heedful'] / medians[who]:.2f}"
        print(f"  {who:20s} {rounds}   median {medians[who]:7,.1f}{bleu}{ratio}", flush=True)


def main() -> None:
    """Run rounds in fresh processes and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, row = options.one
        run_one(who, ROWS[row], options)
        return
    print(f"{os.cpu_count()} cores, torch {torch.__version__}")
    for name in ("ctranslate2_engine", "m2m100"):
        print(f"  {importlib.import_module(f'peers.{name}').NAME}")
    for row in options.rows.split(","):
        compare(row, options.contestants.split(","), options)


if __name__ == "__main__":
    main()
