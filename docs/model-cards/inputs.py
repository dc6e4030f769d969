"""Translate a model's list of 200 inputs as people type them, and write what comes out beside its card.

python docs/model-cards/inputs.py en-de
"""

import sys
from pathlib import Path

from heedful import Translator

HERE = Path(__file__).parent


def main(name: str) -> None:
    """Write NAME-inputs.md beside this file."""
    source, _, _ = name.partition("-")
    rows = (HERE / f"inputs.{source}").read_text(encoding="utf-8").splitlines()
    texts = [row for row in rows if not row.startswith("#")]
    outputs = iter(Translator.load(name).translate(texts))
    lines = [
        f"# 200 inputs to {name}, as people type them",
        "",
        f"Made by `python docs/model-cards/inputs.py {name}`; what is good and bad about them stands in the",
        f"[model card]({name}.md).",
    ]
    for row in rows:
        if row.startswith("#"):
            lines += ["", f"## {row.lstrip('# ').capitalize()}", "", "| input | output |", "|---|---|"]
        else:
            lines.append(f"| {row} | {next(outputs)[0].text} |")
    (HERE / f"{name}-inputs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
