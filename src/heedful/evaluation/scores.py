"""BLEU, chrF and TER with their signatures, and whether two systems differ, all by sacreBLEU (Post 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, Result

from heedful.config import setting
from heedful.errors import HeedfulError

Tokenizer = Literal["13a", "intl", "none", "char", "zh"]
WITHOUT_SPACES = ("bo", "ja", "km", "lo", "my", "th", "yue")


def tokenizer_of(language: str) -> Tokenizer:
    """Return the tokeniser for a language's code: without spaces a clause is one token, and BLEU says nothing.

    >>> tokenizer_of("de"), tokenizer_of("zh-TW"), tokenizer_of("ja")
    ('13a', 'zh', 'char')
    """
    code = language.partition("-")[0].lower()
    return "zh" if code == "zh" else "char" if code in WITHOUT_SPACES else "13a"


@dataclass(frozen=True)
class ScoreConfig:
    """In which convention to score; the defaults are sacreBLEU's own."""

    lowercase: bool = setting(False, "Score lowercased text")
    tokenize: Tokenizer = setting(
        "13a",
        "sacreBLEU's tokeniser; none if the text is tokenised already; where a model says that its target is Chinese, "
        "Japanese, Thai or another without spaces, zh or char unless told otherwise",
    )


@dataclass(frozen=True)
class Score:
    """One score, with all that is needed to reproduce it."""

    name: str
    value: float
    signature: str
    details: str = ""


def score_corpus(
    outputs: Sequence[str], references: Sequence[Sequence[str]], config: ScoreConfig | None = None
) -> list[Score]:
    """Return BLEU, chrF and TER of the outputs.

    Args:
        outputs: one line each
        references: one list of lines for each reference translation, each as long as `outputs`
        config: the convention

    Raises:
        HeedfulError: a list of references differs in length from the outputs, or there is nothing to score.
    """
    _check(outputs, references)
    scores = []
    for name, metric in _metrics(config or ScoreConfig()).items():
        result = metric.corpus_score(list(outputs), _without_fillers(references))
        scores.append(Score(name, float(result.score), str(metric.get_signature()), str(result)))
    return scores


def bleu_and_chrf(outputs: Sequence[str], references: Sequence[str], language: str = "") -> dict[str, float]:
    """Return the two scores that training watches, in sacreBLEU's default convention for this language."""
    bleu = BLEU(tokenize=tokenizer_of(language), force=True).corpus_score(list(outputs), [list(references)])
    chrf = CHRF().corpus_score(list(outputs), [list(references)])
    return {"bleu": float(bleu.score), "chrf": float(chrf.score)}


def signature_of(language: str = "") -> str:
    """Return sacreBLEU's signature of the BLEU of `bleu_and_chrf`.

    >>> signature_of("ja").split("|")[:4]
    ['nrefs:1', 'case:mixed', 'eff:no', 'tok:char']
    """
    bleu = BLEU(tokenize=tokenizer_of(language), force=True)
    bleu.corpus_score(["."], [["."]])  # which tells it the number of references
    return str(bleu.get_signature())


@dataclass(frozen=True)
class Comparison:
    """Whether two systems differ: each one's score, and the two-sided p-value of equal ones differing so."""

    name: str
    first: float
    second: float
    p_value: float
    signature: str


def compare(
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[Sequence[str]],
    config: ScoreConfig | None = None,
    samples: int = 1000,
) -> list[Comparison]:
    """Compare two systems' outputs by approximate randomization (Riezler and Maxwell 2005), which is two-sided.

    `samples` times the outputs of each line are exchanged, or not, by the toss of a coin; what counts is how often the
    scores then differ by as much as they do, or more.

    Raises:
        HeedfulError: lengths differ.
    """
    _check(first, references)
    _check(second, references)
    metrics = _metrics(config or ScoreConfig())
    del metrics["TER"]  # a thousand resamplings of TER take minutes and say what the others say
    systems = [("first", list(first)), ("second", list(second))]
    test = PairedTest(systems, metrics, _without_fillers(references), test_type="ar", n_samples=samples)
    signatures, results = test()
    fold = str.lower if config and config.lowercase else str
    seen = [
        [" ".join(fold(line).split()) for line in outputs] for outputs in (first, second)
    ]  # what metrics tell apart
    differing = sum(one != other for one, other in zip(*seen, strict=True))
    return [
        Comparison(name, float(one.score), float(other.score), _p_value(one, other, differing), str(signatures[key]))
        for name, key in zip(metrics, signatures, strict=True)
        for one, other in [results[key]]
    ]


def _without_fillers(references: Sequence[Sequence[str]]) -> list[Any]:
    """Leave out the empty ones of a line's references, if there are others: of those, some lines have fewer."""
    lines = [
        [way if way.strip() or not any(map(str.strip, ways)) else None for way in ways]
        for ways in zip(*references, strict=True)
    ]
    return [list(each) for each in zip(*lines, strict=True)]


def _p_value(one: Result, other: Result, differing: int) -> float:
    """Return sacreBLEU's p-value, and the probability of what it leaves out: that all lines, or none, are exchanged.

    The scores differ by just as much then. Where few lines differ that is often; of the same system twice, always.
    """
    return min(1.0, float(other.p_value or 0.0) + 2.0 ** (1 - differing)) if one.score != other.score else 1.0


def _metrics(config: ScoreConfig) -> dict[str, BLEU | CHRF | TER]:
    return {
        "BLEU": BLEU(lowercase=config.lowercase, tokenize=config.tokenize, force=True),
        "chrF": CHRF(lowercase=config.lowercase),
        "TER": TER(),
    }


def _check(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not outputs:
        raise HeedfulError("nothing to score: the outputs are empty")
    for reference in references:
        if len(reference) != len(outputs):
            raise HeedfulError(
                f"{len(outputs):,} outputs and {len(reference):,} references; each output needs its reference line"
            )
