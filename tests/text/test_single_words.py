from heedful.text.single_words import word_pairs


def test_words_that_stand_together_are_pairs_as_they_are_written_inside_sentences():
    nouns = [("dog", "Hund"), ("house", "Haus"), ("bread", "Brot"), ("tree", "Baum")]
    verbs = [("see", "sehe"), ("draw", "zeichne"), ("know", "kenne"), ("want", "möchte"), ("find", "finde")]
    pairs = [(0, f"I {v} the {n}.", f"Ich {w} {m}.") for v, w in verbs for n, m in nouns] * 20
    others = [(0, f"nothing {i} here", f"nichts {i} hier") for i in range(6000)]
    assert set(word_pairs([*pairs, *others])) >= set(nouns + verbs)
    assert word_pairs([]) == []
    short = [(0, f"{n} TV", f"{n} Fernsehen") for n in ("Tom", "Ann", "Bob", "Eve", "Joe")]
    assert ("TV", "Fernsehen") in word_pairs([*others, *short])


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


def test_signs_that_belong_to_a_letter_are_parts_of_a_word():
    pairs = [(0, f"{first} हिन्दी", f"{first} Hindi") for first in "abcdefg"] + [
        (0, f"x{n}", f"y{n}") for n in range(400)
    ]
    assert word_pairs(pairs) == [("हिन्दी", "Hindi")]
