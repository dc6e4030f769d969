"""What do sinusoids give, and do they carry beyond the lengths that were trained on? (section 3.5, table 3 row E)"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.lab.toy import FIRST, copying, learn, right
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer, sinusoids

QUESTION = (
    "Sinusoids, learned positions, or none: what does each know of order, and beyond the lengths it was trained on?"
)
PAPER = "section 3.5, table 3 (E)"
MINUTES = (1.7, 5.5)
NEEDS: tuple[str, ...] = ()
KINDS = ("sinusoidal", "from 1", "learned", "none")  # "from 1": sinusoids whose first position is 1, not 0


@dataclass(frozen=True)
class Settings:
    """The picture's size, and the task: copy `trained` symbols at most, then up to `tested`."""

    d_model: int = 64
    offsets: tuple[int, ...] = (1, 2, 5, 10, 50)
    trained: int = 16
    tested: tuple[int, ...] = (4, 8, 12, 16, 18, 20, 24)
    steps: int = 1_000
    repeats: int = 3


QUICK = Settings(steps=400, repeats=1)


def run(settings: Settings) -> Running:
    """Show the linear map between offsets exactly, products against distance; then train a model of each kind."""
    table_LD = sinusoids(200, settings.d_model)
    errors = {str(k): float((_shift(table_LD[:-k], k) - table_LD[k:]).abs().max()) for k in settings.offsets}
    products = (table_LD[100] @ table_LD.T).tolist()
    scores: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for seed in range(1, settings.repeats + 1):
            yield f"training, {kind}, seed {seed}"
            scores[kind].append(_train_and_test(kind, seed, settings))
    return {
        "picture": table_LD[:64].tolist(),
        "offset_errors": errors,
        "products": products,
        "trained": settings.trained,
        "lengths": list(settings.tested),
        "right": scores,
    }


def verdict(data: Table) -> Verdict:
    """The claims: PE(p + k) is linear in PE(p); learned positions do as well; sinusoids may carry further."""
    worst = max(data["offset_errors"].values())
    within = [i for i, length in enumerate(data["lengths"]) if length <= data["trained"]]
    beyond = [i for i, length in enumerate(data["lengths"]) if length > data["trained"]]

    def mean(kind: str, places: list[int]) -> float:
        runs = data["right"][kind]
        return sum(sum(run[i] for i in places) for run in runs) / (len(runs) * len(places))

    order = mean("sinusoidal", within) > mean("none", within) + 0.2
    alike = abs(mean("sinusoidal", within) - mean("learned", within)) < 0.1
    begin = abs(mean("sinusoidal", within) - mean("from 1", within)) < 0.1
    further = mean("sinusoidal", beyond) > mean("learned", beyond) + 0.05
    told = ", ".join(f"{kind} {100 * mean(kind, within):.0f} and {100 * mean(kind, beyond):.0f} %" for kind in KINDS)
    return Verdict(
        worst < 1e-4 and order and alike,
        f"PE(p + k) is a rotation of PE(p), the same for every p, to within {worst:.0e}. Sequences of up to "
        f"{data['trained']} symbols copied right, and longer ones: {told}. Sinusoidal and learned positions "
        f"{'do alike' if alike else 'differ'} on the lengths that they were trained on, those that begin at 0 and at 1 "
        f"{'do alike' if begin else 'differ'}; beyond them sinusoids "
        f"{'carry further' if further else 'carry no further either'}; without positions copying "
        f"{'is not learned' if order else 'was learned as well, or nothing was'}.",
    )


def table(data: Table) -> Rows:
    """Share of sequences copied right, by length; the mean of the repeats."""
    rows = [["length", *(f"{kind}, % right" for kind in KINDS)]]
    for place, length in enumerate(data["lengths"]):
        means = [sum(run[place] for run in data["right"][kind]) / len(data["right"][kind]) for kind in KINDS]
        beyond = " (not trained on)" if length > data["trained"] else ""
        rows.append([f"{length}{beyond}", *(f"{100 * mean:.0f}" for mean in means)])
    return rows


def draw(data: Table, figure: Any) -> None:
    """The sinusoids, their products, and what was copied right by length."""
    figure.set_size_inches(9.5, 3.4)
    left, middle, right_ = figure.subplots(1, 3)
    shown = left.imshow(data["picture"], aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    left.set(xlabel="dimension", ylabel="position", title="PE(pos, i)")
    figure.colorbar(shown, ax=left, shrink=0.8, ticks=(-1, 0, 1))
    middle.plot(range(-100, 100), data["products"], linewidth=1)
    middle.set(xlabel="distance", ylabel="PE(p) . PE(p + distance)", title="products fall with distance")
    for kind, style in zip(KINDS, ("o-", "x-.", "s--", "^:"), strict=True):
        runs = data["right"][kind]
        means = [100 * sum(run[i] for run in runs) / len(runs) for i in range(len(data["lengths"]))]
        right_.plot(data["lengths"], means, style, label=kind)
    right_.axvline(data["trained"], color="grey", linewidth=0.8)
    right_.set(xlabel="length (trained up to the line)", ylabel="copied right, %", ylim=(-3, 103), title="copying")
    right_.legend(frameon=False, loc="center left", fontsize=8)


def _shift(table_LD: Tensor, k: int) -> Tensor:
    """Return M_k PE(p): each pair (sin, cos) turned by k times its frequency; M_k does not depend on p."""
    d = table_LD.size(1)
    angle_E = k / 10000 ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
    sin_LE, cos_LE = table_LD.double()[:, 0::2], table_LD.double()[:, 1::2]
    turned = [sin_LE * angle_E.cos() + cos_LE * angle_E.sin(), cos_LE * angle_E.cos() - sin_LE * angle_E.sin()]
    return torch.stack(turned, dim=-1).flatten(1)


def _train_and_test(kind: str, seed: int, settings: Settings) -> list[float]:
    torch.manual_seed(seed)
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "d_model": settings.d_model, "d_ff": 128, "heads": 4}
    config = ModelConfig(
        **sizes,  # type: ignore[arg-type]
        dropout=0.0,
        normalization="pre",
        positions="sinusoidal" if kind == "from 1" else kind,  # type: ignore[arg-type]
        first_position=1 if kind == "from 1" else 0,
        max_positions=64,
    )
    model = Transformer(config, FIRST + 16, FIRST + 16)
    for _ in learn(model, copying(16, 2, settings.trained), settings.steps, 2e-3, seed=seed):
        pass
    return [float(right(model, copying(16, n, n)(200, 77)).float().mean()) for n in settings.tested]
