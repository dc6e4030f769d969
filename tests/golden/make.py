"""Train the golden bundle anew: only when the format of bundles changes on purpose, and then beside the old one.

python tests/golden/make.py FOLDER
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from toy_task import settings, write_pairs

from heedful import Translator, build, run
from heedful.files import remove, write_text


def main() -> None:
    """Train a very small model to reverse letters and store what it says."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as place:
        source, target = write_pairs(Path(place), 3000)
        table = settings(source, target, steps=250, checkpoint_every=50, evaluate_every=0, rate=1e-2)
        list(run(build(table), folder))
        lines = source.read_text().splitlines()[:40]
    for extra in ("state", "log.jsonl", "recipe.toml", "README.md"):
        remove(folder / extra)
    found = [outputs[0] for outputs in Translator.load(folder).translate(lines)]
    rows = [
        {"source": line, "text": output.text, "score": output.score} for line, output in zip(lines, found, strict=True)
    ]
    write_text(folder / "expected.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
