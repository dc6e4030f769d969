"""Peak memory of preparing and training on a corpus and on ten times it.

    python benchmarks/memory.py [--data FOLDER-OF-TATOEBA] [--times 10] [--steps 20]

The larger corpus repeats the smaller one. It is run twice: as it is (duplicates are then dropped) and with a number put
before each line of every copy, so that all pairs differ and all are kept. Each run is a process of its own; its peak
resident memory is what the kernel reports when it ends.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tatoeba-en-de"

TRAIN = """
import resource, sys
from pathlib import Path
from heedful import build, run
folder, steps = sys.argv[1], int(sys.argv[2])
data = {"folder": folder, "source": ["train.en"], "target": ["train.de"], "held_out": 200}
training = {"steps": steps, "evaluate_every": 0, "checkpoint_every": steps}
recipe = build({"preset": "tiny", "data": data, "training": training})
for event in run(recipe, Path(folder) / "model"):
    if type(event).__name__ == "Prepared":
        print(f"{event.report.kept:,} pairs kept", end="  ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def copy(data: Path, folder: Path, times: int, distinct: bool) -> None:
    """Write the corpus `times` times over."""
    folder.mkdir()
    for side in ("en", "de"):
        lines = (data / f"train.{side}").read_text(encoding="utf-8").splitlines()
        with (folder / f"train.{side}").open("w", encoding="utf-8") as file:
            for number in range(times):
                prefix = f"{number} " if distinct else ""
                file.writelines(f"{prefix}{line}\n" for line in lines)


def peak(folder: Path, steps: int) -> int:
    """Return the peak resident memory of a run in MB, and print what it kept."""
    environment = {**os.environ, "HEEDFUL_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", TRAIN, str(folder), str(steps)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    print(f"{folder.name:22s} {ran.stdout.strip()} MB", flush=True)
    return int(ran.stdout.split()[-1])


def main() -> None:
    """Run all three and print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cases = {"once": (1, True), "repeated": (options.times, False), "all-different": (options.times, True)}
        peaks = {}
        for name, (times, distinct) in cases.items():
            copy(options.data, Path(place) / name, times, distinct)
            peaks[name] = peak(Path(place) / name, options.steps)
    for name in ("repeated", "all-different"):
        print(f"{options.times} times, {name}: {peaks[name] - peaks['once']:+,} MB")
    print(f"this program itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
