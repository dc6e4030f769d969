import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.text.augment import augmented, joined, mistyped, names_in, renamed, without_stop

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


def test_joined_pairs_are_a_paragraph():
    assert joined([("A.", "B."), ("C.", "D.")]) == ("A. C.", "B. D.")


def test_pairs_of_one_tag_are_joined_with_their_like_alone():
    pairs = [(n % 2, f"{'ab'[n % 2]} {n}", f"{'AB'[n % 2]} {n}") for n in range(400)]
    for corpus, source, target in augmented(pairs, tags=["<one>", "<other>"], altered=1.0):
        tag, *words = source.split()
        assert tag == ["<one>", "<other>"][corpus]
        assert {word.lower() for word in target.split() if word.isalpha()} == {"ab"[corpus]}, words


def test_a_character_that_is_a_word_is_not_mistyped():
    assert all(mistyped("我今天去学校学习", random.Random(seed)) == "我今天去学校学习" for seed in range(9))
