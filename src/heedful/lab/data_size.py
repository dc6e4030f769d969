"""From how much data on is a Transformer worth it? Against an LSTM with attention, by pairs. (section 5)"""

from dataclasses import dataclass
from typing import Any

from heedful.config import Table, merge
from heedful.lab import corpora
from heedful.lab.experiment import Rows, Running, Verdict, ahead, mean_and_range

QUESTION = "How much data does the Transformer need before it is ahead of recurrence?"
PAPER = "section 5 and table 3 (D)"
MINUTES = (5.6, 29.0)
REVISIONS = ("the Transformer is pre-norm",)
NEEDS: tuple[str, ...] = ("tatoeba-en-de",)
FAMILIES = ("transformer", "lstm-attention")
CHANGES: dict[str, Table] = {  # of the Transformer's regularisation, at one size
    "dropout 0": {"model": {"dropout": 0.0}},
    "label smoothing 0": {"training": {"label_smoothing": 0.0}},
}
MEASURES = ("bleu", "training_loss", "development_loss", "seconds", "flops", "epochs", "parameters")


@dataclass(frozen=True)
class Settings(corpora.FamilySettings):
    """Numbers of pairs (0: all), where regularisation is left out, the training, and pairs to score on."""

    sizes: tuple[int, ...] = (500, 2_000, 8_000, 32_000, 0)
    changed_at: int = 2_000
    steps: int = 1_200
    tested: int = 2_000
    repeats: int = 2


MARGIN = 2.0  # BLEU, of one run: seeds differ by as much
QUICK = Settings(sizes=(500, 4_000, 0), changed_at=4_000, steps=350, tested=300, repeats=1)


def run(settings: Settings) -> Running:
    """Train both families for the same steps on the first pairs of Tatoeba, more and more; score the same test."""
    [name] = NEEDS
    training, development, test = (corpora.read(name, split) for split in corpora.SPLITS[name])
    held_out = development[: settings.tested], test[: settings.tested]

    def learn(family: str, pairs: int, change: str = "") -> Running:
        runs = []
        for seed in range(1, settings.repeats + 1):
            run_ = corpora.family_run(family, settings, seed)
            recipe = merge(run_, CHANGES.get(change, {}))
            told = f"{family}{', ' if change else ''}{change}, {pairs:,} pairs, seed {seed}"
            learned = yield from corpora.learn_text(told, recipe, training[:pairs], *held_out)
            found = {"bleu": learned.test["bleu"], "development_loss": learned.development["loss"], **vars(learned)}
            runs.append({measure: found[measure] for measure in MEASURES})
        return {"pairs": pairs, "runs": runs}

    families: dict[str, list[Table]] = {family: [] for family in FAMILIES}
    for pairs in (size or len(training) for size in settings.sizes):
        for family in FAMILIES:
            families[family].append((yield from learn(family, min(pairs, len(training)))))
    changes = {}
    for change in CHANGES:
        changes[change] = yield from learn("transformer", min(settings.changed_at, len(training)), change)
    return {"families": families, "changes": changes, "trained_for": settings.steps, "tested": len(held_out[1])}


def verdict(data: Table) -> Verdict:
    """The claim, to be held against small data too: the Transformer is the better one, given what it needs."""
    ours, theirs = data["families"].values()
    ahead = [_ahead(one, other) for one, other in zip(ours, theirs, strict=True)]
    first = next((place for place in range(len(ahead)) if all(ahead[place:])), None)
    scores = "; ".join(
        f"{one['pairs']:,} pairs: {_mean(one, 'bleu'):.1f} against {_mean(other, 'bleu'):.1f}"
        for one, other in zip(ours, theirs, strict=True)
    )
    since = (
        f"from {ours[first]['pairs']:,} pairs on the Transformer is ahead"
        if first is not None
        else f"with {ours[-1]['pairs']:,} pairs, read {_mean(ours[-1], 'epochs'):.1f} times, it is not ahead"
    ) + (f" by more than {MARGIN:g} BLEU" if 1 in (len(ours[0]["runs"]), len(theirs[0]["runs"])) else "")
    return Verdict(
        first is not None,
        f"{since}{' with every seed' if len(ours[0]['runs']) > 1 else ''} (BLEU after {data['trained_for']:,} steps, "
        f"Transformer against LSTM with attention: {scores}). {_regularisation(data)}",
    )


def table(data: Table) -> Rows:
    """Means of the repeats, and BLEU's spread; losses are the final weights', without dropout and smoothing."""
    head = ["pairs", "model", "parameters", "epochs", "BLEU", "training loss", "development loss", "gap", "seconds"]
    rows = [[*head, "FLOPs"]]
    found = [
        (family, size)
        for sizes in zip(*data["families"].values(), strict=True)
        for family, size in zip(data["families"], sizes, strict=True)
    ]
    for model, size in [*found, *((f"transformer, {change}", size) for change, size in data["changes"].items())]:
        training, development = _mean(size, "training_loss"), _mean(size, "development_loss")
        rows.append(
            [
                f"{size['pairs']:,}",
                model,
                f"{_mean(size, 'parameters'):,.0f}",
                f"{_mean(size, 'epochs'):.1f}",
                mean_and_range([run["bleu"] for run in size["runs"]]),
                f"{training:.2f}",
                f"{development:.2f}",
                f"{development - training:.2f}",
                f"{_mean(size, 'seconds'):.0f}",
                f"{_mean(size, 'flops'):.1e}",
            ]
        )
    return rows


def draw(data: Table, figure: Any) -> None:
    """BLEU and the generalisation gap against pairs; a dot for each repeat; without regularisation beside them."""
    left, right = figure.subplots(1, 2)
    for number, (family, sizes) in enumerate(data["families"].items()):
        pairs = [size["pairs"] for size in sizes]
        for panel, value in ((left, _bleu), (right, _gap)):
            every = [[value(run) for run in size["runs"]] for size in sizes]
            means = [sum(values) / len(values) for values in every]
            panel.plot(pairs, means, ("o-", "s--")[number], color=f"C{number}", label=family, markersize=4)
            for count, values in zip(pairs, every, strict=True):
                panel.plot([count] * len(values), values, ".", color=f"C{number}", alpha=0.4, markersize=4)
    for number, (change, size) in enumerate(data["changes"].items()):
        for panel, value in ((left, _bleu), (right, _gap)):
            values = [value(run) for run in size["runs"]]
            panel.plot([size["pairs"]], [sum(values) / len(values)], "x+"[number], color="k", label=change)
    left.set(xscale="log", xlabel="pairs", ylabel=f"BLEU on {data['tested']:,} test pairs", ylim=(0, None))
    right.set(xscale="log", xlabel="pairs", ylabel="development loss less training loss, nats", title="gap")
    left.legend(frameon=False, fontsize=8)


def _regularisation(data: Table) -> str:
    """Say what leaving dropout or label smoothing out changed, beside the same model with both."""
    told = []
    for change, size in data["changes"].items():
        for base in data["families"]["transformer"]:
            if base["pairs"] == size["pairs"]:
                bleu = _mean(size, "bleu") - _mean(base, "bleu")
                gap = sum(map(_gap, size["runs"])) / len(size["runs"]) - sum(map(_gap, base["runs"])) / len(
                    base["runs"]
                )
                told.append(f"{change} {bleu:+.1f} BLEU and {gap:+.2f} nats of gap, at {size['pairs']:,} pairs")
    return f"Left out: {'; '.join(told)}." if told else ""


def _ahead(one: Table, other: Table) -> bool:
    """Whether every seed of the one is above every seed of the other, or its one run well above."""
    ours, theirs = ([run["bleu"] for run in size["runs"]] for size in (one, other))
    return ahead(ours, theirs, MARGIN)


def _bleu(run: Table) -> float:
    return float(run["bleu"])


def _gap(run: Table) -> float:
    return float(run["development_loss"] - run["training_loss"])


def _mean(size: Table, measure: str) -> float:
    return float(sum(run[measure] for run in size["runs"]) / len(size["runs"]))
