"""Labelled brackets: the laws of the score, a case counted by hand, and files that are no trees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.evaluation.brackets import BracketScores, bracket_scores, bracketed, linearise, parse, read_trees

LABELS = st.sampled_from(["S", "NP", "VP", "PP"])
WORDS = st.text("abcdeéß.,'-", min_size=1, max_size=5)
LEAVES = st.builds("({} {})".format, st.sampled_from(["DT", "NN"]), WORDS)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda label, children: f"({label} {' '.join(children)})", LABELS, st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)
TREES = st.builds("(TOP {})".format, NODES)


@given(st.lists(TREES, min_size=1, max_size=4))
def test_trees_against_themselves_are_perfect(trees):
    assert bracket_scores(trees, trees) == BracketScores(100, 100, 100, 100, 100)


@st.composite
def trees_over(draw, words):
    """Any binary tree over so many words."""
    if words == 1:
        return "(NN x)"
    left = draw(st.integers(1, words - 1))
    return f"({draw(LABELS)} {draw(trees_over(left))} {draw(trees_over(words - left))})"


@given(st.integers(1, 6).flatmap(lambda words: st.tuples(trees_over(words), trees_over(words))))
def test_precision_is_the_others_recall(trees):
    first, second = trees
    one, other = bracket_scores([first], [second]), bracket_scores([second], [first])
    assert (one.precision, one.f1) == pytest.approx((other.recall, other.f1))


@given(TREES)
def test_linearised_and_back_no_bracket_is_lost(tree):
    again = parse(bracketed(linearise(tree)))
    assert (len(again.words), again.brackets) == (len(parse(tree).words), parse(tree).brackets)


@given(TREES)
def test_spaces_do_not_matter(tree):
    assert parse(tree.replace("(", " ( ").replace(")", " )\t")) == parse(tree)


def test_a_case_counted_by_hand():
    reference = "(S (NP (DT the) (NN man)) (VP (VBD saw) (NP (DT the) (NN dog)) (PP (IN in) (NP (NN town)))))"
    output = "(S (NP (DT the) (NN man)) (VP (VBD saw) (NP (NP (DT the) (NN dog)) (PP (IN in) (NN town)))))"
    # reference: S 0-7, NP 0-2, VP 2-7, NP 3-5, PP 5-7, NP 6-7; output: S, NP 0-2, VP, NP 3-7, NP 3-5, PP
    scores = bracket_scores([output], [reference])
    assert (scores.precision, scores.recall) == pytest.approx((500 / 6, 500 / 6))
    assert scores.exact == 0


def test_the_same_bracket_twice_counts_twice():
    assert bracket_scores(["(S (S (A a) (B b)))"], ["(S (A a) (B b))"]).precision == 50
    assert parse("(NP (NP (NN cat)))").brackets == (("NP", 0, 1), ("NP", 0, 1))


@pytest.mark.parametrize(
    "output", ["", "word", "(S (A a)", "(S (A a)))", "(S (A a)) (S (B b))", "(S )", "(S (NP ) (A a))"]
)
def test_what_is_no_tree_has_no_brackets(output):
    with pytest.raises(HeedfulError):
        parse(output)
    scores = bracket_scores([output, "(S (A a) (B b))"], ["(S (A a) (B b))"] * 2)
    assert (scores.precision, scores.recall, scores.exact, scores.well_formed) == (100, 50, 50, 50)


def test_a_tree_over_other_words_is_one_but_has_no_brackets():
    scores = bracket_scores(["(S (A a) (B b))"], ["(S (A a) (B b) (C c))"])
    assert (scores.f1, scores.exact, scores.well_formed) == (0, 0, 100)


def test_depth_is_no_limit():
    deep = "(S (A a) " * 5_000 + "(B b)" + ")" * 5_000
    assert len(parse(deep).brackets) == 5_000


def test_a_file_of_trees_says_where_it_is_broken(tmp_path):
    path = tmp_path / "test.trees"
    path.write_text("(S (A a))\n\n(S (B b))\n")
    assert read_trees(path) == ["(S (A a))", "(S (B b))"]
    path.write_text("(S (A a\u2028b))\n", encoding="utf-8")
    assert read_trees(path) == ["(S (A a\u2028b))"]
    path.write_text("(S (A a))\n(S (B b)\n")
    with pytest.raises(HeedfulError, match=r"test\.trees:2: .*1 brackets? .*not closed"):
        read_trees(path)
    with pytest.raises(HeedfulError, match="cannot be read"):
        read_trees(tmp_path / "absent")


def test_a_reference_that_is_no_tree_and_numbers_that_differ_are_refused():
    with pytest.raises(HeedfulError, match="reference 2"):
        bracket_scores(["(S (A a))"] * 2, ["(S (A a))", "no tree"])
    with pytest.raises(HeedfulError, match="each output needs its tree"):
        bracket_scores(["(S (A a))"], [])
