"""What it costs that attention can be recorded: nothing while nobody records.

    python benchmarks/recording.py [BUNDLE] [--rounds 9]

The same sentences are read by the same model in turn: as it is; with attention that has no place for an observer at
all; and while its weights are recorded. Milliseconds of a pass over 64 sentence pairs, the least of 20; ratios are
those of the medians of all rounds. Search does not pass here: its steps, compiled or not, know no observer.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from heedful import bundle
from heedful.data.batches import batch_of
from heedful.model.fused_attention import fused_attention
from heedful.model.kernels import can_compute
from heedful.model.recorder import recording
from heedful.model.transformer import KeysValues, MultiHeadAttention
from heedful.native import lacking

LINES = [f"The little dog sees {count} cats on the old sofa of the house." for count in range(64)]


def without_observer(self: MultiHeadAttention, x: Tensor, attended: KeysValues, allowed: Tensor | None) -> Any:
    """Do what `MultiHeadAttention.forward` does for a short text out of training, and ask for no observer."""
    query = self._split(self.query(x))
    assert self._short(query, attended)
    assert can_compute(query)
    length = max(query.size(2), attended.key_BHMK.size(2))
    turns = None if self.rotation is None else self.rotation.turns(length)
    heads = fused_attention(query, *attended, allowed, turns)
    return self.output(heads.transpose(1, 2).flatten(2))


def main() -> None:
    """Take turns, and print what each took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("en-de"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if why := lacking("training"):
        parser.error(f"what is measured is the compiled attention: {why}")
    loaded = bundle.load(bundle.locate(options.bundle))
    model, words = loaded.model, loaded.vocabulary
    batch = batch_of(words.encode_source(LINES), words.encode_target(LINES))

    def read() -> None:
        model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))

    def removed() -> None:
        with patch.object(MultiHeadAttention, "forward", without_observer):
            read()

    def recorded() -> None:
        with recording(model):
            read()

    contestants: dict[str, Callable[[], None]] = {"as it is": read, "no observer": removed, "recording": recorded}
    found: dict[str, list[float]] = {name: [] for name in contestants}
    with torch.inference_mode():
        for _ in range(options.rounds):
            for name, work in contestants.items():
                times = []
                for _ in range(20):
                    began = time.perf_counter()
                    work()
                    times.append(1000 * (time.perf_counter() - began))
                found[name].append(min(times))
    for name, each in found.items():
        print(f"{name:12s} {'  '.join(f'{one:6.2f}' for one in each)}   median {statistics.median(each):6.2f} ms")
    base = statistics.median(found["no observer"])
    for name in ("as it is", "recording"):
        print(f"{name} / no observer: {statistics.median(found[name]) / base:.3f}")


if __name__ == "__main__":
    main()
