"""The search that is one call finds what decoding/search.py finds step by step with the same compiled steps."""

from pathlib import Path

import pytest
import torch

from heedful.decoding.search import search_by_steps
from heedful.decoding.settings import SearchConfig
from heedful.decoding.whole_search import whole_search
from heedful.model.compiled import multiplies
from heedful.model.compiled_inference import CompiledInference, compiled
from heedful.text.vocabulary import END
from heedful.translator import Translator

SYMBOLS = 29
LENGTHS = [9, 4, 7, 1, 6]
CONFIGS = {
    "greedy": SearchConfig(beam=1),
    "paper": SearchConfig(),
    "all that a beam holds": SearchConfig(beam=5, n_best=5),
    "more than there are tokens": SearchConfig(beam=31, n_best=7, max_extra=2),
    "patient": SearchConfig(beam=3, n_best=2, patience=2.5),
    "until no other can win": SearchConfig(beam=3, n_best=2, patience=0.0, length_penalty=1.3),
    "without a penalty": SearchConfig(beam=4, n_best=3, length_penalty=0.0),
    "short": SearchConfig(beam=4, n_best=4, max_extra=-2),
    "not too short": SearchConfig(beam=4, n_best=4, min_length=6, max_extra=1),
    "of one length": SearchConfig(beam=4, n_best=2, min_length=20, max_extra=5),
}


@pytest.fixture(scope="module", params=[1, 3, 300], name="made")
def _made(request, tiny_model):
    """Models that end at once, sometimes, and hardly ever; that one turns queries and keys."""
    turned = {"rotary": True, "d_k": 6} if request.param == 300 else {}
    model = tiny_model(seed=request.param, positions="learned", **turned)
    with torch.no_grad():
        model.output.weight.mul_(4)
        model.output.weight[END] *= {1: 2.0, 3: 1.0, 300: 0.1}[request.param]
    if not multiplies("float32"):
        pytest.skip("no C++ compiler here")
    return compiled(model)


def found(made, lengths, config, whole):
    torch.manual_seed(7)
    text = torch.randint(4, SYMBOLS, (len(LENGTHS), max(LENGTHS))).tolist()
    sources = [line[:length] for line, length in zip(text, lengths, strict=False)]
    if whole:
        return whole_search(made, sources, config)
    return search_by_steps(CompiledInference(made), sources, config)


@pytest.mark.parametrize("name", CONFIGS)
def test_both_searches_find_the_same_outputs_with_the_same_scores(made, name):
    by_steps, at_once = (found(made, LENGTHS, CONFIGS[name], whole) for whole in (False, True))
    for steps, once in zip(by_steps, at_once, strict=True):
        assert [hypothesis.ids for hypothesis in once] == [hypothesis.ids for hypothesis in steps]
        assert [h.score for h in once] == pytest.approx([h.score for h in steps], abs=1e-5)
        assert [h.log_probability for h in once] == pytest.approx([h.log_probability for h in steps], abs=1e-4)


def test_the_rest_of_a_batch_changes_nothing(made):
    together = found(made, LENGTHS, SearchConfig(beam=3, n_best=3), whole=True)
    assert found(made, LENGTHS[:1], SearchConfig(beam=3, n_best=3), whole=True) == together[:1]


def test_by_steps_too_it_changes_nothing_when_others_of_a_batch_must_end(made):
    config = SearchConfig(beam=5, n_best=5, max_extra=4)
    together = found(made, LENGTHS, config, whole=False)
    assert found(made, LENGTHS[:1], config, whole=False) == together[:1]


@pytest.mark.parametrize("change", [{"sample": True}, {"no_repeat_ngram": 2}, {"prefix": "Das"}])
def test_what_it_cannot_do_is_done_by_steps(monkeypatch, change):
    translator = Translator.load("en-de")
    if translator.compiled is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(translator.compiled, "search", None)
    with pytest.raises(TypeError):
        list(translator.translate(["Hello."]))
    begun = [change["prefix"]] if "prefix" in change else None
    config = SearchConfig(**{name: value for name, value in change.items() if name != "prefix"})
    [[output]] = translator.translate(["Hello."], config, prefixes=begun)
    steps, [source] = CompiledInference(translator.compiled), translator.vocabulary.encode_source(["Hello."])
    forced = translator.reader.encode_prefixes(begun, [False]) if begun else None
    [[expected]] = search_by_steps(steps, [source], config, prefixes=forced)
    assert output.ids == expected.ids
    assert output.text.startswith(change.get("prefix", ""))


def test_too_little_memory_is_an_error_and_not_the_end_of_the_process():
    resource = pytest.importorskip("resource")
    translator = Translator.load("en-de")
    if translator.compiled is None:
        pytest.skip("no C++ compiler here")
    [[before]] = translator.translate(["Hello."])
    limits, used = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    if not used.exists():
        pytest.skip("what a process has of memory is asked of Linux here")
    now = int(used.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20), limits[1]))  # 8,000 x 8,000 scores take 256 MB
    try:
        with pytest.raises(MemoryError, match="no room for beams of 8000 for 1 sentences"):
            next(translator.translate(["Hello."], SearchConfig(beam=8000)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert list(translator.translate(["Hello."])) == [[before]]
