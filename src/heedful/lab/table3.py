"""What does each part of the model do for its score? The paper's table 3, rows A to E, scaled down."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from heedful.config import Table, merge
from heedful.lab import corpora
from heedful.lab.experiment import Rows, Running, Verdict

QUESTION = "Which of the paper's changes to the model, rows A to E of table 3, change a small one alike?"
PAPER = "section 6.2, table 3"
MINUTES = (4.2, 48.0)
REVISIONS = ("the Transformer is pre-norm",)
NEEDS: tuple[str, ...] = ("multi30k-en-de",)
LEARNED = 5.0  # BLEU below which a model translates nothing
PAPER_BASE = (4.92, 25.8)  # perplexity of a piece and BLEU on newstest2013


class Row(NamedTuple):
    """A row of table 3: what the paper changed and found, and the same change here."""

    paper: str
    perplexity: float
    bleu: float
    here: str
    change: Table


@dataclass(frozen=True)
class Settings:
    """The base model (layers of each stack, d_model; d_ff is twice that, and 4 heads), its training, and which rows."""

    layers: int = 4
    d_model: int = 128
    vocabulary: int = 2_000
    steps: int = 700
    tokens: int = 1_024
    pairs: int = 29_000
    development: int = 1_014
    repeats: int = 3
    rows: str = "ABCDE"


QUICK = Settings(layers=2, d_model=64, steps=120, pairs=4_000, development=100)


def rows_of(settings: Settings) -> dict[str, Row]:
    """Return the rows, the paper's sizes scaled to the base model's here; the letter of each begins its key."""
    d, layers = settings.d_model, settings.layers
    third, two_thirds, four_thirds = max(1, layers // 3), max(1, round(layers * 2 / 3)), math.ceil(layers * 4 / 3)
    rows = {
        "A1": Row("heads 1", 5.29, 24.9, "heads 1", {"heads": 1}),
        "A2": Row("heads 4", 5.00, 25.5, "heads 2", {"heads": 2}),
        "A3": Row("heads 16", 4.91, 25.8, "heads 8", {"heads": 8}),
        "A4": Row("heads 32", 5.01, 25.4, "heads 16", {"heads": 16}),
        "B1": Row("d_k 16", 5.16, 25.1, f"d_k {d // 16}", {"d_k": d // 16}),
        "B2": Row("d_k 32", 5.01, 25.4, f"d_k {d // 8}", {"d_k": d // 8}),
        "C1": Row("N 2", 6.11, 23.7, f"N {third}", {"encoder_layers": third, "decoder_layers": third}),
        "C2": Row("N 4", 5.19, 25.3, f"N {two_thirds}", {"encoder_layers": two_thirds, "decoder_layers": two_thirds}),
        "C3": Row(
            "N 8", 4.88, 25.5, f"N {four_thirds}", {"encoder_layers": four_thirds, "decoder_layers": four_thirds}
        ),
        "C4": Row("d_model 256", 5.75, 24.5, f"d_model {d // 2}", {"d_model": d // 2}),
        "C5": Row("d_model 1024", 4.66, 26.0, f"d_model {2 * d}", {"d_model": 2 * d}),
        "C6": Row("d_ff 1024", 5.12, 25.4, f"d_ff {d}", {"d_ff": d}),
        "C7": Row("d_ff 4096", 4.75, 26.2, f"d_ff {4 * d}", {"d_ff": 4 * d}),
        "D1": Row("dropout 0", 5.77, 24.6, "dropout 0", {"dropout": 0.0}),
        "D2": Row("dropout 0.2", 4.95, 25.5, "dropout 0.2", {"dropout": 0.2}),
        "D3": Row("label smoothing 0", 4.67, 25.3, "label smoothing 0", {"label_smoothing": 0.0}),
        "D4": Row("label smoothing 0.2", 5.47, 25.7, "label smoothing 0.2", {"label_smoothing": 0.2}),
        "E1": Row("learned positions", 4.92, 25.7, "learned positions", {"positions": "learned", "max_positions": 512}),
    }
    if two_thirds in (third, layers):  # of two layers a third and two thirds are the same model
        del rows["C2"]
    return {key: row for key, row in rows.items() if key[0] in settings.rows}


def run(settings: Settings) -> Running:
    """Train the base model with several seeds, and each row's with one; compare development perplexity and BLEU."""
    [name] = NEEDS
    training, development = (corpora.read(name, split) for split in corpora.SPLITS[name][:2])
    texts = training[: settings.pairs], development[: settings.development]

    def learn(told: str, change: Table, seed: int) -> Running:
        learned = yield from corpora.learn_text(
            f"{told}, seed {seed}", _recipe(change, seed, settings), *texts, texts[1][:1]
        )
        scores = {key: learned.development[key] for key in ("perplexity", "bleu")}
        return {**scores, "parameters": learned.parameters, "epochs": learned.epochs, "flops": learned.flops}

    base = []
    for seed in range(1, settings.repeats + 1):
        base.append((yield from learn("base", {}, seed)))
    rows = {}
    for key, row in rows_of(settings).items():
        found = yield from learn(f"{key} {row.here}", row.change, 1)
        rows[key] = {"here": row.here, "paper": row.paper, "paper_scores": [row.perplexity, row.bleu], **found}
    return {"base": base, "rows": rows, "layers": settings.layers, "d_model": settings.d_model}


def verdict(data: Table) -> Verdict:
    """The claims of table 3, one a row: here a change counts if it is larger than what another seed changes."""
    parts, chances = [], []
    for place, measure in enumerate(("perplexity", "bleu")):
        signs = [_signs(data, row, place) for row in data["rows"].values()]
        told = [ours == papers for ours, papers in signs if ours and papers]
        chances.append(_chance(sum(told), len(told)))
        names = [f"{key} {row['here']}" for key, row in data["rows"].items() if math.prod(_signs(data, row, place)) < 0]
        against = f" (not: {', '.join(names)})" if names else ""
        parts.append(
            f"{'BLEU' if place else measure}: {sum(told)} of {len(told)} signs that can be told agree with the "
            f"paper's{against}; {len(signs) - len(told)} of {len(signs)} cannot be told"
        )
    epochs, bleu = (sum(run[key] for run in data["base"]) / len(data["base"]) for key in ("epochs", "bleu"))
    learned = bleu >= LEARNED
    begun = (
        f" The base model itself has a BLEU of {bleu:.1f}: it has hardly begun to translate, and what can be "
        "told is which changes help it to begin."
    )
    return Verdict(
        learned and max(chances) < 0.5 and min(chances) < 0.05,
        f"{'. '.join(parts)}. By tossing a coin as many would agree with probability "
        f"{' and '.join(f'{chance:.2g}' for chance in chances)}. After {epochs:.1f} epochs of training; a change "
        f"within the spread of {len(data['base'])} seeds of the base model is none." + begun * (not learned),
    )


def table(data: Table) -> Rows:
    """Each row's change against the base model, here and in the paper, and whether the signs agree."""
    means, spreads = _base(data)
    head = ["row", "here", "in the paper", "parameters"]
    base = ["base", f"N {data['layers']}, d_model {data['d_model']}", "N 6, d_model 512"]
    base.append(f"{data['base'][0]['parameters']:,}")
    for place, measure in enumerate(("perplexity", "BLEU")):
        head += [measure, "change", "the paper's", "agrees"]
        base += [f"{means[place]:.2f}", f"seeds: {spreads[place]:.2f}", f"({PAPER_BASE[place]})", ""]
    rows = [head, base]
    for key, row in data["rows"].items():
        cells = [key[0], row["here"], row["paper"], f"{row['parameters']:,}"]
        for place, measure in enumerate(("perplexity", "bleu")):
            ours, papers = _signs(data, row, place)
            agrees = "no difference seen" if not ours else "" if not papers else "yes" if ours == papers else "no"
            change, theirs = row[measure] - means[place], row["paper_scores"][place] - PAPER_BASE[place]
            cells += [f"{row[measure]:.2f}", f"{change:+.2f}", f"{theirs:+.2f}", agrees]
        rows.append(cells)
    return rows


def draw(data: Table, figure: Any) -> None:
    """The changes in percent of the base model's score, here beside the paper's; grey: the spread of seeds."""
    means, spreads = _base(data)
    labels = []
    for key, row in data["rows"].items():
        size = row["paper"].split()[-1]
        labels.append(f"{key[0]} {row['here']}" + (f" ({size})" if row["here"] != row["paper"] else ""))
    panels = figure.subplots(1, 2, sharey=True)
    for place, (panel, measure) in enumerate(zip(panels, ("perplexity", "bleu"), strict=True)):
        ours = [100 * (row[measure] / max(means[place], 1e-9) - 1) for row in data["rows"].values()]
        papers = [100 * (row["paper_scores"][place] / PAPER_BASE[place] - 1) for row in data["rows"].values()]
        edge = 100 * spreads[place] / max(means[place], 1e-9)
        panel.axvspan(-edge, edge, color="0.9", zorder=0)
        panel.barh([i - 0.2 for i in range(len(ours))], ours, height=0.38, label="here")
        panel.barh([i + 0.2 for i in range(len(ours))], papers, height=0.38, label="the paper")
        panel.axvline(0, color="k", linewidth=0.6)
        better = "more is better" if place else "less is better"
        panel.set(xlabel=f"change of {'BLEU' if place else measure}, % ({better})")
        panel.set_yticks(range(len(labels)), labels, fontsize=6)
        panel.tick_params(axis="x", labelsize=7)
    panels[0].invert_yaxis()
    panels[0].set_ylabel("row, here (in the paper)")
    panels[0].legend(frameon=False, fontsize=7)


def _recipe(change: Table, seed: int, settings: Settings) -> Table:
    model = {
        "encoder_layers": settings.layers,
        "decoder_layers": settings.layers,
        "d_model": settings.d_model,
        "d_ff": 2 * settings.d_model,
        "heads": 4,
        "dropout": 0.1,
        "normalization": "pre",  # post-norm, as the paper has it, begins too late for so short a training
    }
    run = corpora.short_run(
        model, vocabulary=settings.vocabulary, tokens=settings.tokens, steps=settings.steps, seed=seed
    )
    of_training = {key: value for key, value in change.items() if key == "label_smoothing"}
    of_model = {key: value for key, value in change.items() if key != "label_smoothing"}
    return merge(run, {"model": of_model, "training": of_training})


def _base(data: Table) -> tuple[list[float], list[float]]:
    """Return the mean and the spread, largest less smallest, of the base model's perplexity and BLEU over its seeds."""
    values = [[run[measure] for run in data["base"]] for measure in ("perplexity", "bleu")]
    return [sum(each) / len(each) for each in values], [max(each) - min(each) for each in values]


def _signs(data: Table, row: Table, place: int) -> tuple[int, int]:
    """Return the sign of a row's change here, 0 within the spread of seeds, and of the paper's."""
    means, spreads = _base(data)
    change = row[("perplexity", "bleu")[place]] - means[place]
    ours = 0 if abs(change) <= spreads[place] else int(math.copysign(1, change))
    theirs = round(row["paper_scores"][place] - PAPER_BASE[place], 6)
    return ours, int(math.copysign(1, theirs)) if theirs else 0


def _chance(agree: int, told: int) -> float:
    """Return the probability that so many or more of fair coins fall one way."""
    return float(sum(math.comb(told, count) for count in range(agree, told + 1)) / 2**told)
