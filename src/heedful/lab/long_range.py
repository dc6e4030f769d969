"""Why leave recurrence and convolution? Paths measured, and recall, copying, reversing at growing length. (1, 4)"""

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

import torch

from heedful.config import Table
from heedful.inspection.cost import parameters
from heedful.lab.experiment import Rows, Running, Verdict, mean_and_range
from heedful.lab.paths import path_lengths
from heedful.lab.toy import FIRST, Task, copying, learn, recalling, right
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig

QUESTION = (
    "Why leave recurrence and convolution? How far apart are positions, and how long a sequence can each family learn?"
)
PAPER = "sections 1 and 4"
MINUTES = (1.9, 9.6)
NEEDS: tuple[str, ...] = ()
FAMILIES = {  # parameters differ by up to a third: 126,000 to 167,000
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
TASKS = ("recall", "copy", "reverse")
WAYS = {"source": "to the source", "target": "within the target"}  # from the last target position


@dataclass(frozen=True)
class Settings:
    """Symbols, lengths trained on and tested at, and the training, the same for every family; lengths of paths."""

    symbols: int = 16
    longest: int = 20
    tested: tuple[int, ...] = (4, 8, 12, 16, 20)
    steps: int = 800
    rate: float = 2e-3
    repeats: int = 2
    paths: tuple[int, ...] = (4, 8, 16, 32, 64)


QUICK = Settings(longest=10, tested=(2, 6, 10), steps=300, repeats=1, paths=(4, 8, 16, 32))


def run(settings: Settings) -> Running:
    """Count steps between positions; train every family alike on lengths up to the longest, test each by itself."""
    size = FIRST + settings.symbols + 1  # and the mark of what is to be recalled
    found: dict[str, Table] = {}
    for family, sizes in FAMILIES.items():
        config = ModelConfig(family=family, dropout=0.0, max_positions=128, **sizes)  # type: ignore[arg-type]
        yield f"{family}, paths"
        paths = [_longest_paths(config, length) for length in settings.paths]
        tasks: dict[str, list[list[float]]] = {task: [] for task in TASKS}
        for task, runs in tasks.items():
            for seed in range(1, settings.repeats + 1):
                yield f"{family}, {task}, seed {seed}"
                runs.append(_train_and_test(config, size, task, seed, settings))
        found[family] = {
            "paths": {way: [one[way] for one in paths] for way in WAYS},
            "parameters": sum(parameters(config, size, size).values()),
            "right": tasks,
        }
    return {"lengths": list(settings.tested), "paths": list(settings.paths), "families": found}


def verdict(data: Table) -> Verdict:
    """The claim: positions are fewer steps apart in the Transformer, and that makes long sequences easier to learn."""
    growth = {family: _exponents(data, family) for family in data["families"]}
    steps = ", ".join(f"{family} {own['source']:.2f} and {own['target']:.2f}" for family, own in growth.items())
    others = [max(own.values()) for family, own in growth.items() if family != "transformer"]
    shortest = max(growth["transformer"].values()) < 0.1 < min(others)
    parts, further = [], True
    for task in TASKS:
        longest = {family: _longest_learned(data, family, task) for family in data["families"]}
        further &= longest["transformer"] >= max(longest.values())
        parts.append(f"{task}: {', '.join(f'{family} {length}' for family, length in longest.items())}")
    areas = {family: _mean_right(data, family) for family in data["families"]}
    best = areas["transformer"] > max(area for family, area in areas.items() if family != "transformer")
    return Verdict(
        shortest and further and best,
        f"steps between the positions farthest apart grow with n to the power of, to the source and within the target: "
        f"{steps}, a convolution with as many layers as join them (the trained one has its two). The longest sequence "
        f"of which at least half are right, of {data['lengths'][-1]} trained on (0: not even the shortest): "
        f"{'; '.join(parts)}. Over all tasks and lengths right: "
        f"{', '.join(f'{family} {100 * area:.0f} %' for family, area in areas.items())}. The same steps, rate and "
        f"batches for all; parameters differ by up to a third, of which the Transformer has the most.",
    )


def table(data: Table) -> Rows:
    """Steps between positions with their exponents; right sequences by task and length: mean, spread of the repeats."""
    last = data["paths"][-1]
    head = ["family", "parameters", *(f"steps {name}, n = {last} (exponent)" for name in WAYS.values())]
    rows = [[*head, "task", *(f"right, n = {n}, %" for n in data["lengths"])]]
    for family, found in data["families"].items():
        growth = _exponents(data, family)
        steps = [f"{found['paths'][way][-1]} ({growth[way]:.2f})" for way in WAYS]
        for task, runs in found["right"].items():
            cells = [mean_and_range([100 * share for share in shares], ".0f") for shares in zip(*runs, strict=True)]
            rows.append([family, f"{found['parameters']:,}", *steps, task, *cells])
    return rows


def draw(data: Table, figure: Any) -> None:
    """Steps against length, and what is right by length in each task; each repeat a thin line."""
    figure.set_size_inches(8, 6.4)
    panels = figure.subplots(2, 3)
    styles = dict(zip(data["families"], ("o-", "s--", "^:", "x-."), strict=True))
    for number, (family, found) in enumerate(data["families"].items()):
        for panel, way in zip(panels[0], WAYS, strict=False):
            panel.plot(data["paths"], found["paths"][way], styles[family], color=f"C{number}", markersize=4)
        for panel, task in zip(panels[1], TASKS, strict=True):
            for run_ in found["right"][task]:
                panel.plot(data["lengths"], [100 * v for v in run_], color=f"C{number}", alpha=0.25, linewidth=0.8)
            means = [100 * statistics.mean(values) for values in zip(*found["right"][task], strict=True)]
            panel.plot(data["lengths"], means, styles[family], label=family, color=f"C{number}", markersize=4)
    for panel, name in zip(panels[0], WAYS.values(), strict=False):
        panel.set(xscale="log", yscale="log", xlabel="length n", ylabel="steps, most", title=f"path {name}")
        panel.set_xticks(data["paths"], [str(length) for length in data["paths"]])
        panel.minorticks_off()
    for panel, task in zip(panels[1], TASKS, strict=True):
        panel.set(xlabel="length of the sequence", ylabel="sequences right, %", ylim=(-3, 103), title=task)
    panels[0, 2].axis("off")
    panels[0, 2].legend(*panels[1, 0].get_legend_handles_labels(), frameon=False, loc="center")


def _longest_paths(config: ModelConfig, length: int) -> dict[str, int]:
    """Return the steps to the position that is farthest; a convolution gets as many layers as reach it."""
    narrow = replace(config, d_model=8, d_ff=8, heads=2)  # the width does not matter
    if config.family == "convolution":
        narrow = replace(narrow, decoder_layers=max(2, math.ceil(length / (config.kernel - 1))))
    return {way: max(steps) for way, steps in path_lengths(build_model(narrow, FIRST + 1, FIRST + 1), length).items()}


def _task(name: str, symbols: int, shortest: int, longest: int) -> Task:
    if name == "recall":
        return recalling(symbols, shortest, longest)
    return copying(symbols, shortest, longest, backwards=name == "reverse")


def _train_and_test(config: ModelConfig, size: int, task: str, seed: int, settings: Settings) -> list[float]:
    torch.manual_seed(seed)
    model = build_model(config, size, size)
    for _ in learn(model, _task(task, settings.symbols, 1, settings.longest), settings.steps, settings.rate, seed=seed):
        pass
    tests = [_task(task, settings.symbols, n, n)(200, 77) for n in settings.tested]
    return [float(right(model, pairs).float().mean()) for pairs in tests]


def _exponents(data: Table, family: str) -> dict[str, float]:
    lengths = [math.log(length) for length in data["paths"]]
    steps = data["families"][family]["paths"]
    return {way: statistics.linear_regression(lengths, [math.log(n) for n in steps[way]]).slope for way in WAYS}


def _longest_learned(data: Table, family: str, task: str) -> int:
    means = [statistics.mean(values) for values in zip(*data["families"][family]["right"][task], strict=True)]
    return max((n for n, mean in zip(data["lengths"], means, strict=True) if mean >= 0.5), default=0)


def _mean_right(data: Table, family: str) -> float:
    return float(statistics.mean(v for runs in data["families"][family]["right"].values() for one in runs for v in one))
