import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import from_table, merge, read_toml, refuse_unread, setting, to_table, without_unread
from heedful.errors import HeedfulError


@dataclass(frozen=True)
class Oven:
    degrees: float = setting(180.0, "Heat")
    humidity: float = setting(0.2, "Share of the steam", least=0, most=1)
    trays: int = setting(2, "What it holds", least=1)
    fan: bool = setting(False, "Whether the fan turns")
    speed: int = setting(2, "How fast", only={"fan": [True]})


@dataclass(frozen=True)
class Kitchen:
    oven: Oven = setting(Oven(), "The oven")
    cooks: int = setting(2, "People at work")
    cuisine: Literal["plain", "fine"] = setting("plain", "What is cooked")
    name: str = setting("Zur Post", "What the guests call it")
    book: Path | None = setting(None, "Where the recipes are")
    guests: tuple[str, ...] = setting((), "Who eats")
    shares: tuple[float, ...] = setting((), "Who eats how much")
    shelf_height: int = setting(3, "Boards on the wall")


kitchens = st.builds(
    Kitchen,
    oven=st.builds(Oven, degrees=st.floats(allow_nan=False), fan=st.booleans()),
    cooks=st.integers(),
    cuisine=st.sampled_from(["plain", "fine"]),
    name=st.text(),
    book=st.none() | st.sampled_from([Path("recipes"), Path("/shelf/recipes.txt")]),
    guests=st.lists(st.text()).map(tuple),
    shares=st.lists(st.floats(allow_nan=False)).map(tuple),
    shelf_height=st.integers(),
)


@settings(deadline=None, max_examples=31)
@given(kitchens)
def test_a_table_and_back_is_the_same_settings(kitchen):
    assert from_table(Kitchen, to_table(kitchen), "here") == kitchen


def test_an_empty_table_gives_the_defaults():
    assert from_table(Kitchen, {}, "here") == Kitchen()


def test_a_nested_table_changes_only_the_fields_that_it_names():
    kitchen = from_table(Kitchen, {"oven": {"fan": True}}, "here")
    assert kitchen == Kitchen(oven=Oven(fan=True))


def test_keys_may_be_written_with_dashes():
    assert from_table(Kitchen, {"shelf-height": 7}, "here").shelf_height == 7


def test_help_says_what_a_setting_is_for():
    assert Oven.__dataclass_fields__["speed"].metadata["help"] == "How fast; with fan yes"


@pytest.mark.parametrize(
    ("layers", "refused"),
    [
        ([{"speed": 3}], True),
        ([{"fan": False, "speed": 3}], True),
        ([{"fan": False}, {"speed": 3}], True),
        ([{"fan": True, "speed": 3}], False),
        ([{"fan": True, "speed": 3}, {"fan": False}], False),  # the lower layer's was for its own choice
        ([{"speed": 2}], False),  # as it is anyway
        ([{}], False),
    ],
)
def test_a_given_setting_that_nothing_reads_is_refused(layers, refused):
    oven = from_table(Oven, merge(*layers), "here")
    if not refused:
        refuse_unread(oven, layers, Oven(), "here")
        return
    with pytest.raises(HeedfulError, match=r"here: nothing reads speed 3 \(it is for fan yes\); leave it out"):
        refuse_unread(oven, layers, Oven(), "here")
    refuse_unread(oven, layers, Oven(), "here", since=len(layers))


def test_a_setting_that_nothing_reads_becomes_the_usual_one():
    assert without_unread(Oven(speed=3), Oven()) == Oven()
    assert without_unread(Oven(fan=True, speed=3), Oven()) == Oven(fan=True, speed=3)


def test_none_is_left_out_of_the_table():
    assert "book" not in to_table(Kitchen())


@pytest.mark.parametrize(
    ("table", "where", "nearest"),
    [
        ({"coks": 3}, "here", "cooks"),
        ({"shelf-hight": 3}, "here", "shelf_height"),
        ({"oven": {"degree": 3}}, "here: oven", "degrees"),
    ],
)
def test_an_unknown_key_names_the_place_and_the_nearest_known_key(table, where, nearest):
    with pytest.raises(HeedfulError, match=f"^{where}: .*did you mean '{nearest}'"):
        from_table(Kitchen, table, "here")


def test_an_unknown_key_like_no_other_lists_all_known_keys():
    with pytest.raises(HeedfulError) as caught:
        from_table(Kitchen, {"zzzzzz": 1}, "here")
    assert all(field in str(caught.value) for field in Kitchen.__dataclass_fields__)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cooks", "two", "a whole number"),
        ("cooks", 2.5, "a whole number"),
        ("cooks", True, "a whole number"),
        ("name", 5, "a text"),
        ("oven", 5, "a table"),
        ("book", 5, "a path"),
        ("guests", [5], "a text"),
        ("shares", [True], "a number"),
    ],
)
def test_a_value_of_the_wrong_type_names_key_expectation_and_value(key, value, expected):
    with pytest.raises(HeedfulError, match=f"^here: {key}: expected {expected}"):
        from_table(Kitchen, {key: value}, "here")


def test_a_wrong_type_in_a_nested_table_names_the_whole_way_to_it():
    with pytest.raises(HeedfulError, match=r"^here: oven: fan: expected true or false, found 1"):
        from_table(Kitchen, {"oven": {"fan": 1}}, "here")


@pytest.mark.parametrize(
    ("oven", "expected"),
    [({"humidity": 1.5}, "humidity 1.5 must be between 0 and 1"), ({"trays": 0}, "trays 0 must be at least 1")],
)
def test_a_value_out_of_its_range_is_named_with_the_range(oven, expected):
    with pytest.raises(HeedfulError, match=f"^here: oven: {expected}$"):
        from_table(Kitchen, {"oven": oven}, "here")


def test_a_choice_outside_the_offered_ones_lists_them():
    with pytest.raises(HeedfulError, match="'spicy' is not one of plain, fine"):
        from_table(Kitchen, {"cuisine": "spicy"}, "here")


def test_a_whole_number_serves_as_a_number_and_one_item_as_a_list():
    kitchen = from_table(Kitchen, {"oven": {"degrees": 211}, "guests": "Ada", "shares": 2}, "here")
    assert kitchen == Kitchen(oven=Oven(degrees=211.0), guests=("Ada",), shares=(2.0,))
    assert isinstance(kitchen.oven.degrees, float)


def test_later_tables_win_key_by_key_also_inside_tables():
    merged = merge({"a": {"b": 2, "c": 3}, "d": 5}, {"a": {"c": 7}}, {"d": 11})
    assert merged == {"a": {"b": 2, "c": 7}, "d": 11}


def test_a_dashed_key_and_an_underscored_one_are_the_same_in_a_merge():
    assert merge({"shelf-height": 2}, {"shelf_height": 3}) == {"shelf_height": 3}
    assert merge({"shelf": {"its-height": 2}}) == {"shelf": {"its_height": 2}}


def test_merging_leaves_the_merged_tables_alone():
    first, second = {"a": {"b": 2}}, {"a": {"b": 3}}
    merge(first, second)
    assert (first, second) == ({"a": {"b": 2}}, {"a": {"b": 3}})


def test_toml_is_read_as_a_table(tmp_path):
    file = tmp_path / "kitchen.toml"
    file.write_text('name = "Grün"\n[oven]\nfan = true\n', encoding="utf-8")
    assert read_toml(file) == {"name": "Grün", "oven": {"fan": True}}


@pytest.mark.parametrize(
    ("content", "told"), [(b"a = 1\nb = = 2\n", "line 2"), (b"a = '\xff'", "TOML"), (b"a = 1\na = 2", "TOML")]
)
def test_what_is_not_toml_is_named_with_the_file(tmp_path, content, told):
    file = tmp_path / "kitchen.toml"
    file.write_bytes(content)
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(file))}: .*{told}"):
        read_toml(file)


def test_a_missing_toml_file_and_a_folder_in_its_place_are_named(tmp_path):
    with pytest.raises(HeedfulError, match=r"missing\.toml: no such file"):
        read_toml(tmp_path / "missing.toml")
    with pytest.raises(HeedfulError, match=f"^{re.escape(str(tmp_path))}: cannot be read"):
        read_toml(tmp_path)
