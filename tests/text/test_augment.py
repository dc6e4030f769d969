import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.text.augment import augmented, joined, mistyped, names_in, renamed, without_stop, word_pairs

PAIRS = [
    (0, "Tom lives in Boston.", "Tom wohnt in Boston."),
    (0, "Where is the station?", "Wo ist der Bahnhof?"),
    (1, "Yesterday Koko saw a gorilla.", "Koko sah gestern einen Gorilla."),
] * 40


def test_pairs_come_in_order_with_about_the_share_of_copies_between_them():
    found = list(augmented(PAIRS, altered=0.5))
    assert 160 < len(found) < 200
    remaining = iter(found)
    assert all(pair in remaining for pair in PAIRS)
    assert list(augmented(PAIRS)) == PAIRS


def test_copies_follow_from_the_seed_alone():
    first, second, other = (list(augmented(PAIRS, altered=0.7, seed=seed)) for seed in (3, 3, 4))
    assert first == second != other


def test_a_tag_stands_before_its_corpus_only():
    found = list(augmented(PAIRS, tags=("", "<bt>"), altered=0.5))
    assert all(source.startswith("<bt> ") == (corpus == 1) for corpus, source, _ in found)
    assert not any("<bt>" in target for _, _, target in found)


def test_every_kind_of_copy_is_made():
    sources = {source for _, source, _ in augmented(PAIRS, altered=1.0)}
    assert {"Tom lives in Boston", "tom lives in boston.", "tom lives in boston"} <= sources
    assert any(source.count(".") + source.count("?") > 1 for source in sources)
    assert any(re.fullmatch(r"Tom lives in [A-Z]\w*\.", source) for source in sources - {"Tom lives in Boston."})


def test_a_pair_without_a_name_is_altered_too_not_repeated():
    found = list(augmented(PAIRS, altered=1.0))
    assert len(found) > 2 * len(PAIRS) - 8  # two letters alike may be swapped
    assert not any(one == other for one, other in pairwise(found))
    plain = [(0, "und nun", "and now")] * 50
    assert len(list(augmented(plain, altered=1.0))) > 95  # no stop and no capital that it could lose: joined


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("I know.", "Ich weiß."), ("I know", "Ich weiß")),
        (("Why?", "Warum?"), ("Why", "Warum?")),
        (("Go!", "Geh!"), ("Go", "Geh!")),
        (("no stop", "kein Punkt"), ("no stop", "kein Punkt")),
        (("Wait...", "Warte..."), ("Wait", "Warte")),
        (("...", "..."), ("...", "...")),
        (("?", "?!"), ("?", "?!")),
        (("Hm...", "..."), ("Hm...", "...")),
    ],
)
def test_a_statement_loses_its_stop_on_both_sides_a_question_on_one(pair, expected):
    assert without_stop(*pair) == expected


@given(st.text(max_size=60), st.integers(0, 99))
def test_a_typo_changes_at_most_one_place_of_a_longer_word(text, seed):
    found = mistyped(text, random.Random(seed))
    assert abs(len(found) - len(text)) <= 1
    same = next((i for i, (a, b) in enumerate(zip(found, text, strict=False)) if a != b), min(len(found), len(text)))
    assert any(found[same + a :] == text[same + b :] for a in range(3) for b in range(3))
    if not any(text[i : i + 3].isalpha() for i in range(len(text) - 2)):
        assert found == text


def test_names_are_capitals_inside_the_source_that_the_target_has_too():
    assert names_in("Yesterday Tom saw Mary in Rome.", "Tom sah Maria gestern in Rome.") == ["Tom", "Rome"]
    assert names_in("Tom slept", "Tom schlief") == []  # it begins the sentence: the capital says nothing


def test_a_name_is_exchanged_wherever_it_stands_on_both_sides():
    for seed in range(20):
        source, target = renamed(
            "Tom met Tom's son Tom.", "Tom traf Toms Sohn Tom.", ["Tom", "Eve"], random.Random(seed)
        )
        name = source.split()[0]
        assert (source, target) == (f"{name} met {name}'s son {name}.", f"{name} traf Toms Sohn {name}.")
        assert name.istitle()
    assert renamed("nobody here", "niemand hier", ["Tom"], random.Random(1)) == ("nobody here", "niemand hier")


def test_words_that_stand_together_are_pairs_as_they_are_written_inside_sentences():
    nouns = [("dog", "Hund"), ("house", "Haus"), ("bread", "Brot"), ("tree", "Baum")]
    verbs = [("see", "sehe"), ("draw", "zeichne"), ("know", "kenne"), ("want", "möchte"), ("find", "finde")]
    pairs = [(0, f"I {v} the {n}.", f"Ich {w} {m}.") for v, w in verbs for n, m in nouns] * 20
    others = [(0, f"nothing {i} here", f"nichts {i} hier") for i in range(6000)]
    assert set(word_pairs([*pairs, *others])) >= set(nouns + verbs)
    assert word_pairs([]) == []


def test_a_word_that_opens_lines_by_itself_is_translated_as_it_is_there():
    others = [(0, f"nothing {i} here", f"nichts {i} hier") for i in range(600)]
    inside = [(0, f"{i} sorry", f"{i} leid") for i in range(6)]
    assert dict(word_pairs([*others, *inside]))["sorry"] == "leid"
    opening = [(0, f"Sorry, Tom, no {i}.", f"Verzeihung! Tom, kein {i}.") for i in range(3)]
    opening += [(0, "Sorry.", "Ach so."), (0, "sorry. No.", "Pech. Nein."), (0, "Thanks, Ann.", "Danke, Ann.")]
    assert dict(word_pairs([*others, *inside, *opening]))["sorry"] == "verzeihung"
    assert word_pairs(opening) == [("sorry", "verzeihung")]
    assert word_pairs(opening * 3)[-1] == ("thanks", "danke")
    assert word_pairs([(0, "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "Hello, world.")] * 3) == [("\u4f60\u597d", "hello")]
    often = [(0, f"{i} so", f"{i} so") for i in range(601)]  # where it seldom opens lines that says little
    assert word_pairs([*others, *often, *[(0, "So, no.", "Also, nein.")] * 3]) == []


def test_a_word_that_is_a_line_of_its_own_is_translated_as_it_is_there():
    others = [(0, f"nothing {i} here", f"nichts {i} hier") for i in range(600)]
    inside = [(0, f"{i} stop", f"{i} aufhören") for i in range(6)]
    assert dict(word_pairs([*others, *inside]))["stop"] == "aufhören"
    assert dict(word_pairs([*others, *inside, (0, "Stop! ", "Stopp!\n")]))["stop"] == "stopp"
    for source, target in (("Stop!", "Stopp! Nein."), ("Stop, no.", "Stopp!"), ("Stop!", "Bleib stehen!")):
        assert dict(word_pairs([*others, *inside, (0, source, target)]))["stop"] == "aufhören"
    equal = [(0, "Stop!", word) for word in ("Aber!", "Aufhören!", "Zurück!")]  # a tie: what it stands beside elsewhere
    assert dict(word_pairs([*others, *inside, *equal]))["stop"] == "aufhören"


def test_a_document_on_one_line_is_no_place_to_find_words_in():
    pairs = [(0, f"{i} stop", f"{i} aufhören") for i in range(6)] + [(0, "nothing", "nichts")] * 600
    long = (0, " ".join(["stop"] * 6000), " ".join(["ende"] * 6000))
    assert dict(word_pairs([long, *pairs])) == dict(word_pairs(pairs)) == {"stop": "aufhören"}


def test_joined_pairs_are_a_paragraph():
    assert joined([("A.", "B."), ("C.", "D.")]) == ("A. C.", "B. D.")


def test_pairs_of_one_tag_are_joined_with_their_like_alone():
    pairs = [(n % 2, f"{'ab'[n % 2]} {n}", f"{'AB'[n % 2]} {n}") for n in range(400)]
    for corpus, source, target in augmented(pairs, tags=["<one>", "<other>"], altered=1.0):
        tag, *words = source.split()
        assert tag == ["<one>", "<other>"][corpus]
        assert {word.lower() for word in target.split() if word.isalpha()} == {"ab"[corpus]}, words


def test_signs_that_belong_to_a_letter_are_parts_of_a_word():
    pairs = [(0, f"{first} हिन्दी", f"{first} Hindi") for first in "abcdefg"] + [
        (0, f"x{n}", f"y{n}") for n in range(400)
    ]
    assert word_pairs(pairs) == [("हिन्दी", "Hindi")]


def test_a_character_that_is_a_word_is_not_mistyped():
    assert all(mistyped("我今天去学校学习", random.Random(seed)) == "我今天去学校学习" for seed in range(9))
