"""What do the heads of a trained model look at, and what is lost without each? (section 3.2.2, figures 3 to 5)"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.translator import Translator

QUESTION = "Several heads instead of one: what does each look at, and what is lost when it is switched off?"
PAPER = "section 3.2.2"
MINUTES = (0.1, 0.5)
SENTENCES = (
    "Where is the station?",
    "I would like a cup of tea.",
    "She reads a book every evening.",
    "The weather is very nice today.",
    "My brother works in a small town.",
    "We have to wait until tomorrow.",
    "Tom bought a new car last week.",
    "The children are playing in the garden.",
    "I don't know what you mean.",
    "Can you help me with this problem?",
    "He forgot his keys at home.",
    "The old man walked slowly along the river.",
    "They will arrive on Monday morning.",
    "If it rains, we will stay at home.",
    "Nobody knows the answer to that question.",
    "This film is much better than the other one.",
    "I have never been to Berlin.",
    "She asked me why I was late.",
    "The train leaves in ten minutes.",
    "Please close the window before you go.",
)
LOOKS = ("previous", "same", "next", "end")


@dataclass(frozen=True)
class Settings:
    """The model folder, and how many of the sentences are translated."""

    bundle: str = "en-de"
    sentences: int = 20


QUICK = Settings(sentences=8)


def run(settings: Settings) -> Running:
    """Describe where each head looks; then switch each off and score the model's own translations again."""
    translator = Translator.load(settings.bundle)
    lines = list(SENTENCES[: settings.sentences])
    yield f"translating {len(lines)} sentences"
    found = [translator.explain(line) for line in lines]
    heads: dict[str, Table] = {}
    for name, weights_HLM in found[0].attention.items():
        for head in range(len(weights_HLM)):
            maps = [(one.attention[name][head], _forbidden(name, one.attention[name][head])) for one in found]
            heads[f"{name}.{head}"] = _describe(maps, cross=name.startswith("cross"))
    sources = translator.vocabulary.encode_source(lines)
    targets = [one.ids for [one] in translator.translate(lines)]
    symbols = sum(map(len, targets))
    before = [output.log_probability for output in translator.score_ids(sources, targets)]
    for name, described in heads.items():
        yield f"without {name}"
        deaf = translator.without(name)
        after = [output.log_probability for output in deaf.score_ids(sources, targets)]
        described["loss"] = (sum(before) - sum(after)) / symbols
        texts = [one.text for [one] in deaf.translate(lines)]
        described["changed"] = sum(text != one.text for text, one in zip(texts, found, strict=True)) / len(lines)
    return {"heads": heads, "sentences": len(lines), "loss": -sum(before) / symbols}


def verdict(data: Table) -> Verdict:
    """The claim: heads learn different tasks."""
    heads = data["heads"]
    sharp = {name: head for name, head in heads.items() if max(head["looks"].values()) > 0.5}
    kinds = sorted({max(head["looks"], key=head["looks"].get) for head in sharp.values()})
    losses = {name: head["loss"] for name, head in heads.items()}
    most = max(losses, key=lambda name: losses[name])
    idle = sum(loss < 0.02 for loss in losses.values())
    return Verdict(
        len(kinds) >= 2,
        f"of {len(heads)} heads {len(sharp)} give more than half of their weight to one place, "
        f"{len(kinds)} different kinds of it ({', '.join(kinds)}). Without {most} the model's own translations lose "
        f"most, {losses[most]:.2f} nats a symbol; {idle} heads are missed by less than 0.02.",
    )


def table(data: Table) -> Rows:
    """One row for each head."""
    head_row = [
        "head",
        *(f"{look}, %" for look in LOOKS),
        "entropy (nats)",
        "distance",
        "loss without (nats)",
        "changed, %",
    ]
    rows = [head_row]
    for name, head in data["heads"].items():
        looks = [f"{100 * head['looks'][look]:.0f}" for look in LOOKS]
        rows.append(
            [
                name,
                *looks,
                f"{head['entropy']:.2f}",
                f"{head['distance']:.1f}",
                f"{head['loss']:.3f}",
                f"{100 * head['changed']:.0f}",
            ]
        )
    return rows


def draw(data: Table, figure: Any) -> None:
    """What is lost without each head, and its entropy."""
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    colours = {"encoder": "C0", "decoder": "C1", "cross": "C2"}
    names = list(data["heads"])
    kinds = [name.partition(".")[0] for name in names]
    left.bar(
        range(len(names)), [data["heads"][name]["loss"] for name in names], color=[colours[kind] for kind in kinds]
    )
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    left.set(ylabel="nats a symbol lost", title="without the head")
    for kind, colour in colours.items():
        chosen = [data["heads"][name] for name in names if name.startswith(kind)]
        right.scatter([h["entropy"] for h in chosen], [h["loss"] for h in chosen], color=colour, s=14, label=kind)
    right.set(xlabel="entropy of its weights (nats)", ylabel="nats a symbol lost", title="sharp or spread")
    right.legend(frameon=False)


def _forbidden(name: str, weights_LM: np.ndarray) -> np.ndarray:
    """Return where attention is not allowed: a decoder sees nothing later."""
    return np.triu(np.ones_like(weights_LM, dtype=bool), 1) & name.startswith("decoder")


def _describe(maps: list[tuple[np.ndarray, np.ndarray]], cross: bool) -> Table:
    looks: dict[str, list[float]] = {look: [] for look in LOOKS}
    entropies, distances = [], []
    for weights_LM, forbidden_LM in maps:
        rows, columns = np.indices(weights_LM.shape)
        # across languages places differ in number: compare where they stand between begin and end
        offset_LM = columns - (rows * (weights_LM.shape[1] - 1) / max(len(weights_LM) - 1, 1) if cross else rows)
        offset_LM = np.rint(offset_LM)
        for look, offset in (("previous", -1), ("same", 0), ("next", 1)):
            looks[look] += (weights_LM * (offset_LM == offset)).sum(1).tolist()
        looks["end"] += weights_LM[:, -1].tolist()
        allowed_LM = np.where(forbidden_LM, 1.0, np.maximum(weights_LM, 1e-12))
        entropies += (-(weights_LM * np.log(allowed_LM)).sum(1)).tolist()
        distances += (weights_LM * np.abs(offset_LM)).sum(1).tolist()
    return {
        "looks": {look: float(np.mean(values)) for look, values in looks.items()},
        "entropy": float(np.mean(entropies)),
        "distance": float(np.mean(distances)),
    }
