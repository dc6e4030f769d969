"""Train a golden bundle: only for a kind of model that has none, or a new format, and then beside the old ones.

python tests/golden/make.py KIND FOLDER
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from toy_task import settings, write_pairs

from heedful import Translator, build, bundle, run
from heedful.config import merge
from heedful.files import remove, write_text

KINDS = {
    "post-norm": {"model": {"normalization": "post"}},
    "rotary": {
        "model": {"rotary": True, "positions": "none", "share": "target"},
        "vocabulary": {"joint": False},
        "training": {"stored": "bfloat16"},
        "data": {"languages": ["en", "de"], "capitals": True},
    },
    "lstm-attention": {"model": {"family": "lstm-attention"}},
    "convolution": {"model": {"family": "convolution"}},
    "ensemble": {},  # of an LSTM and a Transformer
}
UNREAD = ("heads", "d_ff")  # by other families


def train(kind: str, folder: Path, place: Path) -> None:
    """Train a very small model to reverse letters."""
    table = settings(*write_pairs(place, 3000), steps=250, checkpoint_every=50, evaluate_every=0, rate=1e-2)
    if "family" in KINDS[kind].get("model", {}):
        table["model"] = {name: value for name, value in table["model"].items() if name not in UNREAD}
    list(run(build(merge(table, KINDS[kind])), folder))


def main() -> None:
    """Make a bundle, and store what it says."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if kind == "ensemble":
            members = [place / "lstm-attention", place / "post-norm"]
            for member in members:
                train(member.name, member, place)
            bundle.unite(members, folder)
        else:
            train(kind, folder, place)
        lines = (place / "pairs.source").read_text().splitlines()[:40]
    for extra in ("state", "log.jsonl", "recipe.toml", "README.md"):
        remove(folder / extra)
    found = [outputs[0] for outputs in Translator.load(folder).translate(lines)]
    rows = [
        {"source": line, "text": output.text, "score": output.score} for line, output in zip(lines, found, strict=True)
    ]
    write_text(folder / "expected.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
