"""Going on from the model in the box with other text: what is gained on the new, and what is lost on the old."""

from itertools import islice
from pathlib import Path

import pytest
import sacrebleu

from heedful import Translator, build, run
from heedful.config import read_toml
from heedful.text.pairs import read_lines

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "fine-tuning.toml"
SHORTER = {"steps": 60, "warmup": 10, "checkpoint_every": 10, "threads": 1}
LINES = 200


def development_bleu(name, folder):
    sources, references = (
        [line or "" for line in islice(read_lines(folder / f"val.{side}"), LINES)] for side in ("en", "de")
    )
    outputs = [found[0].text for found in Translator.load(name).translate(sources)]
    return sacrebleu.corpus_bleu(outputs, [references]).score


@pytest.mark.slow
def test_a_shift_of_domain_is_learned_and_the_old_domain_is_not_forgotten(data_folder, tmp_path, capsys):
    captions, sentences = data_folder("multi30k-en-de"), data_folder("tatoeba-en-de")
    table = read_toml(RECIPE)
    table["data"]["folder"] = str(captions.parent)
    table["training"] |= SHORTER
    before = [development_bleu("en-de", folder) for folder in (captions, sentences)]
    for _ in run(build(table), tmp_path / "tuned"):
        pass
    after = [development_bleu(tmp_path / "tuned", folder) for folder in (captions, sentences)]
    with capsys.disabled():
        print(f"\n{SHORTER['steps']} steps: captions {before[0]:.1f} -> {after[0]:.1f} BLEU", end=", ")
        print(f"old sentences {before[1]:.1f} -> {after[1]:.1f}")
    assert after[0] > before[0] + 3
    assert after[1] > before[1] / 2
