import csv
import gzip
import io
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful import build
from heedful.errors import HeedfulError
from heedful.text.corpus import DataConfig, check_languages, corpora, development, examine
from heedful.text.pairs import Corpus, read_lines, read_pairs

CODECS = {"": None, ".gz": "gzip", ".zst": "zstd"}
PAIRS = [("a cat", "eine Katze"), ("two  dogs", "zwei Hunde"), ("", "leer"), ("snow ☃", "日本語")]

few_pairs = st.lists(st.tuples(*[st.integers(0, 13).map(str) | st.just("")] * 2), min_size=2, max_size=97)


def write(path, content, suffix=""):
    path = path.with_name(path.name + suffix)
    with pa.output_stream(str(path), compression=CODECS[suffix]) as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())
    return path


def write_pair_of_files(folder, pairs, name="train"):
    sides = [f"{name}.source", f"{name}.target"]
    return tuple(write(folder / side, "".join(f"{pair[n]}\n" for pair in pairs)) for n, side in enumerate(sides))


def examined(pairs, config, dev=()):
    with TemporaryDirectory() as folder:
        corpus = Corpus(*write_pair_of_files(Path(folder), pairs))
        found = examine([corpus], list(dev), config)
        training = [(source, target) for _, source, target in found.training()]
        return training, [(source, target) for _, source, target in found.held_out()], found.report


def left_over_after_cleaning(pairs):
    """Cleaning by the definition, with a set."""
    seen, kept, dropped = set(), [], {"empty": 0, "identical": 0, "duplicate": 0}
    for pair in pairs:
        reason = "empty" if "" in pair else "identical" if pair[0] == pair[1] else ""
        reason = reason or ("duplicate" if pair in seen else "")
        seen.add(pair)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(pair)
    return kept, {reason: count for reason, count in dropped.items() if count}


@pytest.mark.parametrize("suffix", CODECS)
def test_two_files_are_read_side_by_side_whatever_their_compression(tmp_path, suffix):
    source = write(tmp_path / "s", "\n".join(s for s, _ in PAIRS) + "\n", suffix)
    target = write(tmp_path / "t", "\n".join(t for _, t in PAIRS) + "\n", suffix)
    assert list(read_pairs(Corpus(source, target))) == PAIRS


@pytest.mark.parametrize("suffix", CODECS)
def test_tab_separated_pairs_are_read_and_further_columns_ignored(tmp_path, suffix):
    pairs = [pair for pair in PAIRS if all(pair)]
    file = write(tmp_path / "p.tsv", "".join(f"{s}\t{t}\tCC-BY\n" for s, t in pairs), suffix)
    assert list(read_pairs(Corpus(file, None))) == pairs


@pytest.mark.parametrize("suffix", CODECS)
def test_json_lines_are_read_with_source_and_target_by_name(tmp_path, suffix):
    rows = (json.dumps({"target": t, "id": 7, "source": s}) + "\n" for s, t in PAIRS)
    assert list(read_pairs(Corpus(write(tmp_path / "p.jsonl", "".join(rows), suffix), None))) == PAIRS


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_is_read_as_spreadsheets_write_it(tmp_path, mark, suffix):
    text = io.StringIO()
    csv.writer(text, delimiter=mark).writerows([*PAIRS, ("a, b; c\td", 'he said "no"', "CC-BY"), ("two\nlines", "x")])
    expected = [*PAIRS, ("a, b; c\td", 'he said "no"'), ("two lines", "x")]
    assert list(read_pairs(Corpus(write(tmp_path / "p.csv", "\ufeff" + text.getvalue(), suffix), None))) == expected


@pytest.mark.parametrize(("name", "text"), [("P.CSV", "a,b\n"), ("P.JSONL", '{"source": "a", "target": "b"}\n')])
def test_kinds_of_files_are_known_in_capitals_too(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / f"{name}.GZ").write_bytes(gzip.compress(text.encode()))
    for file in (name, f"{name}.GZ"):
        assert list(read_pairs(Corpus(tmp_path / file, None))) == [("a", "b")]


def test_the_first_rows_of_csv_tell_what_is_between_columns_even_where_one_of_them_goes_on(tmp_path):
    rows = [(f"a,{n}", "b") for n in range(19)] + [("two\nlines, and more", "c"), ("d", "e")]
    text = io.StringIO()
    csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL).writerows(rows)
    found = list(read_pairs(Corpus(write(tmp_path / "p.csv", text.getvalue()), None)))
    assert found == [(s.replace("\n", " "), t) for s, t in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello; you,Hallo; du\n", ("Hello; you", "Hallo; du")),
        ("Hello, you;Hallo, du\n", ("Hello, you", "Hallo, du")),
        ('"a; b","c; d"\n', ("a; b", "c; d")),
        ("Yes; no,Ja; nein\nWell,Gut\nI see,Aha\n", ("Yes; no", "Ja; nein")),
        ("Yes;Ja\nNo, no;Nein, nein\nI see;Aha\n", ("Yes", "Ja")),
        ("Hund;dog;0,93\nKatze;cat;0,87\n", ("Hund", "dog")),
        ("Hund\tdog\t0,93\nKatze\tcat\t0,87\n", ("Hund", "dog")),
    ],
)
def test_signs_in_the_text_of_csv_are_not_taken_for_its_columns(tmp_path, text, expected):
    assert next(iter(read_pairs(Corpus(write(tmp_path / "p.csv", text), None)))) == expected


@pytest.mark.parametrize("mark", [b",", b";", b"\t"])
def test_a_row_of_csv_that_is_not_utf8_is_counted_as_such(tmp_path, mark):
    file = write(tmp_path / "p.csv", b'a,b\n\xff,d\n"e\nf",g\n'.replace(b",", mark))
    with pytest.raises(HeedfulError, match=":2: not UTF-8"):
        list(read_pairs(Corpus(file, None)))
    assert list(read_pairs(Corpus(file, None), "drop")) == [("a", "b"), (None, None), ("e f", "g")]


def test_an_empty_csv_file_is_said_to_be_empty(tmp_path):
    with pytest.raises(HeedfulError, match="the file is empty"):
        examine([Corpus(write(tmp_path / "p.csv", ""), None)], [], DataConfig())


@pytest.mark.parametrize(
    ("row", "reason"),
    [("c", "one column"), (f"{'c' * 200_000},d", "no comma-separated values"), ('"c,d', "no comma-separated values")],
)
def test_a_row_that_is_no_pair_is_named_by_its_line_in_csv_too(tmp_path, row, reason):
    file = write(tmp_path / "p.csv", f"a,b\n{row}\n")
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}:2: {reason}"):
        list(read_pairs(Corpus(file, None)))


def test_a_line_break_inside_a_json_text_becomes_a_space(tmp_path):
    file = write(tmp_path / "p.jsonl", json.dumps({"source": "a\nb\n", "target": "c"}))
    assert list(read_pairs(Corpus(file, None))) == [("a b", "c")]


@pytest.mark.parametrize(
    "row", ["not json", "[]", "7", '{"source": "a"}', '{"source": "a", "target": 7}', '{"source": null, "target": ""}']
)
def test_a_json_row_that_is_no_pair_of_texts_is_named_by_its_line(tmp_path, row):
    file = write(tmp_path / "p.jsonl", '{"source": "a", "target": "b"}\n' + row)
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}:2: "):
        list(read_pairs(Corpus(file, None)))


def test_a_row_without_a_tab_is_named_by_its_line(tmp_path):
    file = write(tmp_path / "p.tsv", "a\tb\nc d\n")
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}:2: no tab"):
        list(read_pairs(Corpus(file, None)))


@pytest.mark.parametrize("row", ["a\t", "\tb"])
def test_a_row_with_one_empty_column_is_an_empty_pair_and_no_error(tmp_path, row):
    file = write(tmp_path / "p.tsv", f"{row}\nc\td\n")
    assert list(read_pairs(Corpus(file, None))) == [tuple(row.split("\t")), ("c", "d")]


def test_a_json_escape_that_is_half_a_character_is_an_error_of_the_file(tmp_path):
    file = write(tmp_path / "p.jsonl", '{"source": "\\ud800", "target": "b"}\n')
    with pytest.raises(HeedfulError, match=":1: "):
        examine([Corpus(file, None)], [], DataConfig())


@pytest.mark.parametrize(("sources", "targets"), [(3, 5), (5, 3), (0, 2), (2, 0), (7, 6)])
def test_unequal_line_counts_are_both_named(tmp_path, sources, targets):
    corpus = Corpus(write(tmp_path / "s", "a\n" * sources), write(tmp_path / "t", "b\n" * targets))
    with pytest.raises(HeedfulError, match=rf"s has {sources} lines and .*t has {targets};"):
        list(read_pairs(corpus))


def test_a_missing_newline_at_the_end_makes_no_difference(tmp_path):
    corpus = Corpus(write(tmp_path / "s", "a\nb"), write(tmp_path / "t", "c\nd\n"))
    assert list(read_pairs(corpus)) == [("a", "c"), ("b", "d")]


def test_a_line_that_is_not_utf8_is_named_by_file_and_line(tmp_path):
    file = write(tmp_path / "s", b"gut\nsch\xf6n\n")
    with pytest.raises(HeedfulError, match=rf"^{re.escape(str(file))}:2: not UTF-8 \(byte 4 "):
        list(read_lines(file))


@pytest.mark.parametrize("added", ["a third dog\n", ""])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, added):
    source, target = write_pair_of_files(tmp_path, [("a cat", "eine Katze"), ("two dogs", "zwei Hunde")])
    found = examine([Corpus(source, target)], [], DataConfig(held_out=0))
    assert len(list(found.training())) == 2
    source.write_text("one dog\ntwo cats\n" + added)
    target.write_text("ein Hund\nzwei Katzen\n" + added)
    with pytest.raises(HeedfulError, match=r"train\.source: changed while it was read"):
        list(found.training())


def test_lines_that_are_not_utf8_are_dropped_with_their_partners_and_counted(tmp_path):
    source = write(tmp_path / "s", b"one\n\xff\nthree\nfour\n")
    target = write(tmp_path / "t", b"eins\nzwei\n\xc3\nvier\n")
    found = examine([Corpus(source, target)], [], DataConfig(undecodable="drop"))
    assert [pair[1:] for pair in found.training()] == [("one", "eins"), ("four", "vier")]
    assert found.report.dropped == {"undecodable": 2}


def test_only_a_newline_ends_a_line(tmp_path):
    others = ["\u2028", "\u2029", "\r", "\x0b", "\x0c", "\x1c", "\x85"]
    file = write(tmp_path / "s", "".join(f"a{other}b\n" for other in others))
    assert list(read_lines(file)) == [f"a{other}b" for other in others]


def test_line_ends_of_windows_are_no_part_of_the_text(tmp_path):
    assert list(read_lines(write(tmp_path / "s", "a b\r\n\r\nc\r\n"))) == ["a b", "", "c"]


def test_a_byte_order_mark_at_the_beginning_is_no_part_of_the_text(tmp_path):
    source, target = write(tmp_path / "s", "\ufeffa\nb\n"), write(tmp_path / "t", "\ufeffc\r\nd\r\n")
    assert list(read_pairs(Corpus(source, target))) == [("a", "c"), ("b", "d")]
    pairs = write(tmp_path / "p.jsonl", '\ufeff{"source": "a", "target": "c"}\n')
    assert list(read_pairs(Corpus(pairs, None))) == [("a", "c")]


def test_whitespace_behind_a_byte_order_mark_is_stripped_too(tmp_path):
    assert list(read_lines(write(tmp_path / "s", "\ufeff a\n"))) == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_a_compressed_file_may_have_a_name_that_is_none(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.gz")
    path.write_bytes(gzip.compress(b"a cat\n"))
    assert list(read_lines(path)) == ["a cat"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_only_pretends_to_be_compressed_is_named(tmp_path, suffix):
    file = tmp_path / f"s{suffix}"
    file.write_bytes(b"plain text\n")
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}: cannot be read"):
        list(read_lines(file))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_half_a_compressed_file_is_an_error_and_not_a_shorter_corpus(tmp_path, suffix):
    file = write(tmp_path / "s", "".join(f"line {n * n}\n" for n in range(997)), suffix)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}: cannot be read"):
        list(read_lines(file))


def test_an_empty_corpus_is_named(tmp_path):
    corpus = Corpus(write(tmp_path / "s", ""), write(tmp_path / "t", ""))
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(corpus.source))}: the file is empty"):
        examine([corpus], [], DataConfig())


def test_a_corpus_of_which_nothing_is_left_says_why(tmp_path):
    corpus = Corpus(*write_pair_of_files(tmp_path, [("a", "a"), ("", "b")]))
    with pytest.raises(HeedfulError, match=r"no pair left to train on, of 2 read.*identical"):
        examine([corpus], [], DataConfig())


def test_no_corpus_at_all_and_a_source_without_target_tell_what_to_give(tmp_path):
    with pytest.raises(HeedfulError, match="--source FILE and --target FILE, or --pairs FILE"):
        corpora(DataConfig())
    with pytest.raises(HeedfulError, match="1 source and 0 target files"):
        corpora(DataConfig(source=(write(tmp_path / "s", "a\n"),)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such pipes here")
def test_a_folder_and_a_pipe_are_told_from_what_is_missing(tmp_path):
    source, _ = write_pair_of_files(tmp_path, PAIRS)
    os.mkfifo(tmp_path / "pipe")
    for name, expected in ((".", "a folder; name the file in it"), ("pipe", "a text is read several times; write it")):
        with pytest.raises(HeedfulError, match=expected):
            corpora(DataConfig(source=(source,), target=(tmp_path / name,)))


def test_a_row_of_many_blanks_is_read_once(tmp_path):
    blanks = " " * 300_000  # tried again from each blank on, it took minutes
    row = json.dumps({"source": f"a{blanks}b \r\n\tc", "target": "d"})
    written, began = write(tmp_path / "p.jsonl", row + "\n"), time.process_time()
    [pair] = read_pairs(Corpus(written, None))
    assert (pair.source, pair.target) == (f"a{blanks}b c", "d")
    assert time.process_time() - began < 10


def test_a_missing_file_is_named_with_its_folder(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    for config in (
        DataConfig(source=(source,), target=(tmp_path / "lost",)),
        DataConfig(folder=tmp_path, pairs=(Path("lost"),)),
        DataConfig(source=(source,), target=(target,), development_pairs=tmp_path / "lost"),
    ):
        with pytest.raises(HeedfulError, match=rf"{re.escape(str(tmp_path / 'lost'))}: no such file"):
            (corpora(config), development(config))


@pytest.mark.parametrize(
    ("codes", "expected"), [(["en"], "1 languages"), (["en", "German"], "'German'"), (["", "de"], "''")]
)
def test_languages_are_two_codes(codes, expected):
    with pytest.raises(HeedfulError, match=expected):
        check_languages(codes)
    check_languages(["en", "zh-Hans"])


def test_paths_start_from_the_folder_when_one_is_given(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    config = DataConfig(folder=tmp_path, source=(Path("train.source"),), target=(Path("train.target"),))
    assert corpora(config) == [Corpus(source, target)]


def test_a_corpus_given_twice_and_one_file_for_both_sides_are_refused(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    roundabout = tmp_path / "folder" / ".." / source.name
    (tmp_path / "folder").mkdir()
    for sources, targets, pairs in (
        ([source], [source], []),
        ([source], [roundabout], []),
        ([source, source], [target, target], []),
        ([], [], [source, source]),
    ):
        with pytest.raises(HeedfulError, match="given twice"):
            corpora(DataConfig(source=tuple(sources), target=tuple(targets), pairs=tuple(pairs)))


def test_one_file_may_stand_in_several_corpora(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    other = write(tmp_path / "other", "x\n" * len(PAIRS))
    for sources, targets in (([source, source], [target, other]), ([source, target], [target, source])):
        found = corpora(DataConfig(source=tuple(sources), target=tuple(targets)))
        assert found == [Corpus(one, two) for one, two in zip(sources, targets, strict=True)]


def test_held_out_pairs_are_held_out_in_both_directions(tmp_path):
    pairs = [(f"source {number}", f"target {number}") for number in range(40)]
    source, target = write_pair_of_files(tmp_path, pairs)
    config = DataConfig(source=(source, target), target=(target, source))
    examined = examine(corpora(config), [], config)
    held_out = {frozenset(pair[1:]) for pair in examined.held_out()}
    assert held_out
    assert not held_out & {frozenset(pair[1:]) for pair in examined.training()}
    assert examine(corpora(config), pairs[:1], config).report.leaked == 2


def test_development_text_with_the_tag_of_its_corpus_is_found_in_training_text(tmp_path):
    source, target = write_pair_of_files(tmp_path, [("Hello.", "Hallo."), ("Yes.", "Ja.")])
    config = DataConfig(source=(source,), target=(target,), tags=("<2de>",))
    for dev, leaked in (("<2de> Hello.", 1), ("Hello.", 1), ("<2de> Hello", 0)):
        assert examine(corpora(config), [(dev, "Moin!")], config).report.leaked == leaked


def test_training_text_is_refused_as_development_text(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    other = write_pair_of_files(tmp_path, PAIRS, "other")
    files = {"source": (source,), "target": (target,)}
    for given_dev in (
        {"development_source": source, "development_target": other[1]},
        {"development_source": other[0], "development_target": target},
        {"development_source": other[0], "development_target": other[0]},
        {"development_pairs": target},
    ):
        with pytest.raises(HeedfulError, match="given twice"):
            development(DataConfig(**files, **given_dev))


def test_development_pairs_come_from_two_files_or_one_without_the_empty_ones(tmp_path):
    source, target = write_pair_of_files(tmp_path, [("x", "y")])
    files = {"source": (source,), "target": (target,)}
    dev = write_pair_of_files(tmp_path, PAIRS, "dev")
    full = [pair for pair in PAIRS if all(pair)]
    assert development(DataConfig(**files)) == []
    assert development(DataConfig(**files, development_source=dev[0], development_target=dev[1])) == full
    pairs = write(tmp_path / "dev.tsv", "".join(f"{s}\t{t}\n" for s, t in full))
    assert development(DataConfig(**files, development_pairs=pairs)) == full


def test_half_a_pair_of_development_files_and_an_empty_one_are_refused(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    empty = write(tmp_path / "empty.tsv", "")
    files = {"source": (source,), "target": (target,)}
    with pytest.raises(HeedfulError, match="given twice: leave --dev-pairs out"):
        development(DataConfig(**files, development_pairs=empty, development_source=empty, development_target=empty))
    with pytest.raises(HeedfulError, match="both --dev-source and --dev-target"):
        development(DataConfig(**files, development_source=empty))
    with pytest.raises(HeedfulError, match="no development pair"):
        development(DataConfig(**files, development_pairs=empty))


def test_files_come_first_and_then_pairs(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    pairs = write(tmp_path / "p.tsv", "a\tb\n")
    config = DataConfig(source=(source,), target=(target,), pairs=(pairs,), weights=(2.0, 0.5))
    assert corpora(config) == [Corpus(source, target), Corpus(pairs, None)]


@pytest.mark.parametrize("weights", [(1.0, 2.0), (0.0,), (-1.0,), (1.0, 1.0, 1.0), (float("nan"),), (float("inf"),)])
def test_weights_that_do_not_fit_the_corpora_are_refused(tmp_path, weights):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    with pytest.raises(HeedfulError, match=f"{len(weights)} weights for 1 corpora"):
        corpora(DataConfig(source=(source,), target=(target,), weights=weights))


def test_tags_that_do_not_fit_the_corpora_are_refused(tmp_path):
    source, target = write_pair_of_files(tmp_path, PAIRS)
    with pytest.raises(HeedfulError, match="2 tags for 1 corpora; give one for each"):
        corpora(DataConfig(source=(source,), target=(target,), tags=("<a>", "<b>")))


def test_words_are_found_apart_for_each_tag_and_belong_to_its_first_corpus(tmp_path):
    inner = [(f"cat{a}{b}", f"katze{a}{b}") for a in "abcdefgh" for b in "abcdefgh"]
    pairs = [(f"the {one} {number}", f"die {other} {number}") for number in range(9) for one, other in inner]
    source, target = write_pair_of_files(tmp_path, pairs)
    again = write_pair_of_files(tmp_path, [(f"{one} .", f"{other} .") for one, other in pairs], "again")
    for tags in (("<de>", "<en>", "<de>"), ()):
        config = DataConfig(source=(source, target, again[0]), target=(target, source, again[1]), tags=tags, held_out=0)
        words = examine(corpora(config), [], config).words
        assert {number for number, *_ in words} == ({0, 1} if tags else {0})
        assert {(0, "cataa", "katzeaa"), (0, "Cataa", "katzeaa"), (1 if tags else 0, "katzeaa", "cataa")} <= set(words)
        assert set(Counter(words).values()) == {4}


@settings(deadline=None, max_examples=41)
@given(few_pairs)
def test_pairs_are_left_out_by_reason_and_the_rest_kept_in_order(pairs):
    pairs = [("only", "once"), *pairs]
    kept, dropped = left_over_after_cleaning(pairs)
    training, held_out, report = examined(pairs, DataConfig(held_out=0))
    assert (training, held_out, report.dropped, report.kept) == (kept, [], dropped, len(kept))


@settings(deadline=None, max_examples=41)
@given(few_pairs)
def test_duplicates_and_identical_sides_stay_where_wanted(pairs):
    pairs = [("only", "once"), *pairs]
    config = DataConfig(held_out=0, drop_duplicates=False, drop_identical=False)
    assert examined(pairs, config)[0] == [pair for pair in pairs if all(pair)]


def test_a_pair_turned_round_is_no_duplicate():
    pairs = [("a", "b"), ("b", "a"), ("ab", "c"), ("a", "bc")]
    assert examined(pairs, DataConfig(held_out=0))[0] == pairs


def test_the_same_pair_in_two_corpora_is_a_duplicate_and_numbers_name_the_corpus(tmp_path):
    first = Corpus(*write_pair_of_files(tmp_path, [("a", "b"), ("c", "d")]))
    second = Corpus(write(tmp_path / "p.tsv", "a\tb\ne\tf\n"), None)
    found = examine([first, second], [], DataConfig(held_out=0))
    assert list(found.training()) == [(0, "a", "b"), (0, "c", "d"), (1, "e", "f")]
    assert found.report.dropped == {"duplicate": 1}


@settings(deadline=None, max_examples=61)
@given(few_pairs, st.integers(1, 5), st.integers(0, 3))
def test_held_out_pairs_share_no_sentence_with_training_and_every_pair_is_accounted_for(pairs, held_out, seed):
    pairs = [*pairs, *((f"left {n}", f"right {n}") for n in range(19))]
    clean, dropped = left_over_after_cleaning(pairs)
    training, dev, report = examined(pairs, DataConfig(held_out=held_out, seed=seed))
    sentences = {text for pair in dev for text in pair}
    assert sentences.isdisjoint(text for pair in training for text in pair)
    assert len(dev) == report.held_out == report.development == min(held_out, len(clean) // 10)
    assert {*training, *dev} <= set(clean)
    assert report.dropped == dropped
    assert report.kept == len(training)
    assert report.read == len(pairs)
    assert len(clean) == len(training) + len(dev) + report.shared_with_held_out
    # Nothing is left out without cause.
    assert set(training) == {pair for pair in clean if sentences.isdisjoint(pair)}


def test_the_seed_alone_chooses_the_held_out_pairs():
    pairs = [(f"left {n}", f"right {n}") for n in range(499)]
    chosen = [examined(pairs, DataConfig(held_out=23, seed=seed))[1] for seed in (2, 2, 3)]
    assert chosen[0] == chosen[1] != chosen[2]


@settings(deadline=None, max_examples=41)
@given(few_pairs, st.lists(st.tuples(*[st.integers(0, 17).map(str)] * 2), min_size=1, max_size=5))
def test_training_pairs_that_share_a_sentence_with_given_development_text_are_counted_as_leaked(pairs, dev):
    pairs = [("only", "once"), *pairs]
    training, held_out, report = examined(pairs, DataConfig(), dev)
    leaked = [pair for pair in training if not {text for given in dev for text in given}.isdisjoint(pair)]
    assert report.leaked == len(leaked)
    assert (held_out, report.held_out, report.development) == ([], 0, len(dev))
    assert training == left_over_after_cleaning(pairs)[0]


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("ein Ös\n".encode("utf-16"), "iconv -f utf-16"),
        ("ein Ös\n".encode("latin-1"), "iconv -f cp1252 -t utf-8 OLD > NEW"),
        (b"PK\x03\x04\xff", "CSV UTF-8"),
        (gzip.compress(b"text", mtime=0), "end in .gz"),
        (b"\xfd7zXZ\x00\xff", "unpack it"),
    ],
)
def test_what_a_text_that_is_not_utf8_seems_to_be_is_said(tmp_path, content, advice):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(HeedfulError, match=advice):
        list(read_lines(tmp_path / "text"))


def test_a_text_in_utf_16_without_its_mark_is_not_taken_for_utf_8(tmp_path):
    (tmp_path / "text").write_bytes("one\ntwo\n".encode("utf-16-le"))
    with pytest.raises(HeedfulError, match=r":1: has NUL characters; .*iconv -f utf-16"):
        list(read_lines(tmp_path / "text"))
    assert list(read_lines(tmp_path / "text", "drop")) == [None] * 3


def test_line_ends_of_any_kind_within_a_text_become_one_space(tmp_path):
    row = json.dumps({"source": "Hi.\r\nBye.", "target": "Hallo. \r Tschüss.\n"})
    assert list(read_pairs(Corpus(write(tmp_path / "p.jsonl", row), None))) == [("Hi. Bye.", "Hallo. Tschüss.")]
    corpus = Corpus(write(tmp_path / "p.jsonl", json.dumps({"source": "a\0", "target": "b"})), None)
    assert list(read_pairs(corpus, "drop")) == [(None, None)]
    with pytest.raises(HeedfulError, match=r":1: has a NUL character \(.u0000\); remove it"):
        list(read_pairs(corpus))


def test_texts_that_differ_in_the_number_of_blanks_are_the_same():
    kept, _, report = examined(
        [("a  cat", "eine Katze"), ("a cat", "eine  Katze"), ("a cat", "x")], DataConfig(held_out=0)
    )
    assert (len(kept), report.dropped["duplicate"]) == (2, 1)


def test_a_corpus_that_holding_out_leaves_nothing_of_is_told_what_to_do():
    pairs = [(f"a sentence, number {n}", "its label") for n in range(40)]
    with pytest.raises(HeedfulError, match=r"36 sharing a sentence with a held-out pair\); set --data.held-out 0"):
        examined(pairs, DataConfig(held_out=4))


@pytest.mark.parametrize("tag", ["de", "<b t>", "<bt", "<bt> ", "<>"])
def test_a_tag_that_would_be_cut_out_of_words_is_refused_where_it_is_chosen(tag):
    with pytest.raises(HeedfulError, match="angle brackets and no blank, such as '<bt>'"):
        build({"data": {"tags": ["", tag]}})
    assert build({"data": {"tags": ["", "<bt>"]}}).data.tags == ("", "<bt>")
    assert build({"data": {"tags": [tag]}, "start_from": "en-de"}).data.tags == (tag,)  # as it was trained


def test_a_text_that_is_not_there_is_said_with_the_flag_for_its_folder(tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(HeedfulError, match=r"train\.en: no such file; .* --data\.folder"):
            corpora(DataConfig(folder=folder, source=(Path("train.en"),), target=(Path("train.de"),)))
