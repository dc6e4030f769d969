"""Quality of a peer that trains for as long as a recipe of heedful took, on the same text, in the same subwords.

    python benchmarks/quality.py RECIPE MINUTES --data FOLDER [--rate 1e-3] [--precision bfloat16]

The peer is Hugging Face's M2M100, the pre-norm sibling of Marian, in the recipe's own sizes, on the recipe's own
batches, with label smoothing and Adam as its users have them: the learning rate rises for 4 % of the time, then falls
linearly to zero at the end of it. The time is that of training alone, by the clock; bfloat16 is autocast's; it keeps
the heap and compiled products as heedful does. The development set is translated at the end with the recipe's search,
and with --test FOLDER/test.en FOLDER/test.de another text too. `heedful train RECIPE` beside it, with as many threads,
is what to compare with.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from heedful.config import read_toml
from heedful.evaluation.scores import bleu_and_chrf
from heedful.pipeline import Run, begin
from heedful.recipe import build
from heedful.text.pairs import read_lines
from heedful.text.vocabulary import END, PAD
from peers import m2m100

WARMUP = 0.04  # of the time
SMOOTHING = 0.1  # of peers/marian.py


def train(run: Run, minutes: float, rate: float, precision: str) -> m2m100.Peer:
    """Return the peer, trained for so many minutes."""
    peer = m2m100.Peer(run.recipe.model, run.words.sizes[1])
    optimizer = torch.optim.Adam(peer.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    began, tokens = time.monotonic(), 0
    for step, batch in enumerate(run.stream()):
        passed = (time.monotonic() - began) / (60 * minutes)
        if passed >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(passed / WARMUP, (1 - passed) / (1 - WARMUP))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext():
            loss = peer(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        tokens += int((batch.target_out_BT != PAD).sum())
        if step % 100 == 0:
            print(
                f"step {step}  loss {loss.item():.3f}  {tokens / (time.monotonic() - began):,.0f} tokens/s", flush=True
            )
    return peer.eval()


def score(peer: m2m100.Peer, run: Run, sources: Sequence[str], references: Sequence[str]) -> str:
    """Return BLEU and chrF of the peer's translations."""
    search = run.recipe.search
    ids = m2m100.translate(
        peer.model,
        run.words.encode_source(sources),
        beam=search.width,
        batch=64,
        length_penalty=search.length_penalty,
        length=0,
    )
    outputs = [run.words.decode_target([number for number in line if number != END]) for line in ids]
    scores = bleu_and_chrf(outputs, list(references))
    return f"{scores}  first: {outputs[0]}"


def main() -> None:
    """Train and print what was reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs=2)
    parser.add_argument("--rate", type=float, default=1e-3)
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
        print(f"{m2m100.NAME}, torch {torch.__version__}, {threads} threads, rate {options.rate:g}", flush=True)
        peer = train(run, options.minutes, options.rate, options.precision)
        print("development:", score(peer, run, [pair[0] for pair in run.dev], [pair[1] for pair in run.dev]))
        if options.test:
            sides = [[line or "" for line in read_lines(path)] for path in options.test]
            print("test:", score(peer, run, *sides))


if __name__ == "__main__":
    main()
