"""From a command to its translation: seconds and memory of the whole program for one sentence.

    python benchmarks/starting.py [BUNDLE] [--earlier COMMIT] [--rounds 9]

Each takes its turn, as a process of its own: heedful as it is here; as it was at an earlier commit of this repository;
CTranslate2 with the same weights in a program that imports nothing else but sentencepiece; and `import torch` alone.
One round before the first is not counted: it compiles and fills the page cache.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from heedful import bundle
from heedful.text.vocabulary import JOINT

SENTENCE = "Wo ist der Bahnhof?"
HEEDFUL = "import sys; from heedful.cli.app import main; sys.argv = ['heedful', 'translate', {bundle!r}]; main()"
CTRANSLATE2 = """
import sys
import ctranslate2
import sentencepiece
words = sentencepiece.SentencePieceProcessor(model_file={vocabulary!r})
translator = ctranslate2.Translator({folder!r}, compute_type="float32")
for line in sys.stdin:
    source = [str(number) for number in words.encode(line.strip())]
    [found] = translator.translate_batch([[*source, "</s>"]], beam_size=4)
    print(words.decode([int(name) for name in found.hypotheses[0] if name.isdigit()]))
"""
# in a process of its own: the memory of one that begins another is counted as the other's, and torch's is large
CONVERT = """
import sys; sys.path.insert(0, {here!r})
from pathlib import Path
from heedful import bundle
from peers.ctranslate2_engine import convert
convert(bundle.load(Path({bundle!r})), Path({folder!r}))
"""
REPOSITORY = Path(__file__).resolve().parents[1]


def run(code: str, source: Path | None) -> tuple[float, float, str]:
    """Return the seconds that a program took, the most MB that it held, and what it said."""
    environment = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs a program has it compiled
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as program:
        assert program.stdin
        assert program.stdout
        program.stdin.write(f"{SENTENCE}\n")
        program.stdin.close()
        said = program.stdout.read().strip()
        _, status, used = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise SystemExit(f"ended with {program.returncode}")
    return time.perf_counter() - began, used.ru_maxrss / 1024, said


def main() -> None:
    """Take turns, and print what each took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("de-en"))
    parser.add_argument("--earlier", help="a commit to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    folder = bundle.locate(options.bundle).resolve()
    model = bundle.read_manifest(folder).get("model", {})
    if model.get("positions") != ("none" if model.get("rotary") else "sinusoidal"):
        parser.error("CTranslate2 adds sinusoids or turns by positions: take a model with one of both")
    with tempfile.TemporaryDirectory() as place:
        programs: dict[str, tuple[str, Path | None]] = {
            "heedful": (HEEDFUL.format(bundle=str(folder)), REPOSITORY / "src"),
        }
        if options.earlier:
            archive = subprocess.run(
                ["git", "-C", str(REPOSITORY), "archive", options.earlier, "src"], check=True, stdout=subprocess.PIPE
            )
            subprocess.run(["tar", "-x", "-C", place], check=True, input=archive.stdout)
            programs[options.earlier] = programs["heedful"][0], Path(place) / "src"
        if find_spec("ctranslate2"):
            converted = str(Path(place) / "converted")
            run(CONVERT.format(here=str(Path(__file__).parent), bundle=str(folder), folder=converted), None)
            programs["ctranslate2"] = CTRANSLATE2.format(vocabulary=str(folder / JOINT), folder=converted), None
        else:
            print("  ctranslate2 is not installed: left out")
        programs["import torch"] = "import torch", None
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for counted in range(options.rounds + 1):
            for name, (code, source) in programs.items():
                seconds, megabytes, said = run(code, source)
                if not counted:
                    print(f"  {name}: {said}")
                else:
                    found[name].append((seconds, megabytes))
    ours = statistics.median(seconds for seconds, _ in found["heedful"])
    for name, each in found.items():
        took, held = sorted(one for one, _ in each), [one for _, one in each]
        middle = statistics.median(took)
        print(
            f"{name:>14} {middle:6.2f} s ({took[0]:.2f} to {took[-1]:.2f}), {middle / ours:5.2f} x heedful's, "
            f"{statistics.median(held):6.0f} MB"
        )


if __name__ == "__main__":
    main()
