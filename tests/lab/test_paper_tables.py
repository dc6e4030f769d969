"""What experiments on the paper's tables count by: interpolation, signs, chances, the grammar, the baseline."""

import pytest

from heedful.errors import HeedfulError
from heedful.evaluation.brackets import linearise, parse
from heedful.inspection.cost import parameters
from heedful.lab import corpora, data_size, grammar, table2, table3, table4
from heedful.lab.experiment import find
from heedful.model.settings import ModelConfig


def curve(*scores, cost=1.0):
    return [
        {"flops": cost * n, "seconds": 2.0 * n, "step": n, "bleu": float(score)} for n, score in enumerate(scores, 1)
    ]


def families(**curves):
    runs = {
        name.replace("_", "-"): [{"parameters": 7, "epochs": 1.0, "curve": found}] for name, found in curves.items()
    }
    return {"families": runs, "development": 5}


def test_the_cost_of_a_score_lies_on_the_line_between_two_points():
    assert table2._reached(curve(4, 8, 6, 20), 6, "flops") == 1.5
    assert table2._reached(curve(4, 8, 6, 20), 13, "seconds") == 7.0
    assert table2._reached(curve(4, 8), 2, "flops") == 0.5
    assert table2._reached(curve(4, 8), 9, "flops") is None


def test_the_transformer_must_be_the_cheapest_at_every_score():
    first = {
        "transformer": curve(5, 20),
        "convolution": curve(4, 12),
        "lstm_attention": curve(3, 9),
        "lstm": curve(1, 2),
    }
    verdict = table2.verdict(families(**first))
    assert verdict.shown
    assert "BLEU 2.0, which 4 families reach: transformer 4.0e-01" in verdict.text
    assert "BLEU 12.0, which 2 families reach" in verdict.text
    assert not table2.verdict(families(**{**first, "transformer": curve(5, 11)})).shown
    assert not table2.verdict(families(**{**first, "convolution": curve(30, 40)})).shown
    assert not table2.verdict(families(**dict.fromkeys(first, curve(0, 0)))).shown


def test_a_change_within_the_spread_of_seeds_has_no_sign():
    rows = table3.rows_of(table3.Settings())
    base = [{"perplexity": 9.0, "bleu": 20.0, "parameters": 1, "epochs": 2.0}, {"perplexity": 11.0, "bleu": 20.5}]
    base[1] |= {"parameters": 1, "epochs": 2.0}

    def data(sign):
        found = {}
        for key, row in rows.items():
            worse = row.perplexity - table3.PAPER_BASE[0], row.bleu - table3.PAPER_BASE[1]
            scores = {"perplexity": 10 + 30 * sign * worse[0], "bleu": 20.25 + 30 * sign * worse[1]}
            found[key] = {**scores, "here": row.here, "paper": row.paper, "parameters": 1}
            found[key]["paper_scores"] = [row.perplexity, row.bleu]
        return {"base": base, "rows": found, "layers": 4, "d_model": 128}

    assert table3.verdict(data(1)).shown
    # of 18: in the paper E1 changed no perplexity and A3 no BLEU; 30 times A3, C3 and D2 is within the seeds' spread
    assert "perplexity: 14 of 14 signs" in table3.verdict(data(1)).text
    assert "BLEU: 17 of 17 signs" in table3.verdict(data(1)).text
    assert not table3.verdict(data(-1)).shown
    assert not table3.verdict(data(0.001)).shown
    assert "no difference seen" in table3.table(data(1))[-1]


def test_chances_are_a_coins():
    assert table3._chance(0, 5) == 1
    assert table3._chance(5, 5) == 1 / 32
    assert table3._chance(1, 2) == 0.75


@pytest.mark.parametrize("settings", [table3.Settings(), table3.QUICK])
def test_rows_are_the_papers_and_can_be_built(settings):
    rows = table3.rows_of(settings)
    assert {key[0] for key in rows} == set("ABCDE")
    base = table3._recipe({}, 1, settings)["model"]
    sizes = {}
    for key, row in rows.items():
        recipe = table3._recipe(row.change, 1, settings)
        assert recipe != table3._recipe({}, 1, settings), key
        sizes[key] = sum(parameters(ModelConfig(**recipe["model"]), 100, 100).values())
    assert {sizes[key] for key in sizes if key[0] in "AD"} == {sum(parameters(ModelConfig(**base), 100, 100).values())}
    assert sizes["B1"] < sizes["B2"] < sizes["A1"] < sizes["C7"] < sizes["C5"]


def test_families_have_about_equally_many_parameters():
    layers = {"encoder_layers": 2, "decoder_layers": 2}
    counts = [
        sum(parameters(ModelConfig(family=family, **layers, **sizes), 2_000, 2_000).values())
        for family, sizes in corpora.FAMILIES.items()
    ]
    assert max(counts) < 1.05 * min(counts), counts


def test_the_transformer_is_ahead_only_with_every_seed_and_from_there_on():
    def sizes(*scores):
        return [
            {"pairs": 10**n, "runs": [{**dict.fromkeys(data_size.MEASURES, 1.0), "bleu": score} for score in found]}
            for n, found in enumerate(scores, 2)
        ]

    found = {"transformer": sizes((9, 9), (5, 7), (8, 9)), "lstm-attention": sizes((1, 2), (6, 6), (7, 6))}
    data = {"families": found, "changes": {"dropout 0": sizes((4, 4))[0]}, "trained_for": 10, "tested": 5}
    verdict = data_size.verdict(data)
    assert verdict.shown
    assert verdict.text.startswith("from 10,000 pairs on the Transformer is ahead with every seed")
    assert "dropout 0 -5.0 BLEU" in verdict.text
    found["lstm-attention"] = sizes((1, 2), (1, 2), (8, 8.5))
    assert not data_size.verdict(data).shown


def test_a_sentence_of_the_grammar_has_one_tree_and_its_length():
    found = grammar.trees(2_000, 3, 20, seed=1)
    assert found == grammar.trees(2_000, 3, 20, seed=1) != grammar.trees(2_000, 3, 20, seed=2)
    words = [parse(tree).words for tree in found]
    assert len(set(words)) == len(found)
    assert {3, 20} <= {len(each) for each in words} <= set(range(3, 21))


def test_a_right_branching_tree_is_one_over_the_same_words():
    known = ["(S (NP (D a) (N b)) (VP (V c) (NP (D d) (N e))))", "(S (NP (D a) (N b)) (VP (V c)))"]
    [first, second] = table4._right_branching(["(S (A a) (B b) (C c))", "(S (A a) (B b))"], known)
    assert parse(first).brackets == (("VP", 1, 3), ("S", 0, 3))
    assert linearise(second) == "(S XX XX )"


def test_ones_own_treebank_is_read_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HEEDFUL_DATA", str(tmp_path))
    assert not table4._has_treebank()
    (tmp_path / "treebank").mkdir()
    for split in ("train", "test"):
        (tmp_path / "treebank" / f"{split}.trees").write_text("(S (A a) (B b))\n(S (A a) (B b) (C c) (D d))\n")
    assert table4._has_treebank()
    settings = table4.Settings(longest=3, tested=((1, 2), (3, 9)))
    training, tests = table4._treebank(settings)
    assert training == ["(S (A a) (B b))"]
    assert [len(trees) for trees in tests] == [1, 1]
    with pytest.raises(HeedfulError, match="1 words or fewer"):
        next(table4.run(table4.Settings(longest=1)))


def test_parsing_better_than_the_bound_is_said_to_be():
    scores = {"precision": 90.0, "recall": 90.0, "f1": 90.0, "exact": 50.0, "well_formed": 99.0}
    cost = {"parameters": 5, "seconds": 1.0, "flops": 1.0}
    runs = [{**cost, "scores": [scores, {**scores, "f1": 20.0}]}]
    behind = [{**cost, "scores": [{**scores, "f1": f1}] * 2} for f1 in (70.0, 85.0)]
    data = {
        "treebank": False,
        "trees": 9,
        "longest": 8,
        "tested": [{"from": 2, "to": 8, "sentences": 3}, {"from": 9, "to": 12, "sentences": 3}],
        "families": {"transformer": runs, "lstm-attention": behind},
        "right_branching": [{**scores, "f1": 40.0}] * 2,
    }
    verdict = find("table4").verdict(data)
    assert verdict.shown
    assert "transformer F1 90.0 (50 % of trees exact, 99 % well-formed; F1 20.0 on longer sentences)" in verdict.text
    data["families"]["lstm-attention"] = [*behind, *runs]  # alike with one seed
    verdict = find("table4").verdict(data)
    assert not verdict.shown
    assert "Best of the families is transformer, but not clearly; the paper has" in verdict.text
    data["families"]["lstm-attention"] = behind
    data["longest"] = 12
    data["right_branching"] = [{**scores, "f1": 60.0}] * 2
    assert not find("table4").verdict(data).shown
