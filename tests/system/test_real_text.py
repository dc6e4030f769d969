"""Promise 2 on real sentences, with a model that has learned something."""

from dataclasses import replace

import pytest

from heedful import Translator, build, run
from heedful.text.pairs import read_lines
from heedful.training.loop import Evaluation


@pytest.mark.slow
def test_a_short_training_learns_real_text_and_translates_it_the_same_in_any_batch(data_folder, tmp_path):
    folder = data_folder("multi30k-en-de")
    recipe = build(
        {
            "preset": "tiny",
            "data": {
                "folder": str(folder),
                "source": ["train.en"],
                "target": ["train.de"],
                "development_source": "val.en",
                "development_target": "val.de",
            },
            "vocabulary": {"size": 4000},
            "model": {"normalization": "pre", "dropout": 0.1, "encoder_layers": 2, "decoder_layers": 2},
            "batches": {"tokens": 2048},
            "training": {
                "steps": 500,
                "warmup": 100,
                "decay": 0.9,
                "checkpoint_every": 50,
                "evaluate_every": 0,
                "threads": 1,
            },
        }
    )
    events = list(run(recipe, tmp_path / "model"))
    scores = next(event.scores for event in events if isinstance(event, Evaluation))
    assert scores["bleu"] > 8
    translator = Translator.load(tmp_path / "model")
    lines = [line or "" for line in read_lines(folder / "test_2016_flickr.en")][:200]
    for config in (translator.search, replace(translator.search, beam=1)):
        outputs = {
            batch: [found[0].text for found in translator.translate(lines, config, batch=batch)] for batch in (1, 7, 64)
        }
        assert outputs[1] == outputs[7] == outputs[64]
