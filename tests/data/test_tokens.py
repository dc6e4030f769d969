from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data import tokens
from heedful.data.lines import flatten, pad
from heedful.data.tokens import TokenStore, content_key, encode_corpus
from heedful.text.vocabulary import PAD, UNKNOWN, VocabularyConfig, learn

NUMBERS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
PAIRS = [(n % 3, " ".join(str(n)), " ".join(NUMBERS[int(digit)] for digit in str(n))) for n in range(1009)]
WIDE = {"max_length": 997, "max_ratio": 997.0}


@cache
def vocabulary(kind="bpe", size=307, byte_fallback=True):
    config = VocabularyConfig(kind=kind, size=size, byte_fallback=byte_fallback)
    return learn([pair[1] for pair in PAIRS], [pair[2] for pair in PAIRS], config)


def lines_of(store, side, rows):
    flat, lengths = store.take(side, np.asarray(rows))
    return [line.tolist() for line in np.split(flat, np.cumsum(lengths)[:-1])]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 101)
    encode_corpus(iter(PAIRS), vocabulary(), tmp_path / "store.arrow", **WIDE)
    return TokenStore(tmp_path / "store.arrow")


def test_the_store_gives_back_what_the_vocabulary_encodes(store):
    rows = np.arange(len(PAIRS))
    sources = vocabulary().encode_source([source for _, source, _ in PAIRS])
    targets = vocabulary().encode_target([target for _, _, target in PAIRS])
    assert len(store) == len(PAIRS)
    assert lines_of(store, "source", rows) == sources
    assert lines_of(store, "target", rows) == targets
    assert store.source_lengths_N.tolist() == [len(line) for line in sources]
    assert store.target_lengths_N.tolist() == [len(line) for line in targets]
    assert store.corpus_N.tolist() == [number for number, _, _ in PAIRS]


@pytest.mark.parametrize("side", ["source", "target"])
def test_any_rows_can_be_taken_in_any_order_and_twice_over_all_chunks(store, side):
    rows = np.random.default_rng(3).integers(0, len(PAIRS), 499)
    encode = getattr(vocabulary(), f"encode_{side}")
    expected = encode([PAIRS[row][1 if side == "source" else 2] for row in rows])
    assert lines_of(store, side, rows) == expected


def test_a_store_of_one_chunk_equals_one_of_many(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 10_007)
    encode_corpus(iter(PAIRS), vocabulary(), tmp_path / "whole.arrow", **WIDE)
    whole, rows = TokenStore(tmp_path / "whole.arrow"), np.arange(len(PAIRS))[::-1]
    assert lines_of(whole, "target", rows) == lines_of(store, "target", rows)


def test_opening_a_store_maps_its_ids_instead_of_reading_them(tmp_path):
    lines = [" ".join("123456789" * 11)] * 2003
    encode_corpus(((0, line, line) for line in lines), vocabulary(), tmp_path / "store.arrow", **WIDE)
    before = pa.total_allocated_bytes()
    store = TokenStore(tmp_path / "store.arrow")
    store.take("source", np.array([2002, 0]))
    assert pa.total_allocated_bytes() - before < (tmp_path / "store.arrow").stat().st_size / 10


def test_a_batch_reads_its_rows_and_not_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK", 101)  # of one chunk nothing would be put together
    lines = [" ".join("123456789" * 11)] * 2003
    encode_corpus(((0, line, line) for line in lines), vocabulary(), tmp_path / "store.arrow", **WIDE)
    store, ran = TokenStore(tmp_path / "store.arrow"), []
    together = pa.concat_arrays
    monkeypatch.setattr(pa, "concat_arrays", lambda arrays: ran.append(sum(map(len, arrays))) or together(arrays))
    ids, lengths = store.take("source", np.array([2002, 0, 1300]))
    assert (len(lengths), len(ids), ran) == (3, lengths.sum(), [3])
    ids, lengths = store.take("source", np.array([], dtype=np.int64))
    assert len(ids) == len(lengths) == 0


def test_of_long_lines_fewer_are_held_at_a_time(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "CHARACTERS", 100)
    held = []
    words = vocabulary()
    encode = type(words).encode_source
    monkeypatch.setattr(
        type(words), "encode_source", lambda self, lines, *rest: held.append(lines) or encode(self, lines, *rest)
    )
    encode_corpus(iter(PAIRS), words, tmp_path / "short.arrow", **WIDE)
    assert max(sum(map(len, lines[:-1])) for lines in held) <= 100 < sum(len(source) for _, source, _ in PAIRS)
    short, rows = TokenStore(tmp_path / "short.arrow"), np.arange(len(PAIRS))
    assert lines_of(short, "target", rows) == lines_of(store, "target", rows)


def test_pairs_too_long_or_too_unequal_are_dropped_and_counted(tmp_path):
    words = vocabulary("symbols", size=509)
    length = {"three": "1 2 3", "five": "1 2 3 4 5", "seven": "1 2 3 4 5 6 7", "one": "1"}
    found = encode_corpus(
        [
            (0, length["five"], length["five"]),
            (0, length["seven"], length["three"]),  # too long on the source side
            (0, length["three"], length["seven"]),  # too long on the target side
            (0, length["five"], length["one"]),  # too unequal
            (0, length["one"], length["five"]),
            (0, length["one"], length["three"]),
        ],
        words,
        tmp_path / "store.arrow",
        max_length=5,
        max_ratio=3.0,
    )
    assert found._asdict() == {"kept": 2, "too_long": 2, "ratio": 2, "unknown": 0}
    kept = TokenStore(tmp_path / "store.arrow")
    assert kept.source_lengths_N.tolist() == [6, 2]  # END is no subword, but is stored
    assert kept.target_lengths_N.tolist() == [6, 4]


def test_unknown_symbols_are_counted_on_both_sides(tmp_path):
    words = vocabulary("symbols", size=509, byte_fallback=False)
    found = encode_corpus([(0, "1 ☃ 2", "eins ☃"), (0, "☃", "eins")], words, tmp_path / "s.arrow", **WIDE)
    assert found.unknown == sum(ids.count(UNKNOWN) for ids in words.encode_source(["1 ☃ 2", "eins ☃", "☃"]))
    assert found.unknown == 3


def test_a_store_from_no_pairs_is_empty(tmp_path):
    assert encode_corpus([], vocabulary(), tmp_path / "s.arrow", **WIDE).kept == 0
    assert len(TokenStore(tmp_path / "s.arrow")) == 0


def failing_pairs():
    yield PAIRS[0]
    raise RuntimeError("the disk is gone")


def test_an_error_while_encoding_leaves_no_store(tmp_path):
    with pytest.raises(RuntimeError, match="disk"):
        encode_corpus(failing_pairs(), vocabulary(), tmp_path / "s.arrow", **WIDE)
    assert list(tmp_path.iterdir()) == []


def test_the_key_follows_content_settings_and_vocabulary_but_not_names(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a\n")
    second.write_text("b\n")
    key = content_key([first, second], "settings", vocabulary())
    renamed = first.rename(tmp_path / "renamed")
    assert content_key([renamed, second], "settings", vocabulary()) == key
    assert content_key([renamed, second], "other settings", vocabulary()) != key
    assert content_key([renamed, second], "settings", vocabulary(size=293)) != key
    assert content_key([second, renamed], "settings", vocabulary()) != key
    second.write_text("c\n")
    assert content_key([renamed, second], "settings", vocabulary()) != key


def test_the_key_tells_where_one_file_ends_and_the_next_begins(tmp_path):
    def key(*contents):
        files = [tmp_path / str(number) for number in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_text(content)
        return content_key(files, "settings", vocabulary())

    assert key("a\nb\n", "c\nd\n", "e\n", "f\n") != key("a\n", "b\n", "c\nd\n", "e\nf\n")


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 97), min_size=1), min_size=1), st.integers(0, 3))
def test_flat_ids_laid_out_as_rows_are_the_lines_and_padding(lines, extra):
    width = max(map(len, lines)) + extra
    padded = pad(*flatten(lines), width=width)
    assert padded.tolist() == [line + [PAD] * (width - len(line)) for line in lines]
