"""How do time, memory and steps in sequence grow with length and width? (section 4, table 1)"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from heedful.config import Table
from heedful.data.batches import batch_of
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.lab.long_range import FAMILIES
from heedful.lab.paths import Unrolled, longest_chain
from heedful.lab.toy import FIRST, copying
from heedful.model.convolution import GatedConvolution
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig
from heedful.model.transformer import SHORT, EncoderLayer
from heedful.training.loop import batch_loss

QUESTION = (
    "How do time and memory of training grow with the length n and the width d, and how many operations must follow "
    "each other?"
)
PAPER = "section 4, table 1"
MINUTES = (0.3, 0.3)
NEEDS: tuple[str, ...] = ()
Step = tuple[nn.Module, Callable[[], Tensor]]  # what is trained, and what computes its loss
HELD = math.isqrt(SHORT)  # the longest sequence that attention to itself holds all scores of
CLAIMED = {  # operations of a layer, exponents of n and of d; sequential operations
    "self-attention": (2, 1, "O(1)"),
    "recurrent": (1, 2, "O(n)"),
    "convolutional": (1, 2, "O(1)"),
}


@dataclass(frozen=True)
class Settings:
    """Lengths (at one width), widths (at one length), how often each is timed; lengths for whole models, for chains."""

    lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    width: int = 128
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    length: int = 64
    tokens: int = 4096
    repeats: int = 7
    sentences: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    chains: tuple[int, ...] = (8, 16, 32, 64, 128)


QUICK = Settings(repeats=3)


def run(settings: Settings) -> Running:
    """Time a training step of one layer of each kind, in a batch and of one sentence alone; then of whole models."""
    layers: dict[str, dict[str, list[float]]] = {
        key: {kind: [] for kind in CLAIMED} for key in ("by_length", "alone", "by_width", "kept", "chain")
    }
    for kind in CLAIMED:
        yield kind
        for length in settings.lengths:
            together = max(1, settings.tokens // length)
            step = _layer_step(kind, length, settings.width, together)
            layers["by_length"][kind].append(_seconds(step, settings.repeats) / together)
            one = _layer_step(kind, length, settings.width, 1)
            layers["alone"][kind].append(_seconds(one, settings.repeats))
            layers["kept"][kind].append(_bytes(one))
        for width in settings.widths:
            together = max(1, settings.tokens // settings.length)
            step = _layer_step(kind, settings.length, width, together)
            layers["by_width"][kind].append(_seconds(step, settings.repeats) / together)
        layers["chain"][kind] = [longest_chain(_layer_step(kind, n, 8, 1, unrolled=True)[1]()) for n in settings.chains]
    models: dict[str, Table] = {family: {"seconds": [], "bytes": []} for family in FAMILIES}
    for family, found in models.items():
        for length in settings.sentences:
            yield f"{family}, n = {length}"
            step = _model_step(family, length)
            found["seconds"].append(_seconds(step, settings.repeats))
            found["bytes"].append(_bytes(step))
    return {
        "lengths": list(settings.lengths),
        "widths": list(settings.widths),
        "width": settings.width,
        "length": settings.length,
        "tokens": settings.tokens,
        "chains": list(settings.chains),
        "sentences": list(settings.sentences),
        **layers,
        "models": models,
    }


def verdict(data: Table) -> Verdict:
    """The claims: self-attention's time grows fastest with n; recurrence, which cannot run in parallel, waits."""
    n = {kind: _exponent(data["lengths"], data["alone"][kind]) for kind in CLAIMED}
    chain = {kind: _exponent(data["chains"], data["chain"][kind]) for kind in CLAIMED}
    below = data["lengths"].index(max(length for length in data["lengths"] if length <= data["width"]))

    def ratio(key: str, place: int) -> float:
        return float(data[key]["recurrent"][place] / data[key]["self-attention"][place])

    told = ", ".join(f"{kind} {n[kind]:.2f}" for kind in CLAIMED)
    chains = ", ".join(f"{kind} {chain[kind]:.2f}" for kind in CLAIMED)
    crossing = _crossing(data["lengths"], data["by_length"]["self-attention"], data["by_length"]["recurrent"])
    models = ", ".join(
        f"{family} {1e3 * found['seconds'][-1]:.0f} ms and {found['bytes'][-1] / 2**20:.0f} MiB"
        for family, found in data["models"].items()
    )
    waits = chain["recurrent"] > 0.8 and chain["self-attention"] < 0.1
    return Verdict(
        n["self-attention"] > n["recurrent"] + 0.3 and ratio("alone", below) > 1 and waits,
        f"one sentence's time grows with n to the power of {told}; operations that must follow each other, counted in "
        f"the graph, to the power of {chains}. One sentence alone, of n = {data['lengths'][below]} "
        f"and d = {data['width']}: a recurrent layer takes {ratio('alone', below):.1f} times as long as "
        f"self-attention. In a batch of {data['tokens']:,} tokens, where other sentences fill the wait, "
        f"{ratio('by_length', below):.1f} times; "
        + (
            f"from n = {crossing} on recurrence is faster there. "
            if crossing
            else "there it is not the faster one for good. "
        )
        + f"A training step of a whole small model, one sentence of n = {data['sentences'][-1]}: {models}.",
    )


def table(data: Table) -> Rows:
    """Exponents, fitted to the larger half of the sizes, beside table 1's; then those of whole models.

    Time's are of one sentence alone, and of batches of as many tokens: there fewer sentences of more tokens wait less
    for each other, which adds to a recurrence's exponent. Table 1 leaves out attention's four projections, 8 n d² of
    its operations, which are most of them where d is larger than n. Memory's are those of the last two lengths before
    attention no longer holds its scores, and of the last two after.
    """
    head = ["", "time: exponent of n", "in a batch", "table 1", "exponent of d, projections too", "table 1, without"]
    head += [f"memory: exponent of n, up to {HELD}", "beyond"]
    rows = [[*head, f"in sequence, n = {data['chains'][-1]} (exponent)", "table 1"]]
    for kind, (claimed_n, claimed_d, sequential) in CLAIMED.items():
        n, many = (_exponent(data["lengths"], data[key][kind]) for key in ("alone", "by_length"))
        d = _exponent(data["widths"], data["by_width"][kind])
        kept, chain = _memory(data["lengths"], data["kept"][kind]), _exponent(data["chains"], data["chain"][kind])
        row = [f"layer: {kind}", f"{n:.2f}", f"{many:.2f}", str(claimed_n), f"{d:.2f}", str(claimed_d), *kept]
        rows.append([*row, f"{data['chain'][kind][-1]} ({chain:.2f})", sequential])
    for family, found in data["models"].items():
        n, kept = _exponent(data["sentences"], found["seconds"]), _memory(data["sentences"], found["bytes"])
        rows.append([f"model: {family}", f"{n:.2f}", "", "", "", "", *kept, "", ""])
    return rows


def draw(data: Table, figure: Any) -> None:
    """Time of one sentence against length and width, operations in sequence, and what whole models take."""
    figure.set_size_inches(9.5, 6.4)
    panels = figure.subplots(2, 3)
    layers = {kind: {key: data[key][kind] for key in ("alone", "by_length", "by_width", "chain")} for kind in CLAIMED}
    ms, mib = (1e3, "ms a sentence, trained"), (2**-20, "MiB kept for the way back")
    shown = (
        (layers, "lengths", "alone", f"layers, alone, d = {data['width']}", "length n", ms),
        (layers, "lengths", "by_length", f"layers, in a batch, d = {data['width']}", "length n", ms),
        (layers, "widths", "by_width", f"layers, in a batch, n = {data['length']}", "width d", ms),
        (layers, "chains", "chain", "layers, in sequence", "length n", (1, "operations, one after another")),
        (data["models"], "sentences", "seconds", "models, alone", "length n", ms),
        (data["models"], "sentences", "bytes", "models, memory", "length n", mib),
    )
    for panel, (lines, sizes, key, title, label, (unit, ylabel)) in zip(panels.flat, shown, strict=True):
        for (name, found), style in zip(lines.items(), ("o-", "s--", "^:", "x-."), strict=False):
            panel.plot(data[sizes], [unit * value for value in found[key]], style, label=name, markersize=4)
        panel.set(xscale="log", yscale="log", xlabel=label, ylabel=ylabel, title=title)
        panel.set_xticks(data[sizes], [str(size) for size in data[sizes]], fontsize=7, minor=False)
        panel.xaxis.minorticks_off()
    panels[1, 2].axvline(HELD, color="grey", linewidth=0.8)  # beyond it attention holds no scores
    panels[1, 2].set_title(f"memory (line: n = {HELD})")
    panels[0, 0].legend(frameon=False, fontsize=8)
    panels[1, 1].legend(frameon=False, fontsize=8)


def _layer_step(kind: str, length: int, width: int, sentences: int, *, unrolled: bool = False) -> Step:
    """Return a layer and what computes a loss of it; `unrolled`, a recurrence goes cell by cell."""
    torch.manual_seed(1)
    config = ModelConfig(d_model=width, d_ff=width, heads=max(1, width // 32), dropout=0.0)
    x = torch.randn(sentences, length, width, requires_grad=True)
    if kind == "self-attention":
        attention = EncoderLayer(config).self_attention
        return attention, lambda: attention(x, attention.keys_values(x), None).sum()
    if kind == "convolutional":
        convolution = GatedConvolution(config)
        return convolution, lambda: convolution(x).sum()
    fused = nn.LSTM(width, width, batch_first=True)
    recurrent = Unrolled(fused) if unrolled else fused
    return recurrent, lambda: cast(Tensor, recurrent(x)[0].sum())


def _model_step(family: str, length: int) -> Step:
    """Return a whole model and what computes its loss on one sentence of `length`."""
    torch.manual_seed(1)
    config = ModelConfig(family=family, dropout=0.0, max_positions=2 * length, **FAMILIES[family])  # type: ignore[arg-type]
    model = build_model(config, FIRST + 16, FIRST + 16)
    [(source, target)] = copying(16, length - 1, length - 1)(1, 1)
    batch = batch_of([source], [target])
    return model, lambda: batch_loss(model, batch, 0.0).smoothed


def _seconds(step: Step, repeats: int) -> float:
    """Return the median time of the way there and back, the first time left out."""
    times, (_, loss) = [], step
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss().backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _bytes(step: Step) -> int:
    """Return the memory that is kept for the way back, weights left out: the bulk of what a step takes at its peak.

    Weights that normalisation makes anew from a direction and a length are weights too.
    """
    module, loss = step
    with parametrize.cached():
        made = [getattr(part, name) for part in module.modules() for name in getattr(part, "parametrizations", {})]
        weights = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *made)}
        with _keeping() as kept:
            loss()
    return sum(size for address, size in kept.items() if address not in weights)


@contextmanager
def _keeping() -> Iterator[dict[int, int]]:
    """Collect what autograd keeps while the context lasts: address -> bytes, each piece of memory once."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # or another tensor could be given the same address

    def keep(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _exponent(sizes: list[int], values: list[float]) -> float:
    half = len(sizes) // 2
    x, y = [math.log(size) for size in sizes[half:]], [math.log(value) for value in values[half:]]
    return statistics.linear_regression(x, y).slope


def _memory(sizes: list[int], kept: list[float]) -> list[str]:
    """Return the exponents of the last two sizes up to HELD and of the last two beyond it; "" where there are none."""
    parts = [[pair for pair in zip(sizes, kept, strict=True) if (pair[0] <= HELD) is below] for below in (True, False)]
    return [
        f"{math.log(part[-1][1] / part[-2][1]) / math.log(part[-1][0] / part[-2][0]):.2f}" if len(part) > 1 else ""
        for part in parts
    ]


def _crossing(lengths: list[int], attention: list[float], recurrent: list[float]) -> int | None:
    """Return the length from which on recurrence is the faster one."""
    faster = [one < other for one, other in zip(recurrent, attention, strict=True)]
    return next((length for place, length in enumerate(lengths) if all(faster[place:])), None)
