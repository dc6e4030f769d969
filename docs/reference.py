"""Write docs/reference.md, the reference of commands and settings, from the program itself.

python docs/reference.py
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from heedful.cli.app import COMMANDS
from heedful.cli.settings import describe
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
NOTES = {"translate": "What is not given is as the model says; the defaults are those of a new model."}
SAME_AS = {  # whose settings are listed there
    **dict.fromkeys(("evaluate", "attend", "configure", "bench translate"), "translate"),
    "bench train": "train",
}


def page() -> str:
    """Return the whole page."""
    parts = ["# Commands and settings\n\nMade by `python docs/reference.py` from the program itself; do not edit.\n"]
    parts += [_command(name, help) for name, help in COMMANDS.items()]
    parts.append(_presets())
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
        lines += [_row(*row) for row in describe(settings, build() if settings is Recipe else None)]
        lines += ["", NOTES[name]] if name in NOTES else []
    if name in SAME_AS:
        title, _ = SETTINGS[SAME_AS[name]]
        lines += ["", f"And {title}, as [heedful {SAME_AS[name]}](#heedful-{SAME_AS[name]}) has them."]
    return "\n".join([*lines, ""])


def _row(flag: str, kind: str, default: str, help: str) -> str:
    shown = default.removeprefix("default:").strip()
    return f"| `{flag}` | {kind.replace('|', 'or')} | {shown} | {help} |"


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
