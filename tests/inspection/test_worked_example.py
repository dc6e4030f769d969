"""The steps that are shown are those that the model takes."""

import pytest

from heedful.inspection.worked_example import steps_of
from heedful.translator import Translator


@pytest.mark.parametrize(
    "choices", [{"normalization": "post"}, {"normalization": "pre", "rotary": True, "d_k": 6}, {"tied_layers": 2}]
)
@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 1)])
def test_the_steps_shown_end_where_the_model_does(tiny_model, toy_vocabulary, choices, layer, head):
    sizes = dict(zip(("source_size", "target_size"), toy_vocabulary.sizes, strict=True))
    translator = Translator(tiny_model(**sizes, **choices), toy_vocabulary)
    translator = translator.without(f"encoder.{layer}.{1 - head}")
    found = steps_of(translator, "the cat sees a dog", layer, head)
    assert max(found["differences"].values()) < 1e-5
    assert found["steps"]["weights"]["shape"] == [len(found["pieces"])] * 2
