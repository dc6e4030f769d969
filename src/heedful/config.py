"""A frozen dataclass, a TOML table and a set of flags: three views of one thing.

Each settings class lives beside its owner and states every field once, as `name: type = setting(default, help)`.
This module turns such a class into tables and back. It knows no field by name.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from heedful.errors import HeedfulError

Table = dict[str, Any]
Settings = TypeVar("Settings")


def setting(
    default: Any,
    help: str,
    flag: str | None = None,
    *,
    least: float | None = None,
    most: float | None = None,
    only: Mapping[str, Sequence[Any]] | None = None,
) -> Any:
    """Declare a field of a settings class: its default, one line of help, a short flag if it has one, and its range.

    A field with a `most` has a `least` too. With `only`, such as {"family": ["lstm"]}, the field is read only where one
    of those fields of its class has one of those values.
    """
    if only:
        help += f"; with {_conditions(only)}"
    return dataclasses.field(
        default=default, metadata={"help": help, "flag": flag, "least": least, "most": most, "only": only or {}}
    )


def from_table(settings: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """Build `settings` from a table, nested tables included; fields that the table lacks keep their defaults.

    Raises:
        HeedfulError: an unknown key (with the nearest known one), a value of the wrong type or out of its range;
            `where` names the place.
    """
    types = get_type_hints(settings)
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in types:
            raise HeedfulError(f"{where}: unknown setting '{key}'{_nearest(name, types)}")
        values[name] = _convert(types[name], value, f"{where}: {key}")
    made = settings(**values)
    check_ranges(made, where)
    return made


def check_ranges(settings: Any, where: str) -> None:
    """Refuse a value that is out of its field's range.

    Raises:
        HeedfulError: with the setting and its range; `where` names the place.
    """
    for name, least, most in _ranges(type(settings)):  # type: ignore[arg-type] # a class is hashable
        value = getattr(settings, name)
        if not value >= least or (most is not None and value > most):  # what is not a number is out of every range
            wanted = f"at least {least}" if most is None else f"between {least} and {most}"
            raise HeedfulError(f"{where}: {name} {value} must be {wanted}")


def without_unread(settings: Settings, usual: Settings) -> Settings:
    """Return settings in which what the others leave unread is as in `usual`."""
    return dataclasses.replace(settings, **{field.name: getattr(usual, field.name) for field in _unread(settings)})  # type: ignore[type-var]


def refuse_unread(settings: Any, layers: Sequence[Mapping[str, Any]], usual: Any, where: str, since: int = 0) -> None:
    """Refuse what was asked for, differs from `usual`, and is left unread by the other settings.

    What is asked for stands in one of the `layers`, the tables that were laid over each other: from number `since` on,
    and from the last one on that chooses what reads it. Below, it was meant for another choice.

    Raises:
        HeedfulError: with all such settings, and what each is for; `where` names the place.
    """
    refused = []
    for field in _unread(settings):
        only, value = field.metadata["only"], getattr(settings, field.name)
        chosen = max((number for number, layer in enumerate(layers) if layer.keys() & only.keys()), default=0)
        given = any(field.name in layer for layer in layers[max(chosen, since) :])
        if given and value != getattr(usual, field.name):
            refused.append(f"{field.name} {value} (it is for {_conditions(only)})")
    if refused:
        raise HeedfulError(f"{where}: nothing reads {', '.join(refused)}; leave it out, or set what it is for")


def _unread(settings: Any) -> "list[dataclasses.Field[Any]]":
    """Return the fields that are for other values of some other field."""
    return [
        field
        for field in dataclasses.fields(settings)
        if (only := field.metadata.get("only"))
        and not any(getattr(settings, key) in values for key, values in only.items())
    ]


def _conditions(only: Mapping[str, Sequence[Any]]) -> str:
    shown = {True: "yes", False: "no"}
    return " or ".join(
        f"{key} {' or '.join(shown[value] if isinstance(value, bool) else str(value) for value in values)}"
        for key, values in only.items()
    )


@cache  # a search asks for each batch
def _ranges(settings: type[Any]) -> list[tuple[str, float, float | None]]:
    ranges = ((f.name, f.metadata.get("least"), f.metadata.get("most")) for f in dataclasses.fields(settings))
    return [(name, least, most) for name, least, most in ranges if least is not None]


def to_table(settings: Any) -> Table:
    """Return the settings as a table for TOML or JSON; a field that is None is left out."""
    table: Table = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            table[field.name] = _plain(value)
    return table


def merge(*tables: Mapping[str, Any]) -> Table:
    """Lay tables over each other, key by key; later ones win."""
    merged: Table = {}
    for table in tables:
        for key, value in table.items():
            name = key.replace("-", "_")
            if isinstance(value, Mapping):
                below = merged.get(name)
                merged[name] = merge(below if isinstance(below, Mapping) else {}, value)
            else:
                merged[name] = value
    return merged


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        HeedfulError: the file is missing, or is not TOML (with the line that the parser names).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise HeedfulError(f"{path}: no such file; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise HeedfulError(f"{path}: cannot be read as TOML: {error}") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_table(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _convert(expected: Any, value: Any, where: str) -> Any:  # noqa: PLR0911 - one return for each kind of value
    """Check `value` against the annotation `expected`; lists become tuples and strings become paths."""
    if dataclasses.is_dataclass(expected):
        if isinstance(value, Mapping):
            return from_table(cast(type[Any], expected), value, where)
    elif get_origin(expected) is Literal:
        if value in get_args(expected):
            return value
        raise HeedfulError(f"{where}: '{value}' is not one of {', '.join(map(str, get_args(expected)))}")
    elif get_origin(expected) in (Union, UnionType):
        options = [option for option in get_args(expected) if option is not NoneType]
        return None if value is None else _convert(options[0], value, where)
    elif get_origin(expected) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(get_args(expected)[0], item, where) for item in value)
        return (_convert(get_args(expected)[0], value, where),)
    elif expected is Path and isinstance(value, str | Path):
        return Path(value)
    elif expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is expected:
        return value
    raise HeedfulError(f"{where}: expected {_describe(expected)}, found {value!r}")


def _describe(expected: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(expected, "a table")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
