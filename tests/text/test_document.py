"""Documents: joined parts give the text back, and what stands for something comes through whatever a model says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.text.document import LINE_ENDS, LONGEST, PLACEHOLDER, clean, split, translating

MIXED = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            ["{name}", "%s", "https://a.org/x?y=1", "me@a.org", "`x = 1`", "\n\n", "- ", "Hi there. ", "<b>"]
        ),
    ),
    max_size=12,
).map("".join)


def finish(text, answer, **options):
    """Translate with a function in place of a model."""
    steps = translating(text, "en", **options)
    answers = None
    while True:
        try:
            sentences = steps.send(answers)
        except StopIteration as finished:
            return finished.value
        answers = [[answer(sentence)] for sentence in sentences]


def line_ends(text):
    return "".join(LINE_ENDS.findall(text))


@given(MIXED, st.booleans())
def test_the_parts_joined_are_the_text(text, markup):
    parts = list(split(text, "en", markup=markup))
    assert "".join(part.text for part in parts) == clean(text)
    for part in parts:
        if part.translate:
            assert part.text == part.text.strip()
            assert not LINE_ENDS.search(part.text)


@given(MIXED)
def test_a_model_that_copies_gives_the_text_back(text):
    assert line_ends(finish(text, lambda sentence: sentence.text)[0]) == line_ends(clean(text))


@given(MIXED, st.sampled_from(["", "nonsense", "Tom Tom", "{name} %s", "a\nb"]))
def test_placeholders_and_lines_survive_any_model(text, says):
    found = finish(text, lambda _: says)[0]
    wanted = [held for part in split(text, "en") if part.translate for held in PLACEHOLDER.findall(part.text)]
    assert all(found.count(held) >= wanted.count(held) for held in wanted)
    assert line_ends(found) == line_ends(clean(text))


def test_a_placeholder_goes_through_the_model_as_a_name():
    asked = []

    def answer(sentence):
        asked.append(sentence.text)
        return sentence.text.replace("Hello", "Hallo")

    assert finish("Hello {name}, see https://a.org.", answer) == ["Hallo {name}, see https://a.org."]
    assert asked == ["Hello Tom, see Boston."]


def test_without_the_name_in_the_answer_the_sides_are_translated():
    assert finish("Hello {name}, good morning.", lambda s: "Gruß" if "Tom" in s.text else s.text.upper()) == [
        "HELLO {name}, GOOD MORNING."
    ]


def test_an_output_that_repeats_itself_is_asked_for_with_care():
    assert finish("A cat.", lambda s: "Eine Katze." if s.careful else "die die die die die") == ["Eine Katze."]


@pytest.mark.parametrize("text", ["", " \n\n", "42 %", "...", "\u2028", "{name}", "https://a.org", "<p></p>", "&nbsp;"])
def test_what_has_no_words_comes_back_as_it_is(text):
    assert finish(text, lambda _: "no", markup=True) == [text]


def test_tags_and_entities_are_kept_and_code_is_not_translated():
    html = "<p>Cats &amp; <b>dogs</b></p><pre>x</pre><!-- not this -->"
    assert finish(html, lambda s: s.text.upper(), markup=True) == [
        "<p>CATS &amp; <b>DOGS</b></p><pre>x</pre><!-- not this -->"
    ]


def test_a_long_sentence_is_split_not_cut():
    text = "word, " * 300
    parts = [part for part in split(text, "en") if part.translate]
    assert max(len(part.text) for part in parts) <= LONGEST
    assert len(re.findall("word", "".join(part.text for part in parts))) == 300


def test_a_headline_is_read_as_a_sentence():
    asked = []
    finish("Where Is The Next Station?", lambda s: asked.append(s.text) or s.text)
    assert asked == ["Where is the next station?"]
