"""Constituency parsing as the paper does it: words in, a bracketed tree out. (section 6.3, table 4)"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from heedful.config import Table, merge
from heedful.errors import HeedfulError
from heedful.evaluation.brackets import bracket_scores, bracketed, linearise, parse, read_trees
from heedful.lab import corpora, grammar
from heedful.lab.experiment import Rows, Running, Verdict, ahead, mean_and_range

QUESTION = "Does the Transformer learn another task, constituency parsing, without being told anything about trees?"
PAPER = "section 6.3, table 4"
MINUTES = (2.0, 14.0)
MARGIN = 2.0  # F1, of one run: a guess; seeds differ
NEEDS: tuple[str, ...] = ()
FAMILIES: dict[str, Table] = {  # 378,000 and 313,000 parameters
    "transformer": {"d_model": 96, "d_ff": 192, "heads": 4, "normalization": "pre"},
    "lstm-attention": {"d_model": 96},
}


@dataclass(frozen=True)
class Settings:
    """Trees to train on, the longest sentence among them, the lengths that are tested, and the training."""

    trees: int = 10_000
    longest: int = 16
    tested: tuple[tuple[int, int], ...] = ((2, 8), (9, 16), (17, 24), (25, 32))
    sentences: int = 250
    layers: int = 2
    steps: int = 2_500
    tokens: int = 2_048
    repeats: int = 3


QUICK = Settings(trees=4_000, sentences=100, steps=1_200, tokens=1_024, repeats=1)


def also() -> list[str]:
    """Return the text that is read because it is there."""
    return ["treebank"] if _has_treebank() else []


def run(settings: Settings) -> Running:
    """Train two families to write trees, words left out; score their brackets on lengths trained on, and longer.

    Raises:
        HeedfulError: a treebank has no sentence to train on, or to test on, that is as short as those trained on.
    """
    training, tests = _treebank(settings) if _has_treebank() else _grammar(settings)
    known = {_words(tree) for tree in training}
    tests = [[tree for tree in trees if _words(tree) not in known] for trees in tests]
    tested = [(bounds, trees) for bounds, trees in zip(settings.tested, tests, strict=True) if trees]
    if not training or all(high > settings.longest for (_, high), _ in tested):
        raise HeedfulError(
            f"treebank: sentences of {settings.longest} words or fewer are wanted in both of its files, and in "
            f"test.trees some that train.trees has not"
        )
    families: dict[str, list[Table]] = {}
    for family in FAMILIES:
        families[family] = []
        for seed in range(1, settings.repeats + 1):
            pairs = [(_words(tree), linearise(tree)) for tree in training]
            held_out = max(1, min(200, len(pairs) // 10))
            learned = yield from corpora.learn_text(
                f"{family}, seed {seed}",
                _recipe(family, seed, settings),
                pairs[held_out:],
                pairs[:held_out],
                [(_words(tree), linearise(tree)) for _, trees in tested for tree in trees],
            )
            outputs = iter(learned.outputs)
            families[family].append(
                {
                    "parameters": learned.parameters,
                    "seconds": learned.seconds,
                    "flops": learned.flops,
                    "scores": [
                        asdict(bracket_scores([bracketed(next(outputs)) for _ in trees], trees)) for _, trees in tested
                    ],
                }
            )
    return {
        "treebank": _has_treebank(),
        "trees": len(training),
        "longest": settings.longest,
        "tested": [{"from": low, "to": high, "sentences": len(trees)} for (low, high), trees in tested],
        "families": families,
        "right_branching": [asdict(bracket_scores(_right_branching(trees, training), trees)) for _, trees in tested],
    }


def verdict(data: Table) -> Verdict:
    """The claims: it parses well without tuning, and better than recurrent sequence models.

    The bound of "well" is a guess that needs no model: every word a branch.
    """
    trained = [place for place, tested in enumerate(data["tested"]) if tested["to"] <= data["longest"]]
    beyond = [place for place in range(len(data["tested"])) if place not in trained]
    bound = fmean([data["right_branching"][place]["f1"] for place in trained])

    def told(family: str) -> str:
        f1, exact, formed = (_over(data, family, trained, key) for key in ("f1", "exact", "well_formed"))
        longer = f"; F1 {_over(data, family, beyond, 'f1'):.1f} on longer sentences" if beyond else ""
        return f"{family} F1 {f1:.1f} ({exact:.0f} % of trees exact, {formed:.0f} % well-formed{longer})"

    each = {
        family: [fmean([run["scores"][place]["f1"] for place in trained]) for run in runs]
        for family, runs in data["families"].items()
    }
    best = max(each, key=lambda family: fmean(each[family]))
    others = [scores for family, scores in each.items() if family != "transformer"]
    clearly = all(ahead(each["transformer"], theirs, MARGIN) for theirs in others)
    return Verdict(
        min(each["transformer"]) > bound and clearly,
        f"on lengths trained on (to {data['longest']} words; means of the tested lengths), "
        f"{' and '.join(map(told, data['families']))}. The bound "
        f"is F1 {bound:.1f}: every sentence a right-branching tree with the commonest labels. "
        f"Best of the families is {best}{', but not clearly' if best == 'transformer' and not clearly else ''}"
        + ("." if clearly else "; the paper has the Transformer ahead of recurrent sequence models (6.3).")
        + ("" if data["treebank"] else " The sentences are a small grammar's, one tree each: not comparable with WSJ."),
    )


def table(data: Table) -> Rows:
    """Scores by family and length; means of the repeats, and the spread of F1."""
    head = ["parser", "parameters", "words", "sentences", "precision", "recall", "F1", "exact, %", "well-formed, %"]
    rows = [head]
    for place, tested in enumerate(data["tested"]):
        words = f"{tested['from']} to {tested['to']}" + (" (longer)" if tested["to"] > data["longest"] else "")
        for family, runs in data["families"].items():
            values = [_over(data, family, [place], key) for key in ("precision", "recall")]
            every = [run["scores"][place]["f1"] for run in runs]
            rest = [_over(data, family, [place], key) for key in ("exact", "well_formed")]
            rows.append(
                [family, f"{runs[0]['parameters']:,}", words, f"{tested['sentences']:,}"]
                + [f"{value:.1f}" for value in values]
                + [mean_and_range(every)]
                + [f"{value:.0f}" for value in rest]
            )
        guess = data["right_branching"][place]
        numbers = [f"{guess[key]:.1f}" for key in ("precision", "recall", "f1")]
        rows.append(
            ["right-branching", "0", words, f"{tested['sentences']:,}", *numbers, f"{guess['exact']:.0f}", "100"]
        )
    return rows


def draw(data: Table, figure: Any) -> None:
    """F1, exact trees and well-formed outputs by length; a thin line for each repeat."""
    labels = [f"{tested['from']}-{tested['to']}" for tested in data["tested"]]
    places = range(len(labels))
    beyond = next((i for i, tested in enumerate(data["tested"]) if tested["to"] > data["longest"]), None)
    titles = {"f1": "F1 of brackets", "exact": "whole tree right", "well_formed": "output is a tree"}
    panels = figure.subplots(1, 3, sharey=True)
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for number, (family, runs) in enumerate(data["families"].items()):
            means = [_over(data, family, [place], key) for place in places]
            panel.plot(places, means, ("o-", "s--")[number], color=f"C{number}", label=family)
            for run in runs:
                values = [run["scores"][place][key] for place in places]
                panel.plot(places, values, color=f"C{number}", alpha=0.3, linewidth=0.8)
        if key != "well_formed":
            guesses = [guess[key] for guess in data["right_branching"]]
            panel.plot(places, guesses, "k:", label="right-branching")
        if beyond is not None:
            panel.axvspan(beyond - 0.5, len(labels) - 0.5, color="0.93", zorder=0)
        panel.set(xlabel="words (grey: longer than trained on)", title=title, ylim=(-3, 103))
        panel.set_xticks(places, labels)
    panels[0].set_ylabel("%")
    panels[2].legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="lower left")


def _has_treebank() -> bool:
    return all(corpora.place(f"treebank/{split}.trees") for split in ("train", "test"))


def _treebank(settings: Settings) -> tuple[list[str], list[list[str]]]:
    """Return the trees to train on, and those of each tested length, from the reader's own files.

    Raises:
        HeedfulError: a file is broken.
    """
    train, test = (read_trees(cast(Path, corpora.place(f"treebank/{split}.trees"))) for split in ("train", "test"))
    training = [tree for tree in train if len(parse(tree).words) <= settings.longest][: settings.trees]
    tests = [
        [tree for tree in test if low <= len(parse(tree).words) <= high][: settings.sentences]
        for low, high in settings.tested
    ]
    return training, tests


def _grammar(settings: Settings) -> tuple[list[str], list[list[str]]]:
    tests = [grammar.trees(settings.sentences, low, high, seed=2) for low, high in settings.tested]
    return grammar.trees(settings.trees, 2, settings.longest, seed=1), tests


def _words(tree: str) -> str:
    return " ".join(parse(tree).words)


def _recipe(family: str, seed: int, settings: Settings) -> Table:
    model = {
        "family": family,
        "encoder_layers": settings.layers,
        "decoder_layers": settings.layers,
        "dropout": 0.1,
        "share": "target",
        **FAMILIES[family],
    }
    run = corpora.short_run(model, vocabulary=8_000, tokens=settings.tokens, steps=settings.steps, seed=seed)
    changes = {
        # a word that was not trained on is an unknown word, as the rare ones of a treebank are
        "vocabulary": {"kind": "symbols", "joint": False, "byte_fallback": False},
        "search": {"max_extra": 300},  # as in section 6.3; greedy, where the paper has a beam of 21
    }
    return merge(run, changes)


def _right_branching(trees: list[str], training: list[str]) -> list[str]:
    """Return a tree of these sentences in which each word is beside all that follows; labels are the commonest."""
    whole, rest = Counter[str](), Counter[str]()
    for words, brackets in ((len(tree.words), tree.brackets) for tree in map(parse, training)):
        for label, start, end in brackets:
            if end == words:
                (rest if start else whole)[label] += 1
    top, below = (counts.most_common(1)[0][0] if counts else "S" for counts in (whole, rest))
    lines = []
    for words in (len(parse(tree).words) for tree in trees):
        lines.append(f"({top} " + f"(XX XX) ({below} " * (words - 2) + "(XX XX) (XX XX)" + ")" * (words - 1))
    return lines


def _over(data: Table, family: str, places: list[int], key: str) -> float:
    """Return the mean of a score over repeats and tested lengths."""
    return fmean([run["scores"][place][key] for run in data["families"][family] for place in places])
