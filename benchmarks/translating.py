"""Translation speed of heedful against its peers, in turn, with the same weights on the same sentences.

    python benchmarks/translating.py [BUNDLE] [--input test_2016_flickr.de] [--reference ...] [--rounds 3] [--rows ...]

The peers get the bundle's weights, converted, and its subwords; everybody is timed from text to text; one that is not
installed is left out (fairseq is hard to: peers/fairseq_engine.py). Rows: beam 4 and greedy at 64 sentences a batch on
two cores (CTranslate2 with two workers of one thread, its fastest way; Hugging Face and fairseq as one process of two
threads, as a script of their users has, and as two of one thread, which share the sentences); one sentence at a time
on one thread; and a model of the base size (pre-norm, which all have) with random weights, of which every output is 30
pieces long, 32 sentences a batch. Each contestant of a row is a process of its own, which translates some sentences
first, untimed, and then waits for its turn in each round. Sentences a second; with a reference, BLEU of each is shown,
so that nobody is fast by being wrong. Without a bundle, the model de-en in the box.
No peer has sinusoids and rotary positions at once, as en-de has, and rotary positions alone only CTranslate2.
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
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, cast

import torch

from heedful import bundle
from heedful.config import from_table
from heedful.decoding.settings import SearchConfig
from heedful.evaluation.scores import bleu_and_chrf
from heedful.model.compiled import multiplies
from heedful.model.settings import ModelConfig, Weights
from heedful.model.transformer import Transformer
from heedful.recipe import PRESETS
from heedful.translator import Translator

Translate = Callable[[list[str]], list[str]]


class Row(NamedTuple):
    """One kind of work."""

    name: str
    beam: int
    batch: int
    threads: int
    lines: int
    base: bool = False


ROWS = {
    "beam": Row("beam 4, batch 64, two cores", 4, 64, 2, 1000),
    "greedy": Row("greedy, batch 64, two cores", 1, 64, 2, 1000),
    "one": Row("greedy, one sentence at a time, one thread", 1, 1, 1, 300),
    "beam-one": Row("beam 4, one sentence at a time, one thread", 4, 1, 1, 200),
    "base-greedy": Row("base size, greedy, batch 32, two cores", 1, 32, 2, 64, True),
    "base-beam": Row("base size, beam 4, batch 32, two cores", 4, 32, 2, 64, True),
}
CONTESTANTS = {
    "heedful-float32": "float32",
    "heedful-bfloat16": "bfloat16",
    "heedful-int8": "int8",
    "ctranslate2-float32": "float32",
    "ctranslate2-int8": "int8",
    "huggingface": "float32",
    "huggingface-apart": "float32",
    "fairseq": "float32",
    "fairseq-apart": "float32",
}
APART = "-apart"  # two processes of one thread each, where there are two cores
PEERS = {"ctranslate2": "ctranslate2_engine", "huggingface": "m2m100", "fairseq": "fairseq_engine"}
ADDING = ("huggingface", "fairseq")  # positions to embeddings, and know no other way
TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k-en-de" / "test_2016_flickr.de"
PIECES = 30  # of every output of the base size
SOURCE_PIECES = 13  # of every input to it


def make(who: str, folder: Path, row: Row) -> Translate:
    """Return a function from lines to their translations."""
    if who.endswith(APART):
        return share(who.removesuffix(APART), folder, row)
    torch.set_num_threads(row.threads)
    loaded = bundle.load(folder, "cpu")
    words, alpha = loaded.vocabulary, 0.0 if row.beam == 1 else 1.0
    if row.base:
        torch.manual_seed(1)
        config = from_table(
            ModelConfig, {**PRESETS["paper-base"].get("model", {}), "normalization": "pre"}, "benchmark"
        )
        loaded.model = Transformer(config, *words.sizes).eval()
    kind, forced = CONTESTANTS[who], PIECES if row.base else 0
    if who.startswith("heedful"):
        translator = Translator(loaded.model, words, weights=cast(Weights, kind))
        search = SearchConfig(beam=row.beam, length_penalty=alpha)
        if forced:  # shortest and longest are both so long, the end token counted
            search = replace(search, min_length=forced - 1, max_extra=forced - SOURCE_PIECES)

        def ours(lines: list[str]) -> list[str]:
            requests = [lines] if row.batch > 1 else [[line] for line in lines]
            return [found[0].text for each in requests for found in translator.translate(each, search, batch=row.batch)]

        return ours
    name = who.removesuffix(f"-{kind}")
    peer = importlib.import_module(f"peers.{PEERS[name]}")
    if name != "ctranslate2":
        engine = peer.convert(loaded)
    else:
        with tempfile.TemporaryDirectory() as place:
            peer.convert(loaded, Path(place) / "model", quantization=None if kind == "float32" else kind)
            engine = peer.load(Path(place) / "model", kind, row.threads)
    settings = {"beam": row.beam, "batch": row.batch, "length_penalty": alpha, "length": forced}

    def translate(lines: list[str]) -> list[str]:
        sources = words.encode_source(lines)
        # one request after another, as a server gets them, where the batch is one
        requests = [sources] if row.batch > 1 else [[source] for source in sources]
        return [words.decode_target(ids) for request in requests for ids in peer.translate(engine, request, **settings)]

    return translate


def share(who: str, folder: Path, row: Row) -> Translate:
    """Return a function that gives each of as many processes as there are threads an equal part of the lines."""
    context, ends = get_context("spawn"), list[Connection]()
    for _ in range(row.threads):
        here, there = context.Pipe()
        arguments = there, who, folder, row._replace(threads=1)
        context.Process(target=answer, args=arguments, daemon=True).start()
        ends.append(here)

    def translate(lines: list[str]) -> list[str]:
        order = sorted(range(len(lines)), key=lambda number: len(lines[number]))
        parts = [order[first :: len(ends)] for first in range(len(ends))]
        for end, part in zip(ends, parts, strict=True):
            end.send([lines[number] for number in part])
        found = dict[int, str]()
        for end, part in zip(ends, parts, strict=True):
            found.update(zip(part, end.recv(), strict=True))
        return [found[number] for number in range(len(lines))]

    return translate


def answer(there: Connection, who: str, folder: Path, row: Row) -> None:
    """Translate what comes from the process that shares its lines, until it ends."""
    translate = make(who, folder, row)
    with suppress(EOFError):
        while True:
            there.send(translate(there.recv()))


def read(row: Row, options: argparse.Namespace) -> list[str]:
    """Return the lines to translate: for the base size, as often as need be, those of one length."""
    lines: list[str] = options.input.read_text(encoding="utf-8").splitlines()
    if row.base:
        sources = bundle.load(options.bundle, "cpu").vocabulary.encode_source(lines)
        alike = [line for line, source in zip(lines, sources, strict=True) if len(source) == SOURCE_PIECES + 1]
        lines = alike * -(-row.lines // len(alike))
    return lines[: row.lines]


def run_one(who: str, row: Row, options: argparse.Namespace) -> None:
    """Say that this process is ready; then for every line that arrives, time one round and print what was reached."""
    lines = read(row, options)
    translate = make(who, options.bundle, row)
    translate(lines[: 64 if row.batch > 1 else 9])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        outputs = translate(lines)
        seconds = time.perf_counter() - began
        score = 0.0
        if options.reference and not row.base:
            references = options.reference.read_text(encoding="utf-8").splitlines()[: row.lines]
            score = bleu_and_chrf(outputs, references)["bleu"]
        print(json.dumps({"speed": len(lines) / seconds, "bleu": score}), flush=True)


def start(who: str, row: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Return a contestant's process, when it is ready."""
    command = [sys.executable, __file__, str(options.bundle), "--input", str(options.input), "--one", who, row]
    command += ["--reference", str(options.reference)] if options.reference else []
    alone = "ctranslate2" in who or who.endswith(APART)
    threads = {"OMP_NUM_THREADS": str(1 if alone else ROWS[row].threads)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | threads)
    hear(process, "ready")
    return process


def hear(process: subprocess.Popen[str], beginning: str) -> str:
    """Return a contestant's next line that begins so; its libraries may print others."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    sys.exit(f"a contestant ended early: {process.args!r}")


def compare(row: str, contestants: list[str], options: argparse.Namespace) -> None:
    """Run every contestant once a round, in turn, and print what they reached and the ratios."""
    processes = {who: start(who, row, options) for who in contestants}
    found: dict[str, list[dict[str, float]]] = {who: [] for who in contestants}
    for _ in range(options.rounds):
        for who, process in processes.items():
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
            found[who].append(json.loads(hear(process, "{")))
    for process in processes.values():
        process.communicate()
    medians = {who: statistics.median(one["speed"] for one in each) for who, each in found.items()}
    ours = [who for who in contestants if who.startswith("heedful")]
    print(f"\n{ROWS[row].name}: sentences a second; heedful {', '.join(CONTESTANTS[one] for one in ours)} over each")
    for who, each in found.items():
        rounds = "  ".join(f"{one['speed']:7,.1f}" for one in each)
        bleu = f"   BLEU {each[0]['bleu']:.2f}" if each[0]["bleu"] else ""
        ratios = "" if who in ours else "   " + "  ".join(f"{medians[one] / medians[who]:.2f}" for one in ours)
        print(f"  {who:20s} {rounds}   median {medians[who]:7,.1f}{bleu}{ratios}", flush=True)


def is_installed(name: str) -> bool:
    """Return whether a peer is here, and print its name and version, or what is missing."""
    try:
        print(f"  {importlib.import_module(f'peers.{PEERS[name]}').NAME}")
    except ImportError as missing:
        print(f"  {name}: left out, {missing}")
        return False
    return True


def main() -> None:
    """Run the rows and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=bundle.locate, default=bundle.locate("de-en"))
    parser.add_argument("--input", type=Path, default=TEXT)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default=",".join(ROWS), help="of these, with commas between")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="of these, with commas between")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = {*options.rows.split(","), *options.contestants.split(",")} - {*ROWS, *CONTESTANTS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; rows are {', '.join(ROWS)}")
    model = bundle.read_manifest(options.bundle).get("model", {})
    if model.get("positions") != ("none" if model.get("rotary") else "sinusoidal"):
        parser.error("the peers add sinusoids or turn by positions: take a model with one of both")
    for path in filter(None, (options.input, options.reference)):
        if not path.is_file():
            parser.error(f"{path}: not there; give --input FILE (docs/data.md tells where its text comes from)")
    if options.one:
        who, row = options.one
        run_one(who, ROWS[row], options)
        return
    print(f"{os.cpu_count()} cores, torch {torch.__version__}")
    known = {kind for kind in ("float32", "bfloat16", "int8") if kind == "float32" or multiplies(kind)}
    asked = options.contestants.split(",")
    wanted = [who for who in asked if not who.startswith("heedful") or CONTESTANTS[who] in known]
    if unknown := set(asked) - set(wanted):
        print(f"  {', '.join(sorted(unknown))}: left out: no compiled products of that type here")
    absent = [name for name in PEERS if any(who.startswith(name) for who in wanted) and not is_installed(name)]
    contestants = [who for who in wanted if not who.startswith(tuple(absent))]
    if model.get("rotary") and any(who.startswith(ADDING) for who in contestants):
        print(f"  {' and '.join(ADDING)}: left out but for the base size: this model turns by positions, they add them")
    for row in options.rows.split(","):
        turning = model.get("rotary") and not ROWS[row].base  # whose model is another
        able = [who for who in contestants if not (turning and who.startswith(ADDING))]
        compare(row, [who for who in able if ROWS[row].threads > 1 or not who.endswith(APART)], options)


if __name__ == "__main__":
    main()
