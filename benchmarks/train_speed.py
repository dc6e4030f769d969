"""Training speed of heedful against the plain torch.nn.Transformer loop, in turn, on the same batches.

    python benchmarks/train_speed.py [--data FOLDER] [--rounds 3] [--steps 12] [--size tiny]

Both train the same architecture (post-norm, ReLU, shared embeddings, label smoothing 0.1, Adam) on the same Multi30k
batches (joint BPE of 10,000, 4,096 tokens with padding). The peer is what a reader of PyTorch's tutorial writes: masks,
full logits, cross_entropy, in float32 and, where the processor has bfloat16 in hardware, also under autocast; its best
precision counts. Each round starts both in fresh processes, so that neither inherits the other's heap. The last line
is the ratio of medians; every round is printed.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from heedful.config import from_table
from heedful.data.batches import Batch, BatchConfig, BatchStream
from heedful.data.tokens import TokenStore, encode_corpus
from heedful.inspection.timing import time_training
from heedful.model.transformer import Transformer, TransformerConfig, sinusoids
from heedful.recipe import PRESETS
from heedful.text.corpus import Corpus, read_pairs
from heedful.text.vocabulary import PAD, Vocabulary, VocabularyConfig, learn
from heedful.training.heap import keep_heap
from heedful.training.loop import TrainingConfig, autocast, has_native_bfloat16, make_optimizer

WARMUP = 3  # steps that are not timed
SIZES = {"tiny": "tiny", "small": "small", "base": "paper-base"}
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k-en-de"


class PlainTransformer(nn.Module):
    """The peer: nn.Transformer with what it leaves to the user."""

    def __init__(self, config: TransformerConfig, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("positions", sinusoids(256, config.d_model))
        self.scale = math.sqrt(config.d_model)
        self.transformer = nn.Transformer(
            config.d_model,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.d_ff,
            config.dropout,
            batch_first=True,
            norm_first=config.normalization == "pre",
        )

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Return logits [B, T, V]."""
        source_pad, target_pad = source_BS == PAD, target_BT == PAD
        length = target_BT.size(1)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        hidden = self.transformer(
            self.embed(source_BS),
            self.embed(target_BT),
            tgt_mask=causal,
            src_key_padding_mask=source_pad,
            tgt_key_padding_mask=target_pad,
            memory_key_padding_mask=source_pad,
        )
        return functional.linear(hidden, self.embedding.weight)

    def embed(self, token_BL: Tensor) -> Tensor:
        """Embed tokens with positions."""
        positions = cast(Tensor, self.positions)[: token_BL.size(1)]
        return cast(Tensor, self.dropout(self.embedding(token_BL) * self.scale + positions))


def time_peer(config: TransformerConfig, symbols: int, batches: list[Batch], precision: str) -> float:
    """Return target tokens a second of the plain loop."""
    model = PlainTransformer(config, symbols)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
    context = autocast(precision, torch.device("cpu"))

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        with context():
            logits = model(batch.source_BS, batch.target_in_BT)
            loss = functional.cross_entropy(
                logits.flatten(0, 1), batch.target_out_BT.flatten(), ignore_index=PAD, label_smoothing=0.1
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for batch in batches[:WARMUP]:
        step(batch)
    began, tokens = time.perf_counter(), 0
    for batch in batches[WARMUP:]:
        step(batch)
        tokens += int((batch.target_out_BT != PAD).sum())
    return tokens / (time.perf_counter() - began)


def time_heedful(config: TransformerConfig, symbols: int, batches: list[Batch], precision: str) -> float:
    """Return target tokens a second of a heedful training step."""
    keep_heap()
    model, settings = Transformer(config, symbols, symbols), from_table(TrainingConfig, {"precision": precision}, "")
    found = time_training(model, make_optimizer(model, settings), iter(batches), settings, steps=len(batches))[WARMUP:]
    return sum(step.tokens for step in found) / sum(step.seconds for step in found)


def prepare(data: Path, folder: Path) -> None:
    """Learn the vocabulary and encode the corpus, once for all rounds."""
    corpus = Corpus(data / "train.en", data / "train.de")
    pairs = [(0, pair.source or "", pair.target or "") for pair in read_pairs(corpus)]
    words = learn((s for _, s, _ in pairs), (t for _, _, t in pairs), VocabularyConfig(size=10_000), threads=2)
    words.save(folder)
    encode_corpus(pairs, words, folder / "tokens.arrow", 250, 9.0)


def load_batches(folder: Path, count: int) -> tuple[list[Batch], int]:
    """Return the first batches, the same for everybody, and the number of symbols."""
    stream = iter(BatchStream(TokenStore(folder / "tokens.arrow"), BatchConfig(tokens=4096, seed=1)))
    return [next(stream) for _ in range(count)], Vocabulary.load(folder).sizes[0]


def main() -> None:
    """Run rounds in fresh processes and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--one", nargs=3, metavar=("WHO", "PRECISION", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    model: dict[str, Any] = PRESETS[SIZES[options.size]].get("model", {})
    config = from_table(TransformerConfig, {**model, "normalization": "post"}, "benchmark")
    if options.one:
        who, precision, folder = options.one
        torch.manual_seed(1)
        batches, symbols = load_batches(Path(folder), options.steps + WARMUP)
        print(json.dumps((time_peer if who == "peer" else time_heedful)(config, symbols, batches, precision)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(options.data, Path(folder))
        report(options, folder)


def report(options: argparse.Namespace, folder: str) -> None:
    """Run every contestant once a round, in turn, and print what they reached."""
    precisions = ["float32", *(["bfloat16"] if has_native_bfloat16(torch.device("cpu")) else [])]
    contestants = [(who, precision) for who in ("peer", "heedful") for precision in precisions]
    speeds: dict[tuple[str, str], list[float]] = {contestant: [] for contestant in contestants}
    arguments = ["--steps", str(options.steps), "--size", options.size]
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {options.size}, target tokens/s")
    for number in range(1, options.rounds + 1):
        for who, precision in contestants:
            command = [sys.executable, __file__, *arguments, "--one", who, precision, folder]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            speeds[who, precision].append(json.loads(ran.stdout))
            print(f"round {number}  {who:8s} {precision:9s} {speeds[who, precision][-1]:9,.0f}", flush=True)
    medians = {contestant: statistics.median(found) for contestant, found in speeds.items()}
    best = {who: max(value for (name, _), value in medians.items() if name == who) for who in ("peer", "heedful")}
    ratio = best["heedful"] / best["peer"]
    print(f"median   peer {best['peer']:,.0f}   heedful {best['heedful']:,.0f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
