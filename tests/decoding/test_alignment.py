"""Words from pieces, and which source word each target word looks at most."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful.decoding.alignment import align_words, words_of_pieces
from heedful.text.vocabulary import SPACE, VocabularyConfig, learn


def test_pieces_of_a_word_share_its_number():
    pieces = [SPACE + "Good", SPACE + "morn", "ing", "</s>"]
    assert words_of_pieces(pieces) == [0, 1, 1, -1]


def test_a_lone_space_mark_begins_the_word_after_it():
    assert words_of_pieces([SPACE, "a", "b", SPACE, "c", SPACE + "d"]) == [-1, 0, 0, -1, 1, 2]


def test_a_first_piece_without_a_mark_is_a_word_too():
    assert words_of_pieces(["<s>", "ab", "c", SPACE + "d", "<pad>"]) == [-1, 0, 0, 1, -1]


def test_nothing_has_no_words():
    assert words_of_pieces([]) == []


@given(st.lists(st.sampled_from([SPACE, SPACE + "a", "b", "</s>"]), max_size=23))
def test_words_are_numbered_upwards_without_gaps(pieces):
    numbers = [number for number in words_of_pieces(pieces) if number >= 0]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(set(numbers))))


def test_all_pieces_of_a_source_word_count_together():
    weights_TS = torch.tensor([[0.3, 0.3, 0.4]])
    assert align_words(weights_TS, [SPACE + "a", "x", SPACE + "b"], [SPACE + "c"]) == [(0, 0)]


def test_a_permutation_is_found():
    source, target = ([SPACE + letter for letter in text] + ["</s>"] for text in ("abcde", "vwxyz"))
    order = [3, 0, 4, 1, 2, 5]
    assert align_words(torch.eye(6)[order], source, target) == list(zip(order[:5], range(5), strict=True))


def test_the_pieces_of_a_target_word_vote_together():
    source = [SPACE + "a", SPACE + "b"]
    weights = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    assert align_words(weights, source, [SPACE + "c", "d"]) == [(1, 0)]
    assert align_words(weights, source, [SPACE + "c", SPACE + "d"]) == [(0, 0), (1, 1)]


def test_end_and_space_marks_are_never_aligned_to():
    source = [SPACE, "a", SPACE + "b", "</s>"]
    weights = torch.tensor([[0.5, 0.0, 0.1, 0.4]])
    assert align_words(weights, source, [SPACE + "c"]) == [(1, 0)]


def test_without_words_there_are_no_links():
    assert align_words(torch.ones(1, 1), ["</s>"], [SPACE + "c"]) == []
    assert align_words(torch.ones(1, 1), [SPACE + "c"], ["</s>"]) == []


@pytest.mark.parametrize("kind", ["symbols", "bpe"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_an_unknown_symbol_is_a_word_of_its_own_and_an_unknown_letter_is_none(kind, byte_fallback):
    config = VocabularyConfig(kind=kind, size=40 + 256 * byte_fallback, byte_fallback=byte_fallback)
    words = learn(["A B", "B A A"] * 9, ["A B", "B A A"] * 9, config, tags=["<bt>"])
    [ids] = words.encode_source(["A \u0416 B" if kind == "symbols" else "A\u0416A B"])
    numbers = words_of_pieces(words.pieces(ids, "source"))
    assert max(numbers) + 1 == (3 if kind == "symbols" else 2)
