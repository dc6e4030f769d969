from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.text.vocabulary import BEGIN, END, LEARNING_THREADS, PAD, UNKNOWN, Vocabulary, VocabularyConfig, learn

KINDS = ["bpe", "unigram", "characters", "symbols"]
SOURCES = [
    "the cat sat on the mat",
    "the dog runs over the street to the other dog",
    "a cat and a dog and a mat",
    "over the mat runs the other cat",
] * 3
TARGETS = [
    "die Katze saß auf der Matte",
    "der Hund läuft über die Straße zu dem anderen Hund",
    "eine Katze und ein Hund und eine Matte",
    "über die Matte läuft die andere Katze",
] * 3

# All of Unicode but two things. Half a surrogate pair is no character, and cannot be written as UTF-8. U+2581 is
# how sentencepiece writes a space, so that it comes back as one. Line breaks and runs of whitespace collapse.
lines = st.text(st.characters(codec="utf-8", exclude_characters="\u2581")).map(lambda text: " ".join(text.split()))


@cache
def vocabulary(kind="bpe", size=331, joint=True, byte_fallback=True):
    config = VocabularyConfig(kind=kind, size=size, joint=joint, byte_fallback=byte_fallback)
    return learn(SOURCES, TARGETS, config)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(line=lines)
def test_any_text_comes_back_from_its_ids_and_nothing_is_unknown(kind, line):
    (ids,) = vocabulary(kind).encode_target([line])
    assert vocabulary(kind).decode_target(ids) == line
    assert UNKNOWN not in ids


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_decoding_any_ids_gives_one_line(kind, data):
    ids = data.draw(st.lists(st.integers(0, vocabulary(kind).sizes[1] - 1)))
    text = vocabulary(kind).decode_target(ids)
    assert "\n" not in text
    assert "\r" not in text
    text.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_learned_from_comes_back(kind):
    words = vocabulary(kind)
    assert [words.decode_target(ids) for ids in words.encode_target(TARGETS)] == TARGETS


def test_subwords_are_fewer_than_characters_and_symbols_are_words():
    longer, shorter = (len(vocabulary(kind).encode_target(TARGETS)[1]) for kind in ("characters", "bpe"))
    assert shorter < longer == len(TARGETS[1]) + 2  # END, and the space that sentencepiece puts before a line
    assert len(vocabulary("symbols").encode_target(TARGETS)[1]) == len(TARGETS[1].split()) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_ids_end_with_end_and_bear_no_other_special_token(kind):
    for ids in vocabulary(kind).encode_source(SOURCES) + vocabulary(kind).encode_target(["", "Katze"]):
        assert ids[-1] == END
        assert not {PAD, UNKNOWN, BEGIN, END} & set(ids[:-1])


def test_without_byte_fallback_what_was_never_seen_is_unknown():
    (ids,) = vocabulary("characters", byte_fallback=False).encode_source(["the ☃"])
    assert UNKNOWN in ids


def test_special_symbols_do_not_show_in_decoded_text():
    (ids,) = vocabulary().encode_target(["die Katze"])
    assert vocabulary().decode_target([BEGIN, *ids, END, PAD, PAD]) == "die Katze"


def test_a_joint_vocabulary_encodes_both_sides_alike():
    words = vocabulary()
    assert words.joint
    assert words.sizes[0] == words.sizes[1]
    assert words.encode_source(SOURCES + TARGETS) == words.encode_target(SOURCES + TARGETS)


def test_separate_vocabularies_each_know_their_own_side():
    words = vocabulary("symbols", joint=False, byte_fallback=False)
    assert not words.joint
    assert UNKNOWN not in {i for ids in words.encode_source(SOURCES) + words.encode_target(TARGETS) for i in ids}
    assert UNKNOWN in words.encode_source(["Katze"])[0]
    assert UNKNOWN in words.encode_target(["cat"])[0]
    assert words.decode_target(words.encode_target(["die Katze"])[0]) == "die Katze"


def test_pieces_spell_the_text():
    (ids,) = vocabulary().encode_source(["the cat"])
    assert "".join(vocabulary().pieces(ids[:-1], "source")).replace("\u2581", " ").strip() == "the cat"


def test_several_threads_encode_as_one_does():
    assert vocabulary().encode_source(SOURCES, threads=3) == vocabulary().encode_source(SOURCES)


@pytest.mark.parametrize("joint", [True, False])
def test_a_saved_vocabulary_comes_back_byte_for_byte(tmp_path, joint):
    words = vocabulary(joint=joint)
    words.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded.files() == words.files()
    assert (loaded.joint, loaded.sizes) == (joint, words.sizes)
    assert loaded.encode_source(SOURCES) == words.encode_source(SOURCES)
    assert loaded.encode_target(TARGETS) == words.encode_target(TARGETS)


def test_a_vocabulary_takes_the_place_of_an_earlier_one_of_another_kind(tmp_path):
    for joint in (True, False, True):
        vocabulary(joint=joint).save(tmp_path)
        assert Vocabulary.load(tmp_path).joint == joint


def test_learning_is_a_function_of_the_text():
    again = learn(SOURCES, TARGETS, VocabularyConfig(size=331))
    assert again.files() == vocabulary().files()


@pytest.mark.parametrize("kind", KINDS)
def test_too_large_a_size_shrinks_to_what_the_text_bears(kind):
    size = vocabulary(kind, size=99_991).sizes[0]
    assert len({*"".join(SOURCES)}) < size < 1009


def test_a_size_that_the_text_bears_is_kept():
    assert vocabulary(size=331).sizes == (331, 331)


@pytest.mark.parametrize("text", [[], [""]])
def test_no_text_is_an_error_of_the_user(text):
    with pytest.raises(HeedfulError, match="no vocabulary of 331 can be learned"):
        learn(text, text, VocabularyConfig(size=331))


@pytest.mark.parametrize("joint", [True, False])
def test_the_least_size_that_is_told_is_enough_and_less_is_not(joint):
    texts = SOURCES, [line.replace("t", "ţ") for line in TARGETS]
    found = learn(*texts, VocabularyConfig(size=350, joint=joint), tags=["<tag>"])
    least = found.least_size
    learn(*texts, VocabularyConfig(size=least, joint=joint), tags=["<tag>"])
    with pytest.raises(HeedfulError, match=f"set it to at least {least}"):
        learn(*texts, VocabularyConfig(size=least - 1, joint=joint), tags=["<tag>"])


def test_too_small_a_size_is_refused_with_one_that_is_enough():
    with pytest.raises(HeedfulError, match=r"vocabulary.size 5 is less .* at least (\d+)$") as refused:
        learn(SOURCES, SOURCES, VocabularyConfig(size=5))
    enough = int(str(refused.value).rpartition(" ")[2])
    assert learn(SOURCES, SOURCES, VocabularyConfig(size=enough)).sizes == (enough, enough)


def test_normalisation_folds_what_identity_keeps():
    folded = learn(SOURCES, TARGETS, VocabularyConfig(size=331, normalization="nfkc"))
    assert folded.decode_target(folded.encode_target(["ﬁ"])[0]) == "fi"
    assert vocabulary().decode_target(vocabulary().encode_target(["ﬁ"])[0]) == "ﬁ"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=23)
def test_subword_dropout_is_a_function_of_its_seed_and_keeps_the_text(kind, seed):
    words = vocabulary(kind)
    ids = words.encode_target(TARGETS)
    sampled = words.resample(ids, "target", 0.3, seed)
    words.resample(ids, "target", 0.3, seed + 1)  # what others draw in between does not matter
    assert words.resample(ids, "target", 0.3, seed) == sampled
    assert [words.decode_target(line) for line in sampled] == TARGETS
    assert all(line[-1] == END for line in sampled)


def test_subword_dropout_gives_other_segmentations_and_no_dropout_the_usual_one():
    words = vocabulary()
    ids = words.encode_source(SOURCES)
    assert words.resample(ids, "source", 0.0, 7) == ids
    samples = [words.resample(ids, "source", 0.2, seed) for seed in range(11)]
    assert all(sample != ids for sample in samples)
    assert len({str(sample) for sample in samples}) > 1
    assert all(len(line) >= len(usual) for line, usual in zip(samples[0], ids, strict=True))


def test_full_dropout_of_merges_spells_in_characters():
    words = vocabulary()
    (line,) = words.resample(words.encode_source(["the cat"]), "source", 1.0, 7)
    assert len(line) == len("▁the▁cat") + 1


def test_a_line_whose_text_is_not_known_any_more_is_not_segmented_anew():
    words = vocabulary(byte_fallback=False)
    ids = words.encode_source(["the cat ☃", "the cat"])
    sampled = words.resample(ids, "source", 1.0, 7)
    assert UNKNOWN in ids[0]
    assert sampled[0] == ids[0]
    assert len(sampled[1]) > len(ids[1])


@pytest.mark.parametrize("kind", ["characters", "symbols"])
def test_a_kind_with_one_segmentation_only_gives_it_under_dropout(kind):
    words = vocabulary(kind)
    ids = words.encode_source(SOURCES)
    assert words.resample(ids, "source", 0.3, 7) == ids


def test_a_folder_without_a_vocabulary_or_with_half_of_one_is_an_error_of_the_user(tmp_path):
    with pytest.raises(HeedfulError, match="no usable vocabulary"):
        Vocabulary.load(tmp_path)
    vocabulary(joint=False).save(tmp_path)
    (tmp_path / "vocabulary.target.model").unlink()
    with pytest.raises(HeedfulError, match="no usable vocabulary"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda model: model[: len(model) // 2], lambda model: b"\xff" * 97, lambda model: model[1:]]
)
def test_a_damaged_vocabulary_is_an_error_of_the_user(tmp_path, damage):
    (model,) = vocabulary().files().values()
    (tmp_path / "vocabulary.model").write_bytes(damage(model))
    with pytest.raises(HeedfulError, match="no usable vocabulary"):
        Vocabulary.load(tmp_path)


def test_an_empty_vocabulary_file_is_an_error_of_the_user(tmp_path):
    (tmp_path / "vocabulary.model").write_bytes(b"")
    with pytest.raises(HeedfulError, match="no usable vocabulary"):
        Vocabulary.load(tmp_path)


def test_a_file_tells_nothing_of_the_machine_that_made_it():
    number_of_threads = b"\x80\x01\x10"  # field 16 of sentencepiece's settings, and its value
    assert LEARNING_THREADS == 16
    assert number_of_threads in vocabulary().files()["vocabulary.model"]
