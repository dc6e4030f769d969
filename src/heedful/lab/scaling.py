"""Why divide by the square root of d_k? (section 3.2.1 and its footnote)"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.lab.toy import FIRST, copying, learn
from heedful.model.settings import ModelConfig
from heedful.model.transformer import MultiHeadAttention, Transformer

QUESTION = "Why are the scores of attention divided by the square root of d_k?"
PAPER = "section 3.2.1"
MINUTES = (0.5, 1.5)
NEEDS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Widths, keys that a query chooses from, and the training that both kinds of attention get."""

    widths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    keys: int = 16
    queries: int = 20_000
    steps: int = 600
    repeats: int = 3


QUICK = Settings(queries=4_000, steps=120)


def run(settings: Settings) -> Running:
    """Measure softmax of random products, then train with and without the scaling."""
    torch.manual_seed(1)
    measured = []
    for width in settings.widths:
        yield f"d_k {width}"
        measured.append(_measure(width, settings))
    saturation = [
        {"x": x, "sigmoid": _sigmoid_slope(x), "softmax": _softmax_slope(x, settings.keys)} for x in range(13)
    ]
    curves: dict[str, list[list[float]]] = {"scaled": [], "unscaled": []}
    for kind, found in curves.items():
        for seed in range(1, settings.repeats + 1):
            yield f"training, {kind}, seed {seed}"
            found.append(_train(kind == "scaled", settings.steps, seed))
    return {"softmax": measured, "saturation": saturation, "keys": settings.keys, "curves": curves}


def verdict(data: Table) -> Verdict:
    """The claim: products grow with d_k and push softmax where its gradients are small; scaled, they do not."""
    first, last = data["softmax"][0], data["softmax"][-1]
    fades = last["gradient"]["unscaled"] / first["gradient"]["unscaled"]
    keeps = last["gradient"]["scaled"] / first["gradient"]["scaled"]
    needed = {kind: [_steps_to_learn(curve) for curve in curves] for kind, curves in data["curves"].items()}
    end = data["saturation"][-1]
    told = {kind: _told(steps, data["curves"][kind]) for kind, steps in needed.items()}
    steps = {kind: [math.inf if step is None else step for step in found] for kind, found in needed.items()}
    if None in needed["scaled"]:
        ending = "."
    elif min(steps["unscaled"]) > max(steps["scaled"]):
        ending = ": training is slower without it."
    elif None in needed["unscaled"]:
        ending = ": not every training learns without it."
    else:
        ending = ": training does not need it here."
    return Verdict(
        fades < 0.2 and keeps > 0.5,
        f"from d_k {first['width']} to {last['width']} the variance of q.k grows from {first['variance']:.1f} to "
        f"{last['variance']:.0f}, as d_k does. Without the scaling softmax's gradient falls to {100 * fades:.1f} % of "
        f"what it was, with it to {100 * keeps:.0f} %. It saturates as the sigmoid does: at an input of {end['x']} a "
        f"sigmoid's slope is {end['sigmoid']:.0e}, that of the weight of a key whose score is as far above "
        f"{data['keys'] - 1} others {end['softmax']:.0e}; at most 0.25 both. A small model (d_k 64) halves the loss of "
        f"guessing {told['scaled']} with it and {told['unscaled']} without" + ending,
    )


def table(data: Table) -> Rows:
    """One row for each width."""
    head = ["d_k", "variance of q.k", "entropy, unscaled (nats)", "scaled", "gradient, unscaled", "scaled"]
    return [head] + [
        [
            str(row["width"]),
            f"{row['variance']:.1f}",
            *(f"{row['entropy'][kind]:.3f}" for kind in ("unscaled", "scaled")),
            *(f"{row['gradient'][kind]:.4f}" for kind in ("unscaled", "scaled")),
        ]
        for row in data["softmax"]
    ]


def draw(data: Table, figure: Any) -> None:
    """Gradient against width; the slopes of the sigmoid and of softmax; the training curves."""
    figure.set_size_inches(9.5, 3.4)
    left, middle, right = figure.subplots(1, 3)
    widths = [row["width"] for row in data["softmax"]]
    for kind, style in (("scaled", "o-"), ("unscaled", "s--")):
        left.plot(widths, [row["gradient"][kind] for row in data["softmax"]], style, label=kind)
    left.set(xscale="log", yscale="log", xlabel="d_k", ylabel="norm of softmax's Jacobian", title="softmax")
    left.legend(frameon=False)
    for kind, style in (("softmax", "o-"), ("sigmoid", "k.--")):
        label = f"softmax, {data['keys']} keys" if kind == "softmax" else kind
        middle.plot(
            [row["x"] for row in data["saturation"]], [row[kind] for row in data["saturation"]], style, label=label
        )
    middle.set(xlabel="input, or score above the others", ylabel="slope", title="both saturate", ylim=(0, 0.36))
    middle.legend(frameon=False, loc="upper right")
    for (kind, curves), style in zip(data["curves"].items(), ("-", "--"), strict=True):
        for number, curve in enumerate(curves):
            colour = "C0" if kind == "scaled" else "C1"
            right.plot(_smooth(curve), style, color=colour, label=None if number else kind, linewidth=1)
    right.set(xlabel="step", ylabel="loss (nats a symbol)", title="learning to copy, d_k 64", ylim=(0, None))
    right.legend(frameon=False)


def _measure(width: int, settings: Settings) -> Table:
    query_ND, key_NKD = torch.randn(settings.queries, width), torch.randn(settings.queries, settings.keys, width)
    product_NK = (key_NKD @ query_ND[:, :, None])[:, :, 0]
    kinds = {"unscaled": product_NK, "scaled": product_NK / width**0.5}
    return {
        "width": width,
        "variance": float(product_NK.var()),
        "entropy": {kind: float(_entropy(scores.softmax(-1)).mean()) for kind, scores in kinds.items()},
        "gradient": {kind: float(_jacobian_norm(scores.softmax(-1)).mean()) for kind, scores in kinds.items()},
    }


def _sigmoid_slope(x: float) -> float:
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    point.sigmoid().backward()  # type: ignore[no-untyped-call]
    return float(cast(Tensor, point.grad))


def _softmax_slope(x: float, keys: int) -> float:
    """Return the slope of a key's weight in its score, which is `x` above that of all the others."""
    score_M = torch.zeros(keys, dtype=torch.float64)
    score_M[0] = x
    score_M.requires_grad_().softmax(-1)[0].backward()  # type: ignore[no-untyped-call]
    return float(cast(Tensor, score_M.grad)[0])


def _entropy(p_NK: Tensor) -> Tensor:
    return -(p_NK * p_NK.clamp_min(1e-30).log()).sum(-1)


def _jacobian_norm(p_NK: Tensor) -> Tensor:
    """Frobenius norm of d softmax / d scores = diag(p) - p p^T."""
    square_N, cube_N = p_NK.pow(2).sum(-1), p_NK.pow(3).sum(-1)
    return (square_N - 2 * cube_N + square_N.pow(2)).clamp_min(0).sqrt()


def _train(scaled: bool, steps: int, seed: int) -> list[float]:
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder_layers=2, decoder_layers=2, d_model=64, d_ff=128, heads=1, dropout=0.0, normalization="pre"
    )
    model = Transformer(config, FIRST + 16, FIRST + 16)
    if not scaled:  # what the queries are multiplied by here, attention divides by again
        for module in model.modules():
            if isinstance(module, MultiHeadAttention):
                module.query.register_forward_hook(lambda _module, _inputs, out: out * 64**0.5)
    return list(learn(model, copying(16, 4, 12), steps, 2e-3, seed=seed))


def _steps_to_learn(curve: list[float], symbols: int = 16) -> int | None:
    """Return how many steps it takes to half the loss of guessing, log(symbols), for good; None if never."""
    last = next((step for step in range(len(curve), 0, -1) if curve[step - 1] > math.log(symbols) / 2), 0)
    return last if last < len(curve) else None


def _told(steps: list[int | None], curves: list[list[float]]) -> str:
    found = [step for step in steps if step is not None]
    return f"in {sum(found) / len(found):.0f} steps" if len(found) == len(steps) else f"not within {len(curves[0])}"


def _smooth(curve: list[float], width: int = 9) -> list[float]:
    edges = [*range(0, len(curve), width), len(curve)]
    means = [sum(curve[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]
    return [value for value in means for _ in range(width)][: len(curve)]
