import random

import pytest
import sacrebleu
from sacrebleu.metrics import TER

from heedful.errors import HeedfulError
from heedful.evaluation.scores import ScoreConfig, bleu_and_chrf, compare, score_corpus

REFERENCES = [
    "The cat sat on the mat, and the dog slept beside it.",
    "Two men are walking along a busy street in the rain.",
    "A girl in a red dress is jumping over a puddle.",
    "The train to Vienna leaves at 10.35 from platform seven.",
    "Nobody knew the well-known song, yet everyone sang.",
] * 7
OUTPUTS = [
    "The cat sat on a mat, and the dog slept near it.",
    "Two men walk along a busy Street in the rain.",
    "a girl in a red dress jumps over a puddle.",
    "The train to Vienna leaves at 10.35 from track 7.",
    "Nobody knew the well known song, but everybody sang.",
] * 7
WORSE = ["A cat mat.", "Rain in the city.", "A puddle.", "The train leaves.", "Nobody sang."] * 7
SECOND_REFERENCES = [line.replace("The", "That").replace("a ", "one ") for line in REFERENCES]


def values(*arguments):
    return {score.name: score.value for score in score_corpus(*arguments)}


@pytest.mark.parametrize("references", [[REFERENCES], [REFERENCES, SECOND_REFERENCES]])
def test_the_scores_are_those_of_sacrebleu(references):
    assert values(OUTPUTS, references) == pytest.approx(
        {
            "BLEU": sacrebleu.corpus_bleu(OUTPUTS, references).score,
            "chrF": sacrebleu.corpus_chrf(OUTPUTS, references).score,
            "TER": TER().corpus_score(OUTPUTS, references).score,
        },
        abs=1e-9,
    )


def test_by_default_ter_is_what_sacrebleu_gives_by_default():
    assert values(OUTPUTS, [REFERENCES])["TER"] == pytest.approx(sacrebleu.corpus_ter(OUTPUTS, [REFERENCES]).score)


def test_case_is_ignored_as_sacrebleu_ignores_it():
    found = values(OUTPUTS, [REFERENCES], ScoreConfig(lowercase=True))
    assert found["BLEU"] == pytest.approx(sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES], lowercase=True).score)
    assert found["TER"] == pytest.approx(TER().corpus_score(OUTPUTS, [REFERENCES]).score)


def test_the_first_output_as_its_own_reference_is_perfect():
    assert values(REFERENCES, [REFERENCES]) == pytest.approx({"BLEU": 100, "chrF": 100, "TER": 0})


def test_every_score_has_a_signature_that_names_the_convention():
    for config, told in ((ScoreConfig(), ("mixed", "13a")), (ScoreConfig(True, "intl"), ("lc", "intl"))):
        for score in score_corpus(OUTPUTS, [REFERENCES], config):
            assert sacrebleu.__version__ in score.signature
            assert f"case:{'lc' if score.name == 'TER' else told[0]}" in score.signature
            assert f"tok:{told[1]}" in score.signature or score.name != "BLEU"
            assert score.details


def test_more_references_show_in_the_signature():
    scores = score_corpus(OUTPUTS, [REFERENCES, SECOND_REFERENCES])
    assert all("nrefs:2" in score.signature for score in scores)


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (ScoreConfig(lowercase=True), {"BLEU", "chrF"}),
        (ScoreConfig(tokenize="char"), {"BLEU"}),
        (ScoreConfig(tokenize="none"), {"BLEU"}),
        (ScoreConfig(tokenize="intl"), {"BLEU"}),
    ],
)
def test_case_and_tokeniser_change_the_scores_that_depend_on_them(config, changed):
    usual, other = values(OUTPUTS, [REFERENCES]), values(OUTPUTS, [REFERENCES], config)
    assert {name for name in usual if usual[name] != other[name]} - {"TER"} == changed


def test_what_training_watches_is_what_scoring_says():
    found, scores = bleu_and_chrf(OUTPUTS, REFERENCES), values(OUTPUTS, [REFERENCES])
    assert found == pytest.approx({"bleu": scores["BLEU"], "chrf": scores["chrF"]})


@pytest.mark.parametrize("references", [[REFERENCES[1:]], [REFERENCES, REFERENCES[1:]], [[*REFERENCES, "more"]]])
def test_lengths_that_differ_are_both_named(references):
    with pytest.raises(HeedfulError, match=f"{len(OUTPUTS)} outputs and {len(references[-1])} references"):
        score_corpus(OUTPUTS, references)
    with pytest.raises(HeedfulError, match="each output needs its reference"):
        compare(OUTPUTS, OUTPUTS, references)


def test_systems_of_different_lengths_are_not_compared():
    with pytest.raises(HeedfulError, match="34 outputs and 35 references"):
        compare(OUTPUTS, OUTPUTS[1:], [REFERENCES])


def test_nothing_to_score_is_an_error_of_the_user():
    with pytest.raises(HeedfulError, match="nothing to score"):
        score_corpus([], [[]])


def test_identical_systems_are_not_told_apart():
    for comparison in compare(OUTPUTS, list(OUTPUTS), [REFERENCES], samples=101):
        assert comparison.first == comparison.second
        assert comparison.p_value > 0.9


def test_a_clearly_better_system_is_told_apart_whichever_comes_first():
    scores = values(OUTPUTS, [REFERENCES])
    for systems in ((OUTPUTS, WORSE), (WORSE, OUTPUTS)):
        found = compare(*systems, [REFERENCES], samples=211)
        assert [comparison.name.rstrip("2") for comparison in found] == ["BLEU", "chrF"]  # chrF2: beta is 2
        for comparison in found:
            assert comparison.p_value < 0.05
            assert (comparison.first > comparison.second) == (systems[0] is OUTPUTS)
            assert max(comparison.first, comparison.second) == pytest.approx(scores[comparison.name.rstrip("2")])
            assert "ar:211" in comparison.signature


def test_systems_that_are_equally_good_seldom_seem_to_differ():
    generator = random.Random(1)
    words = ["the", "a", "cat", "dog", "old", "new", "house", "street", "sleeps", "runs", "in", "on", "under", "behind"]
    values = []
    for _ in range(30):
        references = [" ".join(generator.choices(words, k=9)) for _ in range(60)]
        systems = [[" ".join(generator.sample(line.split(), 9)) for line in references] for _ in range(2)]
        values += [one.p_value for one in compare(*systems, [references], samples=200)]
    assert 0.25 < sum(values) / len(values) < 0.75, "evenly spread between 0 and 1, were they independent"
    assert max(values) > 0.8


def test_systems_that_differ_in_case_are_told_apart_where_case_counts():
    other = [line.swapcase() for line in OUTPUTS]
    for lowercase in (False, True):
        found = compare(OUTPUTS, other, [REFERENCES], ScoreConfig(lowercase=lowercase), samples=211)
        assert all((one.p_value == 1.0) == lowercase and (one.p_value < 0.05) != lowercase for one in found)


def test_a_few_lines_that_differ_are_little_evidence():
    worse = [*OUTPUTS[:-1], "no"]
    for one in compare(OUTPUTS, worse, [REFERENCES], samples=101):
        assert one.p_value > 0.9
    for one in compare(OUTPUTS, [*OUTPUTS[:-3], "no", "no", "no"], [REFERENCES], samples=101):
        assert 0.2 < one.p_value < 0.4, "one of eight ways, on either side"


def test_a_reference_that_is_missing_is_not_an_empty_one():
    references = [["a cat sleeps here", "a dog runs"], ["", "the dog is running"]]
    outputs = ["a cat", "the dog is running"]
    alone = score_corpus(outputs, [["a cat sleeps here", "the dog is running"]])
    assert score_corpus(outputs, references)[0].value == pytest.approx(alone[0].value)
