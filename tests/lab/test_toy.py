"""The small tasks are what they say, and so are the alignments that come with them."""

from heedful.lab.toy import AND, FIRST, GAP, TENS, UNALIGNED, UNITS, counting, gathering, in_words, recalling
from heedful.text.vocabulary import END


def digits(text):
    return [GAP if character == " " else FIRST + int(character) for character in text]


def test_numbers_in_words_have_the_unit_before_the_ten():
    assert in_words(digits("21")) == [(UNITS + 1, 1), (AND, UNALIGNED), (TENS + 1, 0)]
    assert in_words(digits("20")) == [(TENS + 1, 0)]
    assert in_words(digits("13")) == [(UNITS + 3, 1), (TENS, 0)]  # three-ten
    assert in_words(digits("0 7 99")) == [(UNITS, 0), (UNITS + 7, 2), (UNITS + 9, 5), (AND, UNALIGNED), (TENS + 8, 4)]


def test_each_word_of_a_number_but_and_is_aligned_with_its_own_digit():
    for source, target in counting(1, 3)(40, 5):
        words = in_words(source[:-1])
        assert [word for word, _ in words] == target[:-1]
        assert source[-1] == target[-1] == END
        for word, place in words:
            if word == AND:
                assert place == UNALIGNED
            elif word < TENS:
                assert source[place] - FIRST == word - UNITS
            else:
                assert source[place] - FIRST == word - TENS + 1


def test_what_is_recalled_stands_after_the_mark():
    mark = FIRST + 5
    for source, target in recalling(5, 2, 6)(40, 5):
        assert source.count(mark) == 1
        assert target == [source[source.index(mark) + 1], END]
        assert 2 <= len(source) - 2 <= 6


def test_each_symbol_of_what_is_gathered_tells_four_bits():
    for source, target in gathering(8)(10, 5):
        bits = [symbol - FIRST for symbol in source[:-1]]
        for place, symbol in enumerate(target[:-1]):
            four = bits[place], bits[7 - place], bits[(place + 2) % 8], bits[(place + 6) % 8]
            assert symbol - FIRST == four[0] + 2 * four[1] + 4 * four[2] + 8 * four[3]
