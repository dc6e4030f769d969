"""Corpora for tests: a language of a few words, and its translation word by word, backwards."""

import random

import pytest

from heedful.lab.corpora import LANGUAGES, SPLITS

WORDS = {
    "the": "der", "a": "ein", "cat": "kater", "dog": "hund", "man": "mann", "child": "kind", "sees": "sieht",
    "hears": "hört", "old": "alt", "small": "klein", "red": "rot", "here": "hier", "today": "heute", "bird": "vogel",
}  # fmt: skip


@pytest.fixture(scope="session")
def toy_corpora(tmp_path_factory):
    """Return a folder with toys in place of all corpora: 120 pairs to train on, 12 in the other splits."""
    folder, generator = tmp_path_factory.mktemp("corpora"), random.Random(1)
    for name, splits in SPLITS.items():
        (folder / name).mkdir()
        for split in splits:
            lines = [
                generator.choices([*WORDS], k=generator.randint(2, 7)) for _ in range(120 if split == "train" else 12)
            ]
            texts = [" ".join(line) for line in lines], [" ".join(WORDS[w] for w in reversed(line)) for line in lines]
            for language, text in zip(LANGUAGES, texts, strict=True):
                (folder / name / f"{split}.{language}").write_text("\n".join(text) + "\n", encoding="utf-8")
    return folder
