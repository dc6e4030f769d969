"""A task small enough to learn in a test: reverse short words over a small alphabet."""

import random
from pathlib import Path

ALPHABET = "abcdefg"


def write_pairs(
    folder: Path, count: int = 211, seed: int = 1, length: int = 5, task: str = "reverse"
) -> tuple[Path, Path]:
    """Write `count` pairs of whitespace-separated letters and what the task makes of them."""
    generator = random.Random(seed)
    sources = [[generator.choice(ALPHABET) for _ in range(generator.randint(2, length))] for _ in range(count)]
    make = {"reverse": lambda s: s[::-1], "copy": lambda s: s, "sort": sorted}[task]
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "pairs.source", folder / "pairs.target"
    source.write_text("".join(" ".join(s) + "\n" for s in sources))
    target.write_text("".join(" ".join(make(s)) + "\n" for s in sources))
    return source, target


def settings(source: Path, target: Path, **training: object) -> dict:
    """Return the tables of a recipe that trains a very small model on one thread."""
    return {
        "preset": "tiny",
        "data": {
            "source": [str(source)],
            "target": [str(target)],
            "held_out": 20,
            "drop_identical": False,
            "drop_duplicates": False,
        },
        "vocabulary": {"kind": "symbols", "byte_fallback": False},
        "model": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 28, "d_ff": 44, "heads": 2, "dropout": 0.1},
        "batches": {"tokens": 128},
        "training": {
            "steps": 12,
            "checkpoint_every": 5,
            "evaluate_every": 6,
            "threads": 1,
            "warmup": 5,
            "precision": "float32",  # the same on every machine
            **training,
        },
    }
