"""Write docs/reference.md, the reference of commands and settings, from the program itself.

python docs/reference.py
"""

import dataclasses
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from heedful.cli.app import COMMANDS
from heedful.cli.settings import default_of
from heedful.config import Table, to_table
from heedful.decoding.settings import SearchConfig
from heedful.evaluation.scores import ScoreConfig
from heedful.recipe import PRESETS, Recipe, build
from heedful.serve.limits import ServeConfig

PAGE = Path(__file__).parent / "reference.md"
SETTINGS: dict[str, tuple[str, type[Any]]] = {
    "train": ("a recipe's settings", Recipe),
    "translate": ("search settings", SearchConfig),
    "evaluate": ("scoring settings", ScoreConfig),
    "serve": ("where to serve, and what is too much", ServeConfig),
}
NOTES = {
    "train": "A yes/no flag stands alone, `--model.rotary`; its opposite has a `no-`, `--data.no-drop-duplicates`.",
    "translate": "What is not given is as the model says; the defaults are those of a new model.",
}
SAME_AS = {  # whose settings are listed there
    **dict.fromkeys(("evaluate", "attend", "configure", "bench translate"), "translate"),
    "bench train": "train",
}


ENVIRONMENT = """## Environment and status

| variable | |
|---|---|
| `HEEDFUL_CACHE` | for compiled parts and texts as numbers (default: heedful in `$XDG_CACHE_HOME` or `~/.cache`) |
| `CXX` | the C++ compiler, with options if need be, which then count instead of ours |
| `HEEDFUL_COMPILE` | `0`: compile nothing |
| `HEEDFUL_DATA` | folder of the corpora, for `lab` |
| `OMP_NUM_THREADS` | threads of the processor, where no `--threads` says how many |
| `CUDA_VISIBLE_DEVICES` | empty: train on the processor though there is a GPU |

A command ends with status 0; 2 where its user can mend something, which it says in one line; 1 for a fault of
heedful's own; 130 after Ctrl-C, and for `train` after TERM or a closed terminal (HUP) too (`serve`, and `train` in
torchrun's processes, 0); 143 and 129 where TERM or HUP ends another command that writes a file; 141 when the reader of
its output has left.
"""


def page() -> str:
    """Return the whole page."""
    parts = ["# Commands and settings\n\nMade by `python docs/reference.py` from the program itself; do not edit.\n"]
    parts += [_command(name, help) for name, help in COMMANDS.items()]
    parts += [_presets(), ENVIRONMENT]
    return "\n".join(parts)


def _command(name: str, help: str) -> str:
    group, _, command = name.rpartition(" ")
    function = getattr(import_module(f"heedful.cli.{group or command}"), command)
    types = get_type_hints(function, include_extras=True)
    rows = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("settings", "search", "scoring"):
            continue
        note = get_args(types[parameter.name])[1]
        flag = ", ".join(note.name or ()) or _flag(parameter)
        rows.append((f"`{flag}`", _shown(parameter.default), note.help))
    text = inspect.getdoc(function) or help
    lines = [f"## heedful {name}\n", text, "", "| argument | default | |", "|---|---|---|"]
    lines += [f"| {flag} | {default} | {note} |" for flag, default, note in rows]
    if name in SETTINGS:
        title, settings = SETTINGS[name]
        lines += ["", f"And {title}:", "", "| flag | kind | default | |", "|---|---|---|---|"]
        lines += [_row(*row) for row in _fields(settings, build() if settings is Recipe else None)]
        lines += ["", NOTES[name]] if name in NOTES else []
    if name in SAME_AS:
        title, _ = SETTINGS[SAME_AS[name]]
        lines += ["", f"And {title}, as [heedful {SAME_AS[name]}](#heedful-{SAME_AS[name]}) has them."]
    return "\n".join([*lines, ""])


def _fields(settings: type[Any], defaults: Any = None, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return (flag, kind, default, help) of every field, nested ones included."""
    defaults = defaults or settings()
    types = get_type_hints(settings)
    rows = []
    for field in dataclasses.fields(settings):
        expected = types[field.name]
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(expected):
            rows += _fields(expected, getattr(defaults, field.name), f"{flag}.")  # type: ignore[arg-type]
        else:
            short = field.metadata["flag"]
            shown = f"--{flag}" + (f", --{short}" if short else "")
            rows.append((shown, _kind(expected), default_of(field, defaults), field.metadata["help"]))
    return rows


def _kind(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return " | ".join(map(str, get_args(expected)))
    if get_origin(expected) is tuple:
        return f"{_kind(get_args(expected)[0])}, repeatable"
    names = {int: "integer", float: "number", bool: "yes/no", str: "text", Path: "path"}
    options = [option for option in get_args(expected) or (expected,) if option is not type(None)]
    return names.get(options[0], "text")


def _row(flag: str, kind: str, default: str, help: str) -> str:
    return f"| `{flag}` | {kind.replace('|', 'or')} | {default} | {help} |"


def _flag(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return parameter.name.upper()
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{parameter.name.upper()}..."
    return f"--{parameter.name.replace('_', '-')}"


def _shown(default: Any) -> str:
    nothing = default is False or default in (inspect.Parameter.empty, None, (), "")
    return "" if nothing else f"{default}"


def _presets() -> str:
    lines = ["## Presets\n", f"`{Recipe.preset}` is what stands above. What the others have in place of it:\n"]
    for name in PRESETS:
        if name != Recipe.preset:
            lines.append(f"- `{name}`: {', '.join(_differences(to_table(build({'preset': name})), to_table(build())))}")
    return "\n".join([*lines, ""])


def _differences(ours: Table, theirs: Table) -> list[str]:
    return [
        f"{group}.{key} = {value}"
        for group, fields in ours.items()
        if isinstance(fields, dict)
        for key, value in fields.items()
        if value != theirs[group].get(key)
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
