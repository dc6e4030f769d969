import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.evaluation.error_rates import edit_distance, error_rates, gather_references

words = st.text("abc", max_size=11)
sentences = st.lists(st.text("abc", min_size=1, max_size=2), max_size=7).map(" ".join)


@settings(deadline=None)
@given(words, words)
def test_distance_is_symmetric(first, second):
    assert edit_distance(first, second) == edit_distance(second, first)


@settings(deadline=None)
@given(words, words)
def test_distance_is_zero_between_equals_only(first, second):
    assert edit_distance(first, first) == 0
    assert (edit_distance(first, second) == 0) == (first == second)


@settings(deadline=None)
@given(words, words, words)
def test_a_way_round_is_never_shorter(first, second, third):
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)


@settings(deadline=None)
@given(words, words)
def test_distance_lies_between_the_difference_of_lengths_and_the_longer_one(first, second):
    distance = edit_distance(first, second)
    assert abs(len(first) - len(second)) <= distance <= max(len(first), len(second))


@settings(deadline=None)
@given(words, st.sampled_from("abcd"), st.data())
def test_one_edit_is_a_distance_of_one(word, letter, data):
    place = data.draw(st.integers(0, len(word)))
    assert edit_distance(word, word[:place] + letter + word[place:]) == 1
    assume(place < len(word) and word[place] != letter)
    assert edit_distance(word, word[:place] + letter + word[place + 1 :]) == 1


@settings(deadline=None)
@given(words, words)
def test_distance_meets_its_recursive_definition(first, second):
    first, second = first[:5], second[:5]

    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(first, second) == distance(first, second)


@settings(deadline=None)
@given(st.lists(sentences.filter(bool), min_size=1, max_size=5), st.data())
def test_any_of_several_references_counts_wherever_it_stands(outputs, data):
    references = []
    for output in outputs:
        others = data.draw(st.lists(sentences, max_size=3))
        references.append(data.draw(st.permutations([output, *others])))
    rates = error_rates(outputs, references)
    assert (rates.word, rates.symbol, rates.inputs) == (0.0, 0.0, len(outputs))


@settings(deadline=None)
@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=5), sentences)
def test_a_further_reference_never_makes_more_words_wrong(cases, further):
    outputs, references = zip(*cases, strict=True)
    more = [[*possible, further] for possible in references]
    assert error_rates(outputs, more).word <= error_rates(outputs, references).word


def test_an_output_is_compared_with_its_nearest_reference():
    rates = error_rates(["a b c", "d"], [["a x y z", "a b"], ["d"]])
    assert (rates.word, rates.symbol) == (50.0, 100 * 1 / 3)


def test_symbols_are_counted_over_the_references():
    rates = error_rates(["a b", "", "c c c c c"], [["a x"], ["a b c"], ["c"]])
    assert (rates.word, rates.symbol) == (100.0, 100 * (1 + 3 + 4) / (2 + 3 + 1))


def test_whitespace_between_symbols_does_not_matter():
    assert error_rates(["  K  AE T "], [["K AE\tT"]]).word == 0


@pytest.mark.parametrize(
    ("outputs", "references"), [(["a"], []), ([], [["a"]]), ([], []), (["a", "b"], [["a"]]), (["a"], [[]])]
)
def test_outputs_without_their_references_are_an_error_of_the_user(outputs, references):
    with pytest.raises(HeedfulError, match="reference"):
        error_rates(outputs, references)


def test_references_are_gathered_by_input_in_order_of_first_appearance():
    gathered = gather_references(["read", "lead", "read"], ["R EH D", "L EH D", "R IY D"])
    assert list(gathered.items()) == [("read", ["R EH D", "R IY D"]), ("lead", ["L EH D"])]
