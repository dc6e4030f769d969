"""Documents: joined parts give the text back, and what stands for something comes through whatever a model says."""

import re
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from heedful.text import markup
from heedful.text.document import (
    BLANK_LINES,
    LINE_ENDS,
    LONGEST,
    PLACEHOLDER,
    _short,
    careful,
    clean,
    is_titled,
    split,
    translating,
)
from heedful.text.markup import Tag, place

MIXED = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [
                *(
                    "{}",
                    "{name}",
                    "{{ user.name }}",
                    "%{count}",
                    "#{x}",
                    "%s",
                    "%1$s",
                    "%@",
                    "%ld",
                    "https://a.org/x?y=1",
                ),
                *("me@a.org", "`x = 1`", "\n\n", "\n", "```\n", "- ", "> ", "\t", "Hi there. ", "<b>"),
            ]
        ),
    ),
    max_size=12,
).map("".join)


class Counting:
    """A pattern, and how often a text was looked through."""

    def __init__(self, pattern):
        self.pattern, self.looks = pattern, 0

    def finditer(self, text):
        self.looks += 1
        return self.pattern.finditer(text)

    def __getattr__(self, name):
        return getattr(self.pattern, name)


def test_a_long_line_is_looked_through_once_and_not_for_each_piece(monkeypatch):
    pattern = Counting(PLACEHOLDER)
    monkeypatch.setattr("heedful.text.document.PLACEHOLDER", pattern)
    pieces = list(_short("word " * 1000 + "`code` " + "word " * 1000, LONGEST))
    assert len(pieces) > 20
    assert "".join(pieces) == "word " * 1000 + "`code` " + "word " * 1000
    assert pattern.looks == 1


def finish(text, answer, **options):
    """Translate with a function in place of a model."""
    steps = translating(text, **{"language": "en", **options})
    answers = None
    while True:
        try:
            sentences = steps.send(answers)
        except StopIteration as finished:
            return finished.value
        answers = [[aligned(sentence.text, answer(sentence))] for sentence in sentences]


class Answer(NamedTuple):
    text: str
    alignment: list[tuple[int, int]]


def aligned(source, target):
    """Words in the order that they have."""
    count = len(source.split())
    return Answer(target, [(min(i, count - 1), i) for i in range(len(target.split()))])


def line_ends(text):
    return "".join(LINE_ENDS.findall(text))


@given(MIXED, st.booleans())
def test_the_parts_joined_are_the_text(text, markup):
    parts = list(split(text, "en", markup=markup))
    assert "".join(part.text for part in parts) == clean(text)
    for part in parts:
        if part.translate:
            assert part.text == part.text.strip()
            assert not (BLANK_LINES if markup else LINE_ENDS).search(part.text)


@given(MIXED)
def test_a_model_that_copies_gives_the_text_back(text):
    assume(not any(is_titled(part.text) for part in split(text, "en")))
    assert finish(text, lambda sentence: sentence.text) == [clean(text)]


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


def test_what_stands_around_a_placeholder_is_asked_for_with_care_where_the_whole_repeated():
    asked = []

    def answer(sentence):
        asked.append((sentence.text, sentence.careful))
        return "die die die die die" if "Tom" in sentence.text else sentence.text.upper()

    assert finish("Hello {name}, good morning.", answer) == ["HELLO {name}, GOOD MORNING."]
    assert {careful for text, careful in asked if "Tom" not in text} == {True}


def test_care_forbids_no_less_than_was_asked_for():
    assert [careful(own) for own in (0, 2, 7)] == [4, 2, 4]


def test_a_sentence_that_a_model_says_nothing_to_is_not_lost():
    assert finish("Well, <b>{name}</b>.", lambda _: " ", markup=True) == ["Well, <b>{name}</b>."]
    assert finish("Well.", lambda _: "") == ["Well."]


@pytest.mark.parametrize("text", ["", " \n\n", "42 %", "...", "\u2028", "{name}", "https://a.org", "<p></p>", "&nbsp;"])
def test_what_has_no_words_comes_back_as_it_is(text):
    assert finish(text, lambda _: "no", markup=True) == [text]


def test_tags_and_entities_are_kept_and_code_is_not_translated():
    html = "<p>Cats &amp; <b>dogs</b></p><pre>x</pre><!-- not this -->"
    assert finish(html, lambda s: s.text.upper(), markup=True) == [
        "<p>CATS &amp; <b>DOGS</b></p><pre>x</pre><!-- not this -->"
    ]


def test_a_tag_in_a_sentence_goes_with_the_words_it_stood_around():
    asked = []

    def answer(sentence):
        asked.append(sentence)
        return sentence.text.upper()

    assert finish('See <a href="x">the &lt;new&gt; page</a> & smile.', answer, markup=True) == [
        'SEE <a href="x">THE &lt;NEW&gt; PAGE</a> &amp; SMILE.'
    ]
    assert [(one.text, one.align) for one in asked] == [("See the <new> page & smile.", True)]


def test_tags_follow_their_words_into_another_order():
    steps = translating("I <b>often</b> see <i>cats</i>.", "en", markup=True)
    assert steps.send(None)[0].text == "I often see cats."
    with pytest.raises(StopIteration) as finished:
        steps.send([[Answer("Katzen sehe ich oft.", [(3, 0), (2, 1), (0, 2), (1, 3)])]])
    assert finished.value.value == ["<i>Katzen</i> sehe ich <b>oft</b>."]


def test_words_are_counted_between_spaces_alone():
    steps = translating("Ten&nbsp;miles to <b>walk</b>.", "en", markup=True)
    assert steps.send(None)[0].text == "Ten miles to walk."
    with pytest.raises(StopIteration) as finished:
        steps.send([[Answer("Zehn\u00a0Meilen zu gehen.", [(1, 0), (2, 1), (3, 2)])]])
    assert finished.value.value == ["Zehn\u00a0Meilen zu <b>gehen</b>."]


def test_no_tag_is_sought_among_all_others(monkeypatch):
    """A page that is all tags is placed in a time that grows as it does; and no tag is lost."""
    name, looks = markup._name, []
    monkeypatch.setattr(markup, "_name", lambda tag: (looks.append(tag), name(tag))[1])
    tags = [Tag(0, "<b>")] * 100 + [Tag(5, "</i>")] * 70 + [Tag(0, "<i>")] * 3 + [Tag(5, "</i>")] * 2
    found = place(tags, "Hello", "Hallo", [(0, 0)])
    assert found == "<b>" * 100 + "<i>" + "<i><i>Hallo</i></i>" + "</i>" * 70
    assert len(looks) == len(tags)


@pytest.mark.parametrize("icon", ["<i></i>", '<i class="icon"> </i>', "<b><i></i></b>"])
def test_an_element_without_words_keeps_its_place(icon):
    [found] = finish(f"Press {icon} here.", lambda _: "Hier drücken.", markup=True)
    tags = icon.replace(" </", "</")
    assert re.sub(r" +(?=<)", "", found) == f"Hier{tags} drücken."


def test_without_an_alignment_the_texts_around_tags_are_translated_alone():
    steps = translating("The <b>cat</b> sleeps &amp; eats.", "en", markup=True)
    steps.send(None)
    assert [one.text for one in steps.send([[Answer("Die Katze schläft.", [])]])] == ["The", "cat", "sleeps & eats."]
    with pytest.raises(StopIteration) as finished:
        steps.send([[Answer("Die", [])], [Answer("Katze", [])], [Answer("schläft & isst.", [])]])
    assert finished.value.value == ["Die <b>Katze</b> schläft &amp; isst."]


TAGGED = st.lists(
    st.sampled_from(
        ["<b>", "</b>", "<i>", "</i>", '<a href="?a&b">', "</a>", "cat", " ", ". ", "{name}", "dog ", "&amp;"]
    ),
    max_size=14,
).map("".join)


@given(TAGGED, st.lists(st.integers(0, 5), max_size=6), st.sampled_from(["", "ein zwei", "Tom x Boston y Mary"]))
def test_no_tag_is_lost_whatever_a_model_says_and_aligns(text, looks, says):
    steps, answers = translating(text, "en", markup=True), None
    try:
        while True:
            sentences = steps.send(answers)
            answers = [[Answer(says, list(zip(looks, range(len(looks)), strict=True)))] for _ in sentences]
    except StopIteration as finished:
        [found] = finished.value
    for tag in ("<b>", "</b>", "<i>", "</i>", '<a href="?a&b">', "</a>"):
        assert found.count(tag) >= text.count(tag)
    assert found.count("{name}") >= text.count("{name}")


@given(TAGGED)
def test_what_a_model_copies_keeps_its_tags_in_their_places(text):
    def squeezed(html):
        return re.sub(r"\s+", "", html).replace("amp;", "").replace("&", "")

    found = finish(text, lambda sentence: sentence.text, markup=True)[0]
    bare, kept = (squeezed(re.sub(r"<[^>]*>", "", html)) for html in (text, found))
    assert kept == bare


def test_elements_around_words_keep_them_where_a_model_copies():
    text = '<i>One cat</i> and <a href="x">two <b>dogs</b></a> sleep. Is it <b>late</b>?'
    assert finish(text, lambda sentence: sentence.text, markup=True) == [text]


@pytest.mark.parametrize("held", ["{}", "{{ user.name }}", "%{count}", "#{name}", "%1$s", "%@", "%ld", "%lu", "%-5d"])
def test_placeholders_of_many_kinds_go_through_as_names(held):
    asked = []
    finish(f"Hello {held}, good morning.", lambda sentence: asked.append(sentence.text) or sentence.text)
    assert asked == ["Hello Tom, good morning."]


@pytest.mark.parametrize(
    "held", ["info@m\u00fcller.de", "j\u00fcrgen.schmidt@web.de", "https://de.wikipedia.org/wiki/K\u00f6ln"]
)
def test_addresses_may_have_letters_that_others_do_not(held):
    asked = []
    finish(f"Look at {held} today.", lambda sentence: asked.append(sentence.text) or sentence.text)
    assert asked == ["Look at Tom today."]


def test_a_sentence_in_braces_is_none_of_the_placeholders():
    assert finish("{ This stands in braces. }", lambda s: s.text.upper()) == ["{ THIS STANDS IN BRACES. }"]


def test_a_block_of_code_is_kept():
    text = "Look:\n\n```python\nfor cat in cats:\n```\nGood."
    assert finish(text, lambda sentence: sentence.text.upper()) == ["LOOK:\n\n```python\nfor cat in cats:\n```\nGOOD."]
    assert finish("```\nnever closed", lambda sentence: sentence.text.upper()) == ["```\nNEVER CLOSED"]
    text = "```npm install``` runs it.\n````\n```\nx = 1\n````\nGood."
    found = finish(text, lambda sentence: sentence.text.upper())
    assert found == ["```npm install``` RUNS IT.\n````\n```\nx = 1\n````\nGOOD."]


@pytest.mark.parametrize("before", ["    ", "\t", "> ", "1. ", "- > "])
def test_a_block_of_code_in_a_list_or_quotation_is_kept(before):
    indent = re.sub(r"[^\s>]", " ", before)
    text = f"Install it:\n\n{before}```bash\n{indent}pip install heedful\n{indent}```\nGood."
    [found] = finish(text, lambda sentence: sentence.text.upper())
    assert found == text.replace("Install it", "INSTALL IT").replace("Good", "GOOD")


def test_a_fence_within_a_block_of_code_does_not_end_it():
    inner = '    """Doc.\n\n    ```\n    f()\n    ```\n    """\n> ```\n'
    text = f"Look.\n```python\n{inner}```\nGood.\n> ```\n> x\n```\n> y\n> ```\nFine."
    [found] = finish(text, lambda sentence: sentence.text.upper())
    assert found == text.replace("Look", "LOOK").replace("Good", "GOOD").replace("Fine", "FINE")


def test_columns_are_translated_apart():
    asked = []
    found = finish("Good morning\tThe station\t\n\t7", lambda s: asked.append(s.text) or s.text.upper())
    assert found == ["GOOD MORNING\tTHE STATION\t\n\t7"]
    assert asked == ["Good morning", "The station"]
    assert finish("Write `name\tvalue` here.", lambda s: s.text.upper().replace("TOM", "Tom")) == [
        "WRITE `name\tvalue` HERE."
    ]
    assert finish("<p>Good\tmorning.</p>", lambda s: s.text.upper(), markup=True) == ["<p>GOOD\tMORNING.</p>"]


@pytest.mark.parametrize(
    "kept",
    [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<?php if ($a < $b): echo $name; ?>",
        "<?php echo '<?xml'; ?>",
        "<%= name %>",
        "<script>window.jQuery || document.write('<script src=\"js/jquery.js\"><\\/script>')</script>",
        "<style>b::before { content: '<style>'; }</style>",
        "<!-- one <!-- two -->",
    ],
)
def test_what_a_program_reads_is_kept(kept):
    text = f"{kept}<p>Good morning.</p>{kept}"
    assert finish(text, lambda s: s.text.upper(), markup=True) == [f"{kept}<p>GOOD MORNING.</p>{kept}"]


@pytest.mark.parametrize("opening", ["<!-- never", "<script>never", "<textarea>never", "<?php get_footer();"])
def test_what_never_ends_runs_to_the_end(opening):
    assert finish(f"Good. {opening} closed", str, markup=True)[0].endswith(f"{opening} closed")


@pytest.mark.parametrize("tag", ['<script src="a.js"/>', "<style-guide>", "<textarea:x y='1'>", "<code-block>"])
def test_what_only_begins_like_a_script_is_a_tag(tag):
    assert finish(f"{tag}Hello there.</p>", lambda s: s.text.upper(), markup=True) == [f"{tag}HELLO THERE.</p>"]


@pytest.mark.parametrize("held", ["{{ name if age > 17 }}", "{% if n > 1 and n & 1 %}", "https://a.org/?a=1&amp;b=2"])
@pytest.mark.parametrize("known", [True, False])
def test_a_placeholder_in_markup_is_kept_as_it_is_written(held, known):
    def answer(sentence):
        return sentence.text.upper().replace("TOM", "Tom" if known else "")

    [found] = finish(f"<p>Hello {held}, good &amp; <b>early</b> morning.</p>", answer, markup=True)
    assert found == f"<p>HELLO {held}, GOOD &amp; <b>EARLY</b> MORNING.</p>"


def test_in_markup_a_line_end_is_a_space_and_a_blank_line_is_none():
    text = "<p>The station is <b>closed\nbecause</b> of snow.\n\nStay at home.</p>"
    asked = []
    found = finish(text, lambda sentence: asked.append(sentence.text) or sentence.text, markup=True)
    assert asked == ["The station is closed because of snow.", "Stay at home."]
    assert found == [text.replace("closed\nbecause", "closed because")]


def test_a_line_in_capitals_has_no_names_put_into_it():
    asked = []
    found = finish("WELCOME {name}, YOUR ORDER IS READY", lambda s: asked.append(s.text) or s.text)
    assert found == ["WELCOME {name}, YOUR ORDER IS READY"]
    assert not any("Tom" in text for text in asked)


def test_names_in_a_list_and_german_nouns_keep_their_capitals():
    for text, language in (
        ("Angela Merkel Met Barack Obama.", "en"),
        ("Barack Obama, Angela Merkel.", "en"),
        ("Guten Morgen Herr Doktor Müller!", "de"),
    ):
        assert next(translating(text, language))[0].text == text


def test_sentences_that_touch_are_parted_where_the_target_has_spaces():
    says = {"你好。": "Hello.", "我很好。": "I am well."}
    assert finish("你好。我很好。", lambda sentence: says[sentence.text], language="zh") == ["Hello. I am well."]
    says = {
        "\u4f60\u597d\u3002": "Hello.",
        "\u201c\u518d\u89c1\u201d\u662f\u4ec0\u4e48\u610f\u601d\uff1f": '"Goodbye" means what?',
    }
    assert finish("".join(says), lambda sentence: says[sentence.text], language="zh") == [
        'Hello. "Goodbye" means what?'
    ]


def test_the_region_of_a_language_does_not_change_where_its_sentences_end():
    text = "Wir feiern am 3. Oktober zusammen."
    for language in ("de", "de-DE", "de-AT"):
        assert [part.text for part in split(text, language)] == [text]


def test_scripts_without_spaces_end_addresses_and_stand_beside_names():
    asked = []
    text = "请访问https://a.org查看更多和发邮件到me@a.org联系我。"
    assert finish(text, lambda s: asked.append(s.text) or s.text, language="zh") == [text]
    assert asked == ["请访问Tom查看更多和发邮件到Boston联系我。"]


def test_where_there_are_no_words_the_text_around_tags_is_translated_alone():
    says = {"The old cat sleeps.": "那只老猫在睡觉。", "The": "那", "old cat": "老猫", "sleeps.": "睡觉。"}
    assert finish("The <b>old cat</b> sleeps.", lambda s: says[s.text], markup=True) == ["那 <b>老猫</b> 睡觉。"]


def test_a_long_sentence_is_split_not_cut():
    text = "word, " * 300
    parts = [part for part in split(text, "en") if part.translate]
    assert max(len(part.text) for part in parts) <= LONGEST
    assert len(re.findall("word", "".join(part.text for part in parts))) == 300


def test_a_sentence_that_a_model_has_no_room_for_is_split_too():
    text = "word, " * 40 + "\U0001f642" * 40 + " {" + "x" * 90 + "}"
    parts = [part.text for part in split(text, "en", fits=lambda sentence: len(sentence.encode()) <= 60)]
    assert "".join(parts) == text
    assert max(len(part.encode()) for part in parts if "x" not in part) <= 60
    assert "{" + "x" * 90 + "}" in parts, "a placeholder is never cut"


def test_a_headline_is_read_as_a_sentence():
    asked = []
    finish("Where Is The Next Station?", lambda s: asked.append(s.text) or s.text)
    finish("How To Buy A Car From NASA", lambda s: asked.append(s.text) or s.text)
    assert asked == ["Where is the next station?", "How to buy a car from NASA"]


@pytest.mark.parametrize(
    "held",
    ["https://learn.example.com/api/System.String", "https://a.org/x?Q=One!Two", "Jane.Doe@m\u00fcller.De", "`a. B`"],
)
def test_no_sentence_ends_within_an_address(held):
    asked = []
    text = f"Read {held} today. Then rest."
    assert finish(text, lambda sentence: asked.append(sentence.text) or sentence.text) == [text]
    assert asked == ["Read Tom today.", "Then rest."]


@pytest.mark.parametrize(
    "tag", ['<a href="x" title="a > b">', "<a title='1 > 0'>", '<a href="x"\n   class="y">', '<a href="x>', "<time>"]
)
def test_a_tag_is_whole_however_it_is_written(tag):
    closing = "</time>" if tag == "<time>" else "</a>"
    asked = []
    found = finish(
        f"I read {tag}the guide{closing} now.", lambda s: asked.append(s.text) or s.text.upper(), markup=True
    )
    assert (found, asked) == ([f"I READ {tag}THE GUIDE{closing} NOW."], ["I read the guide now."])


@pytest.mark.parametrize("text", ["Use the ` key. Then press ` again.", "``Hello. How are you?'' she said. ``Fine.''"])
def test_quotation_marks_are_not_taken_for_those_of_code(text):
    assert finish(text, lambda sentence: sentence.text.upper()) == [text.upper()]


def test_an_apostrophe_after_a_sign_is_no_quotation():
    text = "If i<n it's fine, and n>5 it isn't."
    found = finish(text, lambda sentence: sentence.text.upper(), markup=True)
    assert found == ["IF I<n it's fine, and n>5 IT ISN'T."], "a tag, to who knows no better, but no longer one"


def test_a_tag_with_a_blank_line_in_it_is_kept():
    tag = '<a href="x"\n\nclass=">">'
    [found] = finish(f"I read {tag}the guide</a> now.", lambda sentence: sentence.text.upper(), markup=True)
    assert found.startswith(f"I READ {tag}THE GUIDE")


def test_an_address_in_pieces_is_kept():
    link = '<a href="https://a.org/New"><span class="hidden">https://</span><span>a.org/New</span></a>'
    assert finish(f"<p>Look here: {link}</p>", lambda s: s.text.upper(), markup=True) == [f"<p>LOOK HERE: {link}</p>"]


def test_a_sentence_is_as_long_as_what_is_read_of_it():
    text = f'See <a href="{"x, " * LONGEST}">the page</a> now.'
    asked = []
    finish(text, lambda sentence: asked.append(sentence.text) or sentence.text, markup=True)
    assert asked == ["See the page now."]
    long = "".join(f'<a href="a, b">word</a>, <b title="c, d">{n}</b> ' for n in range(200))
    assert finish(long, lambda s: s.text, markup=True) == [long]
    assert max(len(re.sub("<[^>]*>", "", part.text)) for part in split(long, "en", markup=True)) <= LONGEST
