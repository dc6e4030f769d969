"""Quality of a peer that trains for as long as a recipe of heedful took, on the same text, in the same subwords.

    python benchmarks/quality.py RECIPE MINUTES --data FOLDER [--rate 1e-3] [--precision bfloat16]

The peer is Hugging Face's M2M100, the pre-norm sibling of Marian, in the recipe's own sizes, on the recipe's own
batches, with label smoothing and Adam as its users have them: the learning rate rises for 4 % of the time, then falls
linearly to zero at the end of it. The time is that of training alone, by the clock; bfloat16 is autocast's; it keeps
the heap and compiled products as heedful does, and attends by eager or by torch's fused attention, whichever is faster
here. The development set is translated at the end with the recipe's beam and the best of several length penalties,
whose formula is another one than ours (a power of the length); with that, and with --test FOLDER/test.en
FOLDER/test.de, another text too. `heedful train RECIPE` beside it, with as many threads, is what to compare with.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from heedful.config import read_toml
from heedful.data.batches import Batch
from heedful.evaluation.scores import bleu_and_chrf
from heedful.pipeline import Run, begin
from heedful.recipe import build
from heedful.text.pairs import read_lines
from heedful.text.vocabulary import END, PAD
from peers import m2m100

WARMUP = 0.04  # of the time
SMOOTHING = 0.1  # of peers/marian.py
PENALTIES = (0.0, 0.5, 1.0, 1.5)
TIMED = 8  # batches of each attention, after as many that compile what is compiled


def make(run: Run, precision: str) -> m2m100.Peer:
    """Return the peer with the attention that is faster in training here."""
    seconds = {}
    for attention in ("eager", "sdpa"):
        peer, seconds[attention] = m2m100.Peer(run.recipe.model, run.vocabulary.sizes[1], attention), list[float]()
        for batch in islice(run.stream(), 2 * TIMED):
            began = time.monotonic()
            loss_of(peer, batch, precision).backward()
            seconds[attention].append(time.monotonic() - began)
    best = min(seconds, key=lambda attention: sum(seconds[attention][TIMED:]))
    print({attention: f"{sum(found[TIMED:]) / TIMED:.3f} s" for attention, found in seconds.items()}, "by attention")
    return m2m100.Peer(run.recipe.model, run.vocabulary.sizes[1], best)


def loss_of(peer: m2m100.Peer, batch: Batch, precision: str) -> Any:
    """Return the loss, computed in float32 or under autocast."""
    with torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext():
        return peer(batch)


def train(run: Run, minutes: float, rate: float, precision: str) -> m2m100.Peer:
    """Return the peer, trained for so many minutes."""
    peer = make(run, precision)
    optimizer = torch.optim.Adam(peer.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9, fused=True)
    began, tokens = time.monotonic(), 0
    for step, batch in enumerate(run.stream()):
        passed = (time.monotonic() - began) / (60 * minutes)
        if passed >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(passed / WARMUP, (1 - passed) / (1 - WARMUP))
        optimizer.zero_grad()
        loss = loss_of(peer, batch, precision)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        tokens += int((batch.target_out_BT != PAD).sum())
        if step % 100 == 0:
            print(
                f"step {step}  loss {loss.item():.3f}  {tokens / (time.monotonic() - began):,.0f} tokens/s", flush=True
            )
    return peer.eval()


def score(peer: m2m100.Peer, run: Run, pairs: Sequence[tuple[str, str]], penalty: float) -> dict[str, float]:
    """Return BLEU and chrF of the peer's translations."""
    sources, references = [list(side) for side in zip(*pairs, strict=True)]
    ids = m2m100.translate(
        peer.model,
        run.vocabulary.encode_source(sources),
        beam=run.recipe.search.width,
        batch=64,
        length_penalty=penalty,
        length=0,
    )
    outputs = [run.vocabulary.decode_target([number for number in line if number != END]) for line in ids]
    return bleu_and_chrf(outputs, references)


def main() -> None:
    """Train and print what was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs=2)
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's largest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    options = parser.parse_args()
    recipe = build(read_toml(options.recipe), {"data": {"folder": str(options.data)}}, where=str(options.recipe))
    if recipe.training.consistency or recipe.batches.accumulate > 1 or recipe.training.label_smoothing != SMOOTHING:
        raise SystemExit(
            f"{options.recipe}: the peer knows no R-Drop, no accumulation, and label smoothing {SMOOTHING}"
        )
    with TemporaryDirectory() as folder:
        run = begin(recipe, Path(folder))
        threads = torch.get_num_threads()
        torch.manual_seed(options.seed)
        print(f"{m2m100.NAME}, torch {torch.__version__}, {threads} threads, rate {options.rate:g}", flush=True)
        peer = train(run, options.minutes, options.rate, options.precision)
        found = {penalty: score(peer, run, run.dev, penalty) for penalty in PENALTIES}
        best = max(PENALTIES, key=lambda penalty: found[penalty]["bleu"])
        print("development, BLEU by length penalty:", {penalty: f"{one['bleu']:.2f}" for penalty, one in found.items()})
        print("development:", found[best], "with length penalty", best)
        if options.test:
            sides = [[line or "" for line in read_lines(path)] for path in options.test]
            print("test:", score(peer, run, list(zip(*sides, strict=True)), best))


if __name__ == "__main__":
    main()
