import time
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from heedful.data.batches import batch_of
from heedful.decoding.settings import SearchConfig
from heedful.inspection import timing
from heedful.inspection.cost import forward_flops, search_flops
from heedful.inspection.timing import matrix_peak, peak_memory, time_training, time_translation
from heedful.model.inference import Inference
from heedful.training.settings import TrainingConfig
from heedful.translator import Translator


def test_a_kernel_that_does_not_tell_of_the_peak_is_asked_otherwise(monkeypatch):
    monkeypatch.setattr(timing.Path, "read_text", lambda _self: "Name: python\nVmSize: 9 kB\n")
    assert peak_memory(torch.device("cpu")) > 1 << 20


@pytest.mark.usefixtures("products_by_torch")
@pytest.mark.parametrize("changes", [{}, {"d_k": 0, "d_v": 0}, {"decoder_layers": 1, "normalization": "pre"}])
def test_flops_of_a_search_by_formula_are_those_that_torch_counts(tiny_model, monkeypatch, changes):
    monkeypatch.setattr("heedful.model.inference.ALIGNED", 1)  # what is only there to be aligned is no work
    model, steps = tiny_model(**changes), 7
    inference = Inference(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        state = inference.start(inference.encode(torch.randint(29, (1, 11)), torch.tensor([11])))
        for _ in range(steps):
            hidden, state = inference.step(torch.randint(29, (1,)), state)
            inference.logits(hidden)
    one, three = (search_flops(model.config, 29, 11, steps, width) for width in (1, 3))
    assert counter.get_total_flops() == sum(one.values())
    assert three == {"encoder": one["encoder"], "decoder": 3 * one["decoder"], "output": 3 * one["output"]}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_timing_a_training_changes_no_weight_and_counts_what_it_did(tiny_model, optimizer):
    model, config = tiny_model(dropout=0.1), TrainingConfig(optimizer=optimizer, weight_decay=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = batch_of([[5, 6, 7, 3], [8, 3]], [[9, 3], [10, 11, 12, 13, 3]])
    found = time_training(model, iter([batch] * 4), config, accumulate=2, steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [step.tokens for step in found] == [14, 14]
    once = sum(sum(forward_flops(model.config, 29, *lengths).values()) for lengths in ((4, 2), (2, 5)))
    assert found[0].flops == 2 * 3 * once
    assert min(found[0][:4]) > 0
    twice = replace(config, consistency=1.0)
    [step] = time_training(model, iter([batch] * 2), twice, accumulate=1, steps=1)
    assert step.flops == 2 * 3 * once, "R-Drop has two passes"


def test_the_phases_of_a_translation_add_up_to_the_time_it_took(tiny_model, toy_vocabulary):
    size = toy_vocabulary.sizes[0]
    translator = Translator(tiny_model(source_size=size, target_size=size), toy_vocabulary)
    lines, config = ["the cat sees a dog", "", "a house and a tree"], SearchConfig(beam=2, max_extra=5)
    began = time.perf_counter()
    found = time_translation(translator, lines, config, 2)
    assert found.seconds <= time.perf_counter() - began
    assert min(found.text, found.encode, found.step, found.select, found.search) > 0
    assert found.sentences == 3
    assert found.tokens == sum(len(outputs[0].ids) for outputs in translator.translate(lines, config))


def test_the_machine_is_measured():
    assert matrix_peak(torch.device("cpu"), torch.float32, size=97) > 1e6
    assert peak_memory(torch.device("cpu")) > 10e6
