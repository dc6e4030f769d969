"""Settings classes as flags: every field of a dataclass becomes a flag that, if not given, changes nothing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter, validators

from heedful.config import Table
from heedful.decoding.settings import SearchConfig

POSITIVE = validators.Number(gte=1)


def _locate(_type: Any, tokens: Sequence[Any]) -> Path:
    from heedful.bundle import locate

    return locate(tokens[0].value)


Bundle = Annotated[Path, Parameter(help="Model folder, or a model in the box: en-de, de-en", converter=_locate)]
Reverse = Annotated[
    Path | None,
    Parameter(help="Model of the other direction, which helps to choose among what the beam found", converter=_locate),
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON", negative=())]
Device = Annotated[str, Parameter(help="Where to compute: cpu, cuda, cuda:1, mps")]
Threads = Annotated[int, Parameter(help="CPU threads; 0 = all cores", validator=validators.Number(gte=0))]
Weights = Annotated[
    Literal["float32", "bfloat16", "int8"],
    Parameter(
        help="Multiply by weights of this type: a Transformer's bfloat16 and int8 are faster where the processor has "
        "them, less exact"
    ),
]


def flags(settings: type[Any], defaults: Any = None, prefix: str = "", shown: str = "{}") -> type[Any]:
    """Return a dataclass with the fields of `settings`, all None by default, for cyclopts to make flags of.

    Nested settings become `--group.field`. The help shows each field's own default, taken from `defaults`, as `shown`
    says it.
    """
    defaults = defaults or settings()
    types = get_type_hints(settings)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(settings):
        expected, default = types[field.name], getattr(defaults, field.name)
        if dataclasses.is_dataclass(expected):
            nested = flags(expected, default, f"{prefix}{field.name}.", shown)  # type: ignore[arg-type]
            group = Annotated[nested | None, Parameter()]  # type: ignore[valid-type] # a class made just now
            fields.append((field.name, group, None))
            continue
        parameter = Parameter(
            name=_names(field, prefix),
            help=field.metadata["help"] + _default(default_of(field, defaults), shown),
            show_default=False,
            negative=None if expected is bool else (),
        )
        fields.append((field.name, Annotated[expected | None, parameter], None))
    made = dataclasses.make_dataclass(settings.__name__, fields, frozen=True)
    made.__module__ = __name__  # cyclopts takes classes of no module for builtins
    return made


def given(flags: Any) -> Table:
    """Return what was given on the command line, as a table."""
    table: Table = {}
    for field in dataclasses.fields(flags) if flags is not None else ():
        value = getattr(flags, field.name)
        if dataclasses.is_dataclass(value):
            value = given(value) or None
        if value is not None:
            table[field.name] = value
    return table


def _names(field: "dataclasses.Field[Any]", prefix: str) -> list[str] | None:
    """Return both names of a field with a short flag; cyclopts derives the name of the others."""
    short = field.metadata["flag"]
    return [f"--{short}", f"--{prefix}{field.name}".replace("_", "-")] if short else None


def default_of(field: "dataclasses.Field[Any]", defaults: Any) -> str:
    """Return the default of a field as help says it; "" for nothing at all."""
    default = getattr(defaults, field.name)
    if default is None or default == ():
        return ""
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)


def _default(default: str, shown: str) -> str:
    return default and f" (default: {shown.format(default)})"


SearchFlags: Any = flags(SearchConfig, shown="the model's own, in a new one {}")
