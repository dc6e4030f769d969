"""Why leave recurrence and convolution? Copying and reversing at growing length, by every family. (sections 1, 4)"""

from dataclasses import dataclass
from typing import Any

import torch

from heedful.config import Table
from heedful.inspection.cost import parameters
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.lab.toy import FIRST, copying, learn, right
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig

QUESTION = "Why leave recurrence and convolution? How long a sequence can each family learn to reverse?"
PAPER = "sections 1 and 4"
MINUTES = (1.2, 15.0)
FAMILIES = {  # about equally many parameters
    "transformer": {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "d_model": 64,
        "d_ff": 128,
        "heads": 4,
        "normalization": "pre",
    },
    "lstm-attention": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 62},
    "convolution": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 64},
    "lstm": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 62},
}
STEPS_BETWEEN = {  # the longest path between two positions of a sequence of n, in layers or time steps (table 1)
    "transformer": "O(1)",
    "lstm-attention": "O(1) to the source, O(n) within it",
    "convolution": "O(1) to the source, O(n / k) within it",
    "lstm": "O(n)",
}


@dataclass(frozen=True)
class Settings:
    """Symbols, lengths trained on and tested at, and the training: the same for every family."""

    symbols: int = 16
    longest: int = 30
    tested: tuple[int, ...] = (5, 10, 15, 20, 25, 30)
    steps: int = 1_000
    rate: float = 2e-3
    repeats: int = 3


QUICK = Settings(longest=16, tested=(4, 8, 12, 16), steps=400, repeats=1)


def run(settings: Settings) -> Running:
    """Train every family alike on lengths up to the longest; test each length by itself."""
    found: dict[str, Table] = {}
    size = FIRST + settings.symbols
    for family, sizes in FAMILIES.items():
        config = ModelConfig(family=family, dropout=0.0, max_positions=128, **sizes)  # type: ignore[arg-type]
        runs = []
        for seed in range(1, settings.repeats + 1):
            yield f"{family}, seed {seed}"
            torch.manual_seed(seed)
            model = build_model(config, size, size)
            task = copying(settings.symbols, 1, settings.longest, backwards=True)
            for _ in learn(model, task, settings.steps, settings.rate, seed=seed):
                pass
            tests = [copying(settings.symbols, n, n, backwards=True)(200, 77) for n in settings.tested]
            runs.append([float(right(model, pairs).float().mean()) for pairs in tests])
        found[family] = {"right": runs, "parameters": sum(parameters(config, size, size).values())}
    return {"lengths": list(settings.tested), "families": found}


def verdict(data: Table) -> Verdict:
    """The claim: short paths make long-range dependencies easier to learn."""
    means = {family: _means(found["right"]) for family, found in data["families"].items()}
    longest = {
        family: max((n for n, mean in zip(data["lengths"], row, strict=True) if mean >= 0.5), default=0)
        for family, row in means.items()
    }
    told = ", ".join(f"{family} {length}" for family, length in longest.items())
    rest = [length for family, length in longest.items() if family != "transformer"]
    return Verdict(
        longest["transformer"] > max(rest),
        f"the longest sequence of which at least half are reversed right, of {data['lengths'][-1]} trained on: {told} "
        f"(0: not even the shortest). The same steps, rate and batches for all, about equally many parameters.",
    )


def table(data: Table) -> Rows:
    """Share of sequences reversed right, by length; the mean of the repeats and its spread."""
    rows = [["family", "parameters", "path between positions", *(f"n = {n}, %" for n in data["lengths"])]]
    for family, found in data["families"].items():
        cells = []
        for place in range(len(data["lengths"])):
            values = [100 * run[place] for run in found["right"]]
            spread = f" ({min(values):.0f} to {max(values):.0f})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.0f}{spread}")
        rows.append([family, f"{found['parameters']:,}", STEPS_BETWEEN[family], *cells])
    return rows


def draw(data: Table, figure: Any) -> None:
    """What was reversed right by length; each repeat a thin line."""
    axis = figure.subplots()
    for number, (family, found) in enumerate(data["families"].items()):
        style = ("o-", "s--", "^:", "x-.")[number]
        axis.plot(data["lengths"], [100 * m for m in _means(found["right"])], style, label=family, color=f"C{number}")
        for run in found["right"]:
            axis.plot(data["lengths"], [100 * value for value in run], color=f"C{number}", alpha=0.25, linewidth=0.8)
    axis.set(xlabel="length of the sequence", ylabel="reversed right, %", ylim=(-3, 103))
    axis.legend(frameon=False)


def _means(runs: list[list[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*runs, strict=True)]
