"""What do heads look at, what is lost without each, and how many are best? (section 3.2.2, table 3 row A)"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from heedful.config import Table
from heedful.decoding.explanation import Explanation
from heedful.lab.experiment import Rows, Running, Verdict, mean_and_range
from heedful.lab.toy import FIRST, gathering, learn, right
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.translator import Translator

QUESTION = "Several heads instead of one: what does each look at, what is lost without it, and how many are best?"
PAPER = "section 3.2.2, table 3 (A)"
MARGIN = 0.01  # nats a symbol: what has learned a task differs by less from run to run
MINUTES = (2.1, 6.7)
REVISIONS = (
    "words are aligned by all of their pieces, and a row without a choice counts in neither entropy nor distance",
)
NEEDS: tuple[str, ...] = ()
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
LOOKS = ("previous", "same", "next", "end", "aligned")  # "aligned": at the word that the model's alignment names
KINDS = LOOKS[:-1]  # of heads; the alignment is itself the mean of some heads, which agree with it anyway


@dataclass(frozen=True)
class Settings:
    """The model folder, how many of the sentences are translated; numbers of heads, and the task that they learn."""

    bundle: str = "en-de"
    sentences: int = 20
    heads: tuple[int, ...] = (1, 2, 4, 8, 16)
    d_model: int = 64
    length: int = 12
    steps: int = 1_500
    repeats: int = 3


QUICK = Settings(sentences=8, steps=500, repeats=2)


def run(settings: Settings) -> Running:
    """Describe where each head looks, and switch each off; then train on one task with few or many heads."""
    described = yield from _inspect(settings)
    trained: dict[str, list[Table]] = {}
    for heads in settings.heads:
        trained[str(heads)] = []
        for seed in range(1, settings.repeats + 1):
            yield f"training with {heads} heads, seed {seed}"
            trained[str(heads)].append(_train(heads, seed, settings))
    return {**described, "trained": trained, "d_model": settings.d_model}


def _inspect(settings: Settings) -> Running:
    translator = Translator.load(settings.bundle)
    lines = list(SENTENCES[: settings.sentences])
    yield f"translating {len(lines)} sentences"
    found = [translator.explain(line) for line in lines]
    heads: dict[str, Table] = {}
    for name, weights_HLM in found[0].attention.items():
        for head in range(len(weights_HLM)):
            heads[f"{name}.{head}"] = _describe(found, name, head)
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
    """The claims: heads learn different tasks, and one head does worse; too many do as well, which is only told."""
    heads = data["heads"]
    looks = {name: {kind: head["looks"].get(kind, 0.0) for kind in KINDS} for name, head in heads.items()}
    sharp = {name: own for name, own in looks.items() if max(own.values()) > 0.5}
    kinds = sorted({max(own, key=lambda kind: own[kind]) for own in sharp.values()})
    losses = {name: head["loss"] for name, head in heads.items()}
    most = max(losses, key=lambda name: losses[name])
    idle = sum(loss < 0.02 for loss in losses.values())
    trained = {heads: [run["loss"] for run in runs] for heads, runs in data["trained"].items()}
    fewest, *_, many = trained
    best = min(trained, key=lambda heads: fmean(trained[heads]))
    alike = [heads for heads in trained if fmean(trained[heads]) < fmean(trained[best]) + MARGIN]
    bound = max(trained[best]) + MARGIN
    worse = {heads: sum(loss > bound for loss in trained[heads]) for heads in (fewest, many)}
    told = ", ".join(
        f"{heads} {fmean(trained[heads]):.3f} ({100 * fmean([run['right'] for run in runs]):.0f} %)"
        for heads, runs in data["trained"].items()
    )
    return Verdict(
        len(kinds) >= 2 and worse[fewest] == len(trained[fewest]),
        f"of {len(heads)} heads {len(sharp)} give more than half of their weight to one place, "
        f"{len(kinds)} different kinds of it ({', '.join(kinds)}). Without {most} the model's own translations lose "
        f"most, {losses[most]:.2f} nats a symbol; {idle} heads are missed by less than 0.02. Trained at equal cost on "
        f"a task that needs several places at once, the last loss in nats a symbol (and the sequences right) by the "
        f"number of heads: {told}. Best, within {MARGIN:g}: {', '.join(alike)}; worse than all repeats of {best} "
        f"by so much or more: {fewest} in {worse[fewest]} of {len(trained[fewest])} repeats, {many} in {worse[many]}.",
    )


def table(data: Table) -> Rows:
    """One row for each head of the trained model; then one for each number of heads that was trained."""
    head_row = [
        "head",
        *(f"{look}, %" for look in LOOKS),
        "entropy (nats)",
        "distance",
        "loss without (nats)",
        "changed, %",
        "last loss (nats)",
        "right, %",
    ]
    rows = [head_row]
    for name, head in data["heads"].items():
        absent = {"encoder": ("aligned",), "decoder": ("end", "aligned"), "cross": ()}[name.partition(".")[0]]
        looks = ["" if look in absent else f"{100 * head['looks'][look]:.0f}" for look in LOOKS]
        rows.append(
            [
                name,
                *looks,
                f"{head['entropy']:.2f}",
                f"{head['distance']:.1f}",
                f"{head['loss']:.3f}",
                f"{100 * head['changed']:.0f}",
                "",
                "",
            ]
        )
    for number, runs in data["trained"].items():
        name = f"trained: h = {number}, d_k = {data['d_model'] // int(number)}"
        losses, shares = [run["loss"] for run in runs], [100 * run["right"] for run in runs]
        rows.append([name, *("",) * (len(head_row) - 3), mean_and_range(losses, ".3f"), mean_and_range(shares, ".0f")])
    return rows


def draw(data: Table, figure: Any) -> None:
    """What is lost without each head, and its entropy; the loss by the number of heads, a dot for each repeat."""
    figure.set_size_inches(9.5, 6.4)
    panels = figure.subplot_mosaic([["heads", "heads"], ["entropy", "trained"]])
    left, middle, right_panel = panels["heads"], panels["entropy"], panels["trained"]
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
        middle.scatter([h["entropy"] for h in chosen], [h["loss"] for h in chosen], color=colour, s=14, label=kind)
    middle.set(xlabel="entropy of its weights (nats)", ylabel="nats a symbol lost", title="sharp or spread")
    middle.legend(frameon=False)
    numbers = [int(number) for number in data["trained"]]
    for number, runs in zip(numbers, data["trained"].values(), strict=True):
        right_panel.plot([number] * len(runs), [run["loss"] for run in runs], "k.", markersize=4)
    means = [fmean([run["loss"] for run in runs]) for runs in data["trained"].values()]
    right_panel.plot(numbers, means, "o-")
    right_panel.set(xscale="log", xlabel="heads h, each of d_model / h", ylabel="last loss, nats a symbol")
    right_panel.set(ylim=(0, None), title="trained at equal cost")
    right_panel.set_xticks(numbers, [str(number) for number in numbers])
    right_panel.minorticks_off()


def _forbidden(name: str, weights_LM: np.ndarray) -> np.ndarray:
    """Return where attention is not allowed: a decoder sees nothing later."""
    return np.triu(np.ones_like(weights_LM, dtype=bool), 1) & name.startswith("decoder")


def _aligned(one: Explanation, shape: tuple[int, ...]) -> np.ndarray:
    """Return which source pieces belong to the word that each target piece's word is aligned with."""
    word_of = {target: source for source, target in one.alignment}
    wanted_T = np.array([word_of.get(word, -2) for word in one.target_words])  # -2: none; -1 is no word
    return np.broadcast_to(np.array(one.source_words)[None] == wanted_T[:, None], shape)


def _describe(found: list[Explanation], name: str, head: int) -> Table:
    """Return where a head looks: means over rows of weights. Only a cross head can look at an aligned word.

    The decoder's first row is left out: it can look nowhere but at itself.
    """
    cross = name.startswith("cross")
    first = 1 if name.startswith("decoder") else 0
    looks: dict[str, list[float]] = {look: [] for look in LOOKS}
    entropies, distances = [], []
    for one in found:
        weights_LM = one.attention[name][head]
        forbidden_LM = _forbidden(name, weights_LM)
        rows, columns = np.indices(weights_LM.shape)
        # across languages places differ in number: compare where they stand between begin and end
        offset_LM = columns - (rows * (weights_LM.shape[1] - 1) / max(len(weights_LM) - 1, 1) if cross else rows)
        offset_LM = np.rint(offset_LM)
        for look, offset in (("previous", -1), ("same", 0), ("next", 1)):
            looks[look] += (weights_LM * (offset_LM == offset)).sum(1)[first:].tolist()
        if not name.startswith("decoder"):  # which begins with the begin symbol, and never reads the end
            looks["end"] += weights_LM[:, -1].tolist()
        if cross:
            has_word = np.array(one.target_words) >= 0
            looks["aligned"] += (weights_LM * _aligned(one, weights_LM.shape)).sum(1)[has_word].tolist()
        allowed_LM = np.where(forbidden_LM, 1.0, np.maximum(weights_LM, 1e-12))
        entropies += (-(weights_LM * np.log(allowed_LM)).sum(1))[first:].tolist()
        distances += (weights_LM * np.abs(offset_LM)).sum(1)[first:].tolist()
    return {
        "looks": {look: float(np.mean(values)) if values else 0.0 for look, values in looks.items()},
        "entropy": float(np.mean(entropies)),
        "distance": float(np.mean(distances)),
    }


def _train(heads: int, seed: int, settings: Settings) -> Table:
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder_layers=1,
        decoder_layers=1,
        d_model=settings.d_model,
        d_ff=2 * settings.d_model,
        heads=heads,
        dropout=0.0,
        normalization="pre",
    )
    model, task = Transformer(config, FIRST + 16, FIRST + 16), gathering(settings.length)
    losses = list(learn(model, task, settings.steps, 2e-3, seed=seed))
    last = losses[-max(1, settings.steps // 20) :]
    return {"loss": sum(last) / len(last), "right": float(right(model, task(200, 77)).float().mean())}
