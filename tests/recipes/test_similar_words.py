"""recipes/similar_words.py: the training words that stand beside a word."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "similar_words.py"
WORDS = {"A B B O T": "AE B AH T", "A B B O T ' S": "AE B AH T S", "C A R B O T": "K AA R B AO T", "Z O O": "Z UW"}


def write(folder, part, pairs):
    (folder / f"{part}.words").write_text("".join(f"{word}\n" for word, _ in pairs))
    (folder / f"{part}.phones").write_text("".join(f"{phones}\n" for _, phones in pairs))


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def written(tmp_path):
    """Return the words that the script wrote, by part."""
    given = tmp_path / "given"
    given.mkdir()
    write(given, "train", [*WORDS.items(), ("Z O O", "Z AO")])
    write(given, "val", [("A B B O T S", "AE B AH T S"), ("A B B O T S", "AH B AA T S"), ("Z O O S", "Z UW Z")])
    write(given, "test", [("Q X", "K Y UW EH K S")])
    (tmp_path / "new.words").write_text("Z O O S\n")
    command = [sys.executable, str(SCRIPT), str(given), str(tmp_path / "out"), str(tmp_path / "new.words")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    parts = ("train", "val", "test", "new")
    return {part: (tmp_path / "out" / f"{part}.words").read_text().splitlines() for part in parts}


def test_words_stand_beside_one_each_with_the_first_of_its_pronunciations(written):
    line = "A B B O T S | A B B O T = ae b ah t | A B B O T ' S = ae b ah t s | C A R B O T = k aa r b ao t"
    assert written["val"][:2] == [line, line]
    assert written["val"][2].startswith("Z O O S | Z O O = z uw |")


def test_no_word_stands_beside_itself(written):
    for line in written["train"]:
        word, *others = line.split(" | ")
        assert word not in [other.split(" = ")[0] for other in others]


def test_only_training_words_are_shown_and_lines_stay_in_order(written):
    assert [line.split(" | ")[0] for line in written["train"]] == [*WORDS, "Z O O"]
    shown = {other.split(" = ")[0] for lines in written.values() for line in lines for other in line.split(" | ")[1:]}
    assert shown <= set(WORDS)


def test_words_of_ones_own_are_read_as_the_dictionarys(written):
    assert written["new"] == written["val"][2:]


def test_a_file_that_would_take_the_place_of_another_is_refused(tmp_path):
    for part in ("train", "val", "test"):
        write(tmp_path, part, WORDS.items())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "val.words").write_text("Z O O\n")
    ran = run(tmp_path, tmp_path / "out", tmp_path / "mine" / "val.words")
    assert (ran.returncode, "give files of other names" in ran.stderr) == (2, True)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("out", [".", "mine"])
def test_what_is_read_is_not_written_over(tmp_path, out):
    for part in ("train", "val", "test"):
        write(tmp_path, part, WORDS.items())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "new.words").write_text("Z O O\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    ran = run(tmp_path, tmp_path / out, tmp_path / "mine" / "new.words")
    assert (ran.returncode, "would replace what is read; give another folder" in ran.stderr) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_what_is_read_is_not_written_over_through_a_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "texts").mkdir()
    for part in ("train", "val", "test"):
        write(tmp_path, part, WORDS.items())
    (tmp_path / "texts" / "new.words").write_text("Z O O\n")
    (tmp_path / "mine" / "new.words").symlink_to(tmp_path / "texts" / "new.words")
    ran = run(tmp_path, tmp_path / "mine", tmp_path / "mine" / "new.words")
    assert (ran.returncode, "would replace what is read; give another folder" in ran.stderr) == (2, True)
    assert (tmp_path / "texts" / "new.words").read_text() == "Z O O\n"


def test_a_file_that_is_missing_is_said_in_a_line(tmp_path):
    for part in ("train", "val", "test"):
        write(tmp_path, part, WORDS.items())
    ran = run(tmp_path, tmp_path / "out", tmp_path / "typo.words")
    assert (ran.returncode, "typo.words" in ran.stderr, "Traceback" in ran.stderr) == (2, True, False)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_dictionary_is_refused(tmp_path):
    ran = run(tmp_path, tmp_path / "out")
    assert (ran.returncode, "no train.words in it" in ran.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_word_like_no_other_stands_alone(written):
    assert written["test"] == ["Q X"]
