"""The worked example: one sentence through one attention head, every number on the way. (section 3.2)"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from heedful.config import Table
from heedful.inspection.worked_example import STEPS, steps_of
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.translator import Translator

QUESTION = "What does attention compute, step by step, for one sentence of one trained model?"
PAPER = "section 3.2"
MINUTES = (0.1, 0.1)
NEEDS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The model folder, the sentence, and the encoder's layer and head that are followed."""

    bundle: str = "en-de"
    text: str = "The cat sleeps on the sofa."
    layer: int = 0
    head: int = 0


QUICK = Settings()


def run(settings: Settings) -> Running:
    """Compute every intermediate from the weights alone, and compare with what the model itself computes."""
    yield f"{settings.text!r} through {settings.bundle}"
    translator = Translator.load(settings.bundle)
    return steps_of(translator, settings.text, settings.layer, settings.head)


def verdict(data: Table) -> Verdict:
    """The numbers are the model's own."""
    worst, weights = max(data["differences"].values()), data["steps"]["weights"]["numbers"]
    row = max(range(len(weights)), key=lambda i: max(weights[i]))
    column = max(range(len(weights)), key=lambda j: weights[row][j])
    return Verdict(
        worst < 1e-4,
        f"computed from the weights alone, every step agrees with the model's own to within {worst:.0e}. In layer "
        f"{data['layer']}, head {data['number']}, '{data['pieces'][row]}' looks at '{data['pieces'][column]}' most: "
        f"{100 * weights[row][column]:.0f} % of its weight.",
    )


def table(data: Table) -> Rows:
    """One row for each step: what, its shape, the first numbers of the first piece."""
    rows = [["step", "is", "shape", f"first numbers, '{data['pieces'][0]}'"]]
    for name, step in data["steps"].items():
        first = ", ".join(f"{value:.3f}" for value in step["numbers"][0][:4])
        rows.append([name, step.get("is", STEPS[name]), " x ".join(map(str, step["shape"])), f"{first}, ..."])
    return rows


def draw(data: Table, figure: Any) -> None:
    """The scores, scaled, and what softmax makes of them."""
    pieces = [piece.replace("\u2581", "") for piece in data["pieces"]]
    titles = {"scores": "Q Kᵀ", "scaled": f"Q Kᵀ / √{data['d_k']}", "weights": "softmax"}
    for panel, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        numbers = np.array(data["steps"][name]["numbers"])
        most = 1.0 if name == "weights" else float(np.abs(numbers).max())
        colours = {"cmap": "Blues", "vmin": 0} if name == "weights" else {"cmap": "RdBu_r", "vmin": -most}
        shown = panel.imshow(numbers, vmax=most, **colours)
        panel.set_xticks(range(len(pieces)), pieces, rotation=90)
        panel.set_yticks(range(len(pieces)), pieces)
        panel.set_title(title)
        figure.colorbar(shown, ax=panel, shrink=0.7)
