"""Training speed of heedful against its peers, in turn, on the same batches.

    python benchmarks/training.py [--sizes tiny,small,base] [--peers ...] [--rounds 3] [--steps N] [--data FOLDER]

All train the same sizes (post-norm where the peer has it, ReLU, dropout of embeddings and sublayers, to which
nn.Transformer, which has one rate for all, adds that of attention weights and inside the feed-forward networks; shared
embeddings, label smoothing 0.1, Adam) on the same Multi30k batches (joint BPE of 10,000; 4,096 tokens with padding,
about 3,700 target tokens). A peer is trained as its users do it: the plain loop with full logits and cross_entropy, in
float32 and, where the processor multiplies bfloat16 in hardware, under autocast too; its best precision counts. Each
contestant passes over its batches twice and the second time is taken: oneDNN compiles a product for each shape that is
new to it, and a training meets few new ones after its first epochs. `--precisions auto` times everybody in the one
precision in which this processor multiplies faster: the larger sizes take long. With --heap-kept, peers run once more
with the setting of glibc's heap that heedful makes for itself. Each contestant of a round is a fresh process. The
matrix peak is measured in every process of heedful, and its share is counted from FLOPs without padding. A peer that is
not installed (pip install -c constraints.txt -e '.[peers]') is named and left out.
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
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from heedful.config import from_table
from heedful.data.batches import Batch, BatchConfig, BatchStream
from heedful.data.tokens import TokenStore, encode_corpus
from heedful.heap import keep_heap, keep_products
from heedful.inspection.timing import matrix_peak, time_training
from heedful.model.linear import has_native_bfloat16
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.recipe import PRESETS
from heedful.text.pairs import Corpus, read_pairs
from heedful.text.vocabulary import PAD, Vocabulary, VocabularyConfig, learn
from heedful.training.precision import settled
from heedful.training.settings import TrainingConfig


class Size(NamedTuple):
    """A model, and how many steps are timed, after as many untimed ones, unless --steps says otherwise."""

    preset: str
    steps: int


SIZES = {"tiny": Size("tiny", 8), "small": Size("small", 4), "base": Size("paper-base", 2)}
PEERS = ("torch_transformer", "marian", "marian_eager", "xtransformers")
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k-en-de"


class Contestant(NamedTuple):
    """Who trains, in which precision, and whether a peer is helped to keep its heap."""

    who: str
    precision: str
    heap: str = ""

    def __str__(self) -> str:
        return f"{self.who:18s} {self.precision:9s} {self.heap:9s}"


def time_peer(who: str, config: ModelConfig, vocabulary: int, batches: list[Batch], precision: str) -> Any:
    """Return target tokens a second of a plain loop."""
    model: nn.Module = importlib.import_module(f"peers.{who}").Peer(config, vocabulary)
    # one pass over all weights, as heedful's and that of Hugging Face's own loop: torch's default loops over tensors
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext():
            loss = model(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for batch in batches:
        step(batch)
    began, tokens = time.perf_counter(), 0
    for batch in batches:
        step(batch)
        tokens += int((batch.target_out_BT != PAD).sum())
    return {"speed": tokens / (time.perf_counter() - began)}


def time_heedful(config: ModelConfig, vocabulary: int, batches: list[Batch], precision: str) -> Any:
    """Return target tokens a second of heedful's training step, and its share of the matrix peak."""
    keep_heap()
    keep_products()
    model = Transformer(config, vocabulary, vocabulary)
    settings = from_table(TrainingConfig, {"precision": precision}, "")
    steps = time_training(model, iter(2 * batches), settings, steps=2 * len(batches))
    found = steps[len(batches) :]
    seconds = sum(step.seconds for step in found)
    peak = matrix_peak(torch.device("cpu"), getattr(torch, precision))
    return {
        "speed": sum(step.tokens for step in found) / seconds,
        "share": sum(step.flops for step in found) / seconds / peak,
    }


def prepare(data: Path, folder: Path) -> None:
    """Learn the vocabulary and encode the corpus, once for all rounds."""
    corpus = Corpus(data / "train.en", data / "train.de")
    pairs = [(0, pair.source or "", pair.target or "") for pair in read_pairs(corpus)]
    words = learn((s for _, s, _ in pairs), (t for _, _, t in pairs), VocabularyConfig(size=10_000))
    words.save(folder)
    encode_corpus(pairs, words, folder / "tokens.arrow", 250, 9.0)


def load_batches(folder: Path, count: int) -> tuple[list[Batch], int]:
    """Return the first batches, the same for everybody, and the size of the vocabulary."""
    stream = iter(BatchStream(TokenStore(folder / "tokens.arrow"), BatchConfig(tokens=4096, seed=1)))
    return [next(stream) for _ in range(count)], Vocabulary.load(folder).sizes[0]


def run_one(contestant: Contestant, size: str, steps: int, folder: Path) -> None:
    """Time one contestant in this process and print what it reached as JSON."""
    preset, default_steps = SIZES[size]
    model: dict[str, Any] = PRESETS[preset].get("model", {})
    config = from_table(ModelConfig, {**model, "normalization": "post"}, "benchmark")
    torch.manual_seed(1)
    batches, vocabulary = load_batches(folder, steps or default_steps)
    arguments = config, vocabulary, batches, contestant.precision
    ours = contestant.who == "heedful"
    print(json.dumps(time_heedful(*arguments) if ours else time_peer(contestant.who, *arguments)))


def compare(size: str, peers: list[str], options: argparse.Namespace, folder: str) -> None:
    """Run every contestant once a round, in turn, and print what they reached and the ratios."""
    processor = torch.device("cpu")
    native = has_native_bfloat16(processor)
    precisions = [settled(p, processor) for p in options.precisions.split(",") if native or p != "bfloat16"]
    heaps = ["", "heap kept"] if options.heap_kept else [""]
    contestants = [Contestant("heedful", precision) for precision in precisions]
    contestants += [Contestant(peer, p, heap) for peer in peers for p in precisions for heap in heaps]
    found: dict[Contestant, list[dict[str, Any]]] = {contestant: [] for contestant in contestants}
    print(f"\n{size}: target tokens a second, {options.rounds} rounds")
    for number in range(options.rounds):
        for contestant in contestants[:: -1 if number % 2 else 1]:  # so that nobody always comes after the same one
            command = [sys.executable, __file__, "--one", *contestant, size, str(options.steps), folder]
            kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "67108864"}
            environment = os.environ | (kept if contestant.heap else {})
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            one = json.loads(ran.stdout.splitlines()[-1])
            found[contestant].append(one)
            print(f"  {contestant}  {one['speed']:7,.0f}", file=sys.stderr, flush=True)  # the larger sizes take long
    medians = {contestant: statistics.median(one["speed"] for one in each) for contestant, each in found.items()}
    for contestant, each in found.items():
        rounds = "  ".join(f"{one['speed']:7,.0f}" for one in each)
        shares = [one["share"] for one in each if "share" in one]
        share = f"   {100 * statistics.median(shares):.0f} % of the peak" if shares else ""
        print(f"  {contestant}  {rounds}   median {medians[contestant]:7,.0f}{share}")
    for heap in heaps if peers else []:
        best = max((c for c in contestants if c.who != "heedful" and c.heap == heap), key=lambda c: medians[c])
        for ours in contestants[: len(precisions)]:
            print(f"  heedful {ours.precision} / {best} {medians[ours] / medians[best]:.2f}")


def is_installed(peer: str) -> bool:
    """Return whether the peer's library is here, and print its name and version, or what is missing."""
    try:
        print(f"  {peer}: {importlib.import_module(f'peers.{peer}').NAME}")
    except ImportError as missing:
        print(f"  {peer}: left out, {missing}")
        return False
    return True


def main() -> None:
    """Run rounds in fresh processes and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="timed steps of a round (default: by size)")
    parser.add_argument("--sizes", default="tiny,small,base")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--heap-kept", action="store_true", help="also help the peers to keep their heap")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, precision, heap, size, steps, folder = options.one
        run_one(Contestant(who, precision, heap), size, int(steps), Path(folder))
        return
    if not (options.data / "train.de").is_file():
        parser.error(f"{options.data}: no train.en and train.de there; give --data FOLDER (docs/data.md tells whose)")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    peers = [peer for peer in options.peers.split(",") if is_installed(peer)]
    with tempfile.TemporaryDirectory() as folder:
        prepare(options.data, Path(folder))
        for size in options.sizes.split(","):
            compare(size, peers, options, folder)


if __name__ == "__main__":
    main()
