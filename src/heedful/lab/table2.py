"""What does an equal score cost each family in floating-point operations of training? (section 6.1, table 2)"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from heedful.config import Table, merge
from heedful.lab import corpora
from heedful.lab.experiment import Rows, Running, Verdict, mean_and_range

QUESTION = "Does the Transformer reach the same score as recurrence and convolution with less training?"
PAPER = "section 6.1, table 2"
MINUTES = (4.4, 28.8)
NEEDS: tuple[str, ...] = ("multi30k-en-de",)
IN_THE_PAPER = {"transformer": 3.3e18, "convolution": 9.6e18, "lstm-attention": 2.3e19}  # base; ConvS2S; GNMT + RL


@dataclass(frozen=True)
class Settings(corpora.FamilySettings):
    """Vocabulary, layers of each stack, training, how often it is scored, and on how many development pairs."""

    scored: int = 20
    development: int = 300
    repeats: int = 2


QUICK = Settings(steps=450, scored=6, development=100, repeats=1)


def run(settings: Settings) -> Running:
    """Train every family alike, and score it by greedy search again and again; FLOPs are counted by formula."""
    [name] = NEEDS
    training, development = (corpora.read(name, split) for split in corpora.SPLITS[name][:2])
    chosen = development[: settings.development]
    families: dict[str, list[Table]] = {}
    for family in corpora.FAMILIES:
        families[family] = []
        for seed in range(1, settings.repeats + 1):
            learned = yield from corpora.learn_text(
                f"{family}, seed {seed}", _recipe(family, seed, settings), training, chosen, chosen[:1]
            )
            curve = [{key: point[key] for key in ("step", "seconds", "flops", "bleu")} for point in learned.curve]
            families[family].append({"parameters": learned.parameters, "epochs": learned.epochs, "curve": curve})
    return {"families": families, "development": len(chosen)}


def verdict(data: Table) -> Verdict:
    """The claim: better, at a fraction of the cost of training."""
    levels = _levels(data)
    needed = {reached: _needed(data, score) for reached, score in levels.items()}
    firsts = [min(found, key=lambda family: found[family]) for found in needed.values()]
    most = max(levels)
    least = needed[most].get("transformer", 0.0)

    def told(reached: int) -> str:
        found = needed[reached]
        costs = ", ".join(f"{family} {flops:.1e}" for family, flops in sorted(found.items(), key=lambda item: item[1]))
        return f"BLEU {levels[reached]:.1f}, which {reached} families reach: {costs}"

    times = ", ".join(f"{family} {flops / least:.1f}" for family, flops in needed[most].items() if least)
    paper = IN_THE_PAPER["convolution"] / IN_THE_PAPER["transformer"]
    return Verdict(
        min(levels.values()) > 0 and all(first == "transformer" for first in firsts),
        f"FLOPs of training needed for {'; '.join(map(told, levels))}. As multiples of the Transformer's, at the score "
        f"that {most} reach: {times}. (In the paper ConvS2S took {paper:.1f} times the base model's, for less.)",
    )


def table(data: Table) -> Rows:
    """What each family needed for each score, and its best; means of the repeats."""
    levels = _levels(data)
    costs = [f"{unit} to BLEU {score:.1f}" for score in levels.values() for unit in ("FLOPs", "seconds")]
    rows = [["family", "parameters", "FLOPs in all", "best BLEU", *costs, "FLOPs in the paper"]]
    for family, runs in data["families"].items():
        curve = _mean_curve(runs)
        best = mean_and_range([max(point["bleu"] for point in run["curve"]) for run in runs])
        cells = []
        for score in levels.values():
            flops, seconds = (_reached(curve, score, key) for key in ("flops", "seconds"))
            cells += ["not reached", ""] if flops is None or seconds is None else [f"{flops:.2e}", f"{seconds:.0f}"]
        paper = f"{IN_THE_PAPER[family]:.1e}" if family in IN_THE_PAPER else ""
        rows.append([family, f"{runs[0]['parameters']:,}", f"{curve[-1]['flops']:.2e}", best, *cells, paper])
    return rows


def draw(data: Table, figure: Any) -> None:
    """BLEU against FLOPs and against seconds; each repeat a thin line, the compared scores dotted."""
    panels = figure.subplots(1, 2, sharey=True)
    for panel, key, label in zip(
        panels, ("flops", "seconds"), ("FLOPs of training", "seconds of training"), strict=True
    ):
        for number, (family, runs) in enumerate(data["families"].items()):
            curves = [_mean_curve(runs), *(run["curve"] for run in runs)]
            for place, curve in enumerate(curves):
                look = {"alpha": 0.3, "linewidth": 0.8} if place else {"label": family, "marker": "os^x"[number]}
                x, y = ([point[axis] for point in curve] for axis in (key, "bleu"))
                panel.plot(x, y, color=f"C{number}", markersize=3, **look)
        for score in _levels(data).values():
            panel.axhline(score, color="0.6", linestyle=":", linewidth=0.8)
        panel.set(xlabel=label, xlim=(0, None), ylim=(0, None))
    panels[0].set(ylabel=f"BLEU on {data['development']} development pairs")
    panels[0].legend(frameon=False)


def _recipe(family: str, seed: int, settings: Settings) -> Table:
    run = corpora.family_run(family, settings, seed)
    # A constant rate and an average of the weights: each point of the curve is as good as a run that ends there.
    every = max(1, settings.steps // settings.scored)
    return merge(run, {"training": {"evaluate_every": every, "exponential_average": 0.99, "decay": 0.0}})


def _mean_curve(runs: list[Table]) -> list[Table]:
    curves = zip(*(run["curve"] for run in runs), strict=True)
    return [{key: sum(p[key] for p in points) / len(points) for key in points[0]} for points in curves]


def _levels(data: Table) -> dict[int, float]:
    """Return how many families reach a score -> the highest that so many reach, on the mean of the repeats."""
    bests = sorted((max(p["bleu"] for p in _mean_curve(runs)) for runs in data["families"].values()), reverse=True)
    return {reached: bests[reached - 1] for reached in range(len(bests), 1, -1)}


def _needed(data: Table, score: float) -> dict[str, float]:
    """Return the FLOPs after which each family that reaches the score does."""
    found = {family: _reached(_mean_curve(runs), score, "flops") for family, runs in data["families"].items()}
    return {family: flops for family, flops in found.items() if flops is not None}


def _reached(curve: list[Table], score: float, key: str) -> float | None:
    """Return where the score is first reached, on straight lines from point to point that begin at nothing."""
    for before, after in pairwise([{key: 0.0, "bleu": 0.0}, *curve]):
        if after["bleu"] >= score:
            share = (score - before["bleu"]) / (after["bleu"] - before["bleu"]) if after["bleu"] > before["bleu"] else 1
            return float(before[key] + share * (after[key] - before[key]))
    return None
