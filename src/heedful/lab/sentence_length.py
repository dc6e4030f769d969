"""Do long sentences of real text suffer more without attention? Every family's score by length. (sections 1 and 4)"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from heedful.config import Table
from heedful.evaluation.scores import bleu_and_chrf
from heedful.lab import corpora
from heedful.lab.experiment import Rows, Running, Verdict, ahead, mean_and_range

QUESTION = "Do recurrence and convolution lose more on long sentences of real text than the Transformer does?"
PAPER = "sections 1 and 4"
MINUTES = (2.0, 17.7)
REVISIONS = ("the Transformer is pre-norm",)
NEEDS: tuple[str, ...] = ("multi30k-en-de",)
STYLES = ("o-", "s--", "^:", "x-.")


@dataclass(frozen=True)
class Settings(corpora.FamilySettings):
    """Vocabulary, layers of each stack, the training, the same for every family, and groups of sources by their words.

    A group goes from one of `bounds` up to the next, that one left out.
    """

    development: int = 200
    test: int = 1_000
    bounds: tuple[int, ...] = (1, 9, 12, 15, 19, 100)
    repeats: int = 1


MARGIN = 2.0  # BLEU: less says nothing of one run, and some 60 sentences
QUICK = Settings(steps=400, development=50, test=300, bounds=(1, 11, 15, 100))


def run(settings: Settings) -> Running:
    """Train every family alike on image captions, translate the test, and score each group of lengths by itself."""
    [name] = NEEDS
    training, development, test = (corpora.read(name, split) for split in corpora.SPLITS[name])
    test = test[: settings.test]
    of_length = {
        (low, high): [row for row, (source, _) in enumerate(test) if low <= len(source.split()) < high]
        for low, high in pairwise(settings.bounds)
    }
    bounds, groups = zip(*((pair, rows) for pair, rows in of_length.items() if rows), strict=True)
    families: dict[str, list[Table]] = {}
    for family in corpora.FAMILIES:
        families[family] = []
        for seed in range(1, settings.repeats + 1):
            learned = yield from corpora.learn_text(
                f"{family}, seed {seed}",
                corpora.family_run(family, settings, seed),
                training,
                development[: settings.development],
                test,
            )
            scores = [
                bleu_and_chrf([learned.outputs[row] for row in rows], [test[row][1] for row in rows]) for rows in groups
            ]
            families[family].append({"parameters": learned.parameters, "all": learned.test, "groups": scores})
    return {
        "groups": [
            {"from": low, "to": high - 1, "sentences": len(rows), "words": _mean_words(test, rows)}
            for (low, high), rows in zip(bounds, groups, strict=True)
        ],
        "families": families,
    }


def verdict(data: Table) -> Verdict:
    """The claim: short paths make long-range dependencies easier; then the others lose more on the longest group."""
    lost = {}
    for family, runs in data["families"].items():
        first, *_, last = _means(runs)
        lost[family] = (first - last) / first if first else 1.0
    told = ", ".join(
        f"{family} {_means(runs)[0]:.1f} and {_means(runs)[-1]:.1f}" for family, runs in data["families"].items()
    )
    best = max(data["families"], key=lambda family: _means(data["families"][family])[-1])
    on_longest = {family: [_bleu(run_)[-1] for run_ in runs] for family, runs in data["families"].items()}
    clearly = all(ahead(on_longest[best], others, MARGIN) for family, others in on_longest.items() if family != best)
    least = min(lost, key=lambda family: lost[family])
    return Verdict(
        clearly and best == least == "transformer",
        f"BLEU of sources of up to {data['groups'][0]['to']} words, of {data['groups'][-1]['from']} or more: {told}. "
        f"Best on the longest is {best}; from the shortest to the longest {least} loses least, "
        f"{100 * lost[least]:.0f} % of its score, "
        + ", ".join(f"{family} {100 * share:.0f} %" for family, share in lost.items() if family != least)
        + ". About equally many parameters, and the same steps, rate and batches for all"
        + (
            f"; one run of each, and {data['groups'][-1]['sentences']} sentences in the longest group: a point or two "
            f"of BLEU says nothing."
            if all(len(runs) == 1 for runs in data["families"].values())
            else "."
        ),
    )


def table(data: Table) -> Rows:
    """BLEU by the source's words, and of the whole test; means of the repeats, their spread where there are several."""
    words = [f"BLEU, {_span(group)} words ({group['sentences']} sentences)" for group in data["groups"]]
    rows = [["family", "parameters", "BLEU, all", *words]]
    for family, runs in data["families"].items():
        columns = zip(*([run["all"]["bleu"], *(group["bleu"] for group in run["groups"])] for run in runs), strict=True)
        rows.append([family, f"{runs[0]['parameters']:,}", *map(mean_and_range, columns)])
    return rows


def draw(data: Table, figure: Any) -> None:
    """BLEU against the words of the source; and the same as a share of what the shortest get."""
    left, right = figure.subplots(1, 2)
    words = [group["words"] for group in data["groups"]]
    for number, ((family, runs), style) in enumerate(zip(data["families"].items(), STYLES, strict=True)):
        means = _means(runs)
        left.plot(words, means, style, color=f"C{number}", label=family)
        for run_ in runs:
            left.plot(words, [group["bleu"] for group in run_["groups"]], color=f"C{number}", alpha=0.25, linewidth=0.8)
        if means[0]:
            right.plot(words, [100 * value / means[0] for value in means], style, color=f"C{number}")
    left.set(xlabel="words of the source, mean of a group", ylabel="BLEU", ylim=(0, None), title="score by length")
    right.set(
        xlabel="words of the source, mean of a group",
        ylabel="BLEU, % of the shortest group's",
        ylim=(0, None),
        title="what is left of it",
    )
    left.legend(frameon=False)


def _means(runs: list[Table]) -> list[float]:
    """Return the BLEU of each group, the mean of the repeats."""
    return [sum(values) / len(values) for values in zip(*(_bleu(run_) for run_ in runs), strict=True)]


def _bleu(run_: Table) -> list[float]:
    return [group["bleu"] for group in run_["groups"]]


def _mean_words(test: corpora.Pairs, rows: list[int]) -> float:
    return sum(len(test[row][0].split()) for row in rows) / max(len(rows), 1)


def _span(group: Table) -> str:
    return f"{group['from']} to {group['to']}" if group["to"] < 99 else f"{group['from']} or more"
