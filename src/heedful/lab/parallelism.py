"""How do time and steps in sequence grow with length and width? (section 4, table 1)"""

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.model.convolution import GatedConvolution
from heedful.model.settings import ModelConfig
from heedful.model.transformer import EncoderLayer

QUESTION = (
    "How does the time of a layer grow with the length n and the width d, and how many steps must follow each other?"
)
PAPER = "section 4, table 1"
MINUTES = (0.3, 0.7)
CLAIMED = {  # operations of a layer, exponents of n and of d; sequential operations
    "self-attention": (2, 1, "O(1)"),
    "recurrent": (1, 2, "O(n)"),
    "convolutional": (1, 2, "O(1)"),
}


@dataclass(frozen=True)
class Settings:
    """Lengths (at one width), widths (at one length), and how often each is timed."""

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    width: int = 128
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    length: int = 64
    tokens: int = 4096
    repeats: int = 7


QUICK = Settings(repeats=3)


def run(settings: Settings) -> Running:
    """Time a training step of one layer of each kind: batches of equally many tokens, and one sentence alone."""
    by_length: dict[str, list[float]] = {kind: [] for kind in CLAIMED}
    by_width: dict[str, list[float]] = {kind: [] for kind in CLAIMED}
    alone: dict[str, list[float]] = {kind: [] for kind in CLAIMED}
    for kind in CLAIMED:
        yield kind
        for length in settings.lengths:
            by_length[kind].append(_seconds(kind, length, settings.width, settings.tokens, settings.repeats))
            alone[kind].append(_seconds(kind, length, settings.width, length, settings.repeats))
        for width in settings.widths:
            by_width[kind].append(_seconds(kind, settings.length, width, settings.tokens, settings.repeats))
    return {
        "lengths": list(settings.lengths),
        "widths": list(settings.widths),
        "width": settings.width,
        "length": settings.length,
        "tokens": settings.tokens,
        "by_length": by_length,
        "alone": alone,
        "by_width": by_width,
    }


def verdict(data: Table) -> Verdict:
    """The claims: self-attention's time grows fastest with n; recurrence, which cannot run in parallel, waits."""
    n, _ = _exponents(data)
    below = data["lengths"].index(max(length for length in data["lengths"] if length <= data["width"]))

    def ratio(key: str, place: int) -> float:
        return float(data[key]["recurrent"][place] / data[key]["self-attention"][place])

    told = ", ".join(f"{kind} {n[kind]:.2f}" for kind in CLAIMED)
    crossing = _crossing(data)
    return Verdict(
        n["self-attention"] > n["recurrent"] + 0.3 and ratio("alone", below) > 1,
        f"a sentence's time grows with n to the power of {told}. One sentence alone, of n = {data['lengths'][below]} "
        f"and d = {data['width']}: a recurrent layer takes {ratio('alone', below):.1f} times as long as "
        f"self-attention. In a batch of {data['tokens']:,} tokens, where other sentences fill the wait, "
        f"{ratio('by_length', below):.1f} times; "
        + (f"from n = {crossing} on recurrence is faster there." if crossing else "slower there at every length."),
    )


def table(data: Table) -> Rows:
    """Exponents, fitted to the longest half of the lengths and the wider half of the widths, beside table 1's."""
    n, d = _exponents(data)
    rows = [["layer", "exponent of n", "table 1", "exponent of d", "table 1", "sequential operations"]]
    for kind, (claimed_n, claimed_d, sequential) in CLAIMED.items():
        rows.append([kind, f"{n[kind]:.2f}", str(claimed_n), f"{d[kind]:.2f}", str(claimed_d), sequential])
    return rows


def draw(data: Table, figure: Any) -> None:
    """Time of one sentence against length, alone and in a batch, and against width."""
    alone, batch, wide = figure.subplots(1, 3)
    panels = (
        (alone, "lengths", "alone", f"alone, d = {data['width']}", "length n"),
        (batch, "lengths", "by_length", f"in a batch, d = {data['width']}", "length n"),
        (wide, "widths", "by_width", f"in a batch, n = {data['length']}", "width d"),
    )
    for panel, sizes, key, title, label in panels:
        for kind, style in zip(CLAIMED, ("o-", "s--", "^:"), strict=True):
            panel.plot(data[sizes], [1e3 * seconds for seconds in data[key][kind]], style, label=kind, markersize=4)
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel="ms a sentence, trained", title=title)
        panel.set_xticks(data[sizes], [str(size) for size in data[sizes]], fontsize=7, minor=False)
        panel.minorticks_off()
    alone.legend(frameon=False, fontsize=8)


def _seconds(kind: str, length: int, width: int, tokens: int, repeats: int) -> float:
    """Return the median time of one sentence, in a batch of so many tokens."""
    torch.manual_seed(1)
    config = ModelConfig(d_model=width, d_ff=width, heads=max(1, width // 32), dropout=0.0)
    sentences = max(1, tokens // length)
    x = torch.randn(sentences, length, width, requires_grad=True)
    attention = EncoderLayer(config).self_attention
    layers = {"self-attention": attention, "recurrent": nn.LSTM(width, width, batch_first=True)}
    layer: nn.Module = layers.get(kind) or GatedConvolution(config)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = layer(x, attention.keys_values(x), None) if kind == "self-attention" else layer(x)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / sentences


def _exponents(data: Table) -> tuple[dict[str, float], dict[str, float]]:
    def fit(sizes: list[int], times: list[float]) -> float:
        half = len(sizes) // 2
        x, y = [math.log(s) for s in sizes[half:]], [math.log(t) for t in times[half:]]
        return statistics.linear_regression(x, y).slope

    return (
        {kind: fit(data["lengths"], data["by_length"][kind]) for kind in CLAIMED},
        {kind: fit(data["widths"], data["by_width"][kind]) for kind in CLAIMED},
    )


def _crossing(data: Table) -> int | None:
    """Return the length at which recurrence becomes the faster one."""
    pairs = zip(data["lengths"], data["by_length"]["self-attention"], data["by_length"]["recurrent"], strict=True)
    return next((length for length, attention, recurrent in pairs if recurrent < attention), None)
