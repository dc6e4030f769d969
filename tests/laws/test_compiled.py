"""What compiled.py makes of weights and positions without torch is what torch makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heedful.errors import HeedfulError
from heedful.model.compiled import Compiled, _narrowed, multiplies
from heedful.model.compiled_inference import CompiledInference, compiled
from heedful.model.inference import Inference
from heedful.model.positions import Positions
from heedful.model.rotation import Rotation
from heedful.model.settings import ModelConfig
from heedful.model.transformer import sinusoids
from heedful.model.weights import weights_of

SYMBOLS = 29


@pytest.mark.parametrize(("d_model", "d_k"), [(64, 16), (15, 6), (192, 48)])
@pytest.mark.parametrize("first", [0, 1])
def test_positions_are_those_of_the_model(d_model, d_k, first):
    config = ModelConfig(d_model=d_model, heads=1, d_k=d_k, d_v=3, first_position=first, rotary=True)
    positions = Positions(config, None)
    for length in (3, 64, 65, 2500):  # from the first table, and from longer ones
        found = torch.from_numpy(positions.rows(length))[:length]
        expected = torch.cat([sinusoids(length, d_model, first), Rotation(d_k).turns(length).flatten(1)], dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_more_positions_than_were_learned_are_refused():
    learned = np.arange(20, dtype=np.float32).reshape(5, 4)
    positions = Positions(ModelConfig(d_model=4, heads=2, positions="learned", first_position=1), learned)
    assert np.array_equal(positions.rows(4), learned[1:])
    with pytest.raises(HeedfulError, match="5 tokens, but the model learned 4 positions"):
        positions.rows(5)


def test_without_positions_nothing_is_added():
    assert not Positions(ModelConfig(d_model=4, heads=2, positions="none"), None).rows(3).any()


def test_bfloat16_is_rounded_as_torch_rounds():
    spread = torch.randn(1000) * torch.logspace(-38, 38, 1000)
    # every other one is half way between two
    halves = torch.arange(0x3F800000, 0x3F880000, 0x8000, dtype=torch.int32).view(torch.float32)
    for numbers in (spread, halves, torch.tensor([0.0, -0.0, float("inf"), 1e-45])):
        found = torch.from_numpy(_narrowed(numbers.numpy()[None], "bfloat16").view(np.int16)).view(torch.bfloat16)
        assert torch.equal(found[0], numbers.bfloat16())


@pytest.mark.parametrize("change", ["missing", "of another shape", "too many"])
def test_weights_that_do_not_fit_are_refused_by_name(tiny_model, change):
    model = tiny_model()
    if not multiplies("float32"):
        pytest.skip("no C++ compiler here")
    arrays = {name: tensor.numpy() for name, tensor in weights_of(model).items()}
    name = "decoder.1.cross_attention.key.weight"
    if change == "missing":
        del arrays[name]
    elif change == "of another shape":
        arrays[name] = arrays[name][1:]
    else:
        arrays[name := "decoder.7.feed_forward.inner.bias"] = arrays["decoder.1.feed_forward.inner.bias"]
    with pytest.raises(HeedfulError, match=rf"weights: does not fit the model in model.toml \({name}\)"):
        Compiled(model.config, (SYMBOLS, SYMBOLS), arrays, source="weights")


def test_tied_layers_are_laid_out_once(tiny_model):
    model = tiny_model(encoder_layers=4, decoder_layers=4, tied_layers=2)
    once = Inference(model)
    for stack in (once.encoder, once.decoder):
        assert [stack.index(layer) for layer in stack] == [0, 0, 2, 2]
    if multiplies("float32"):
        tied, apart = compiled(model), compiled(tiny_model(encoder_layers=4, decoder_layers=4))
        for found, expected in ((tied, [True, False, True]), (apart, [False, False, False])):
            for name in ("encoder", "decoder"):
                stack = getattr(found._model, name)
                assert [bytes(stack[n]) == bytes(stack[n + 1]) for n in range(3)] == expected


@pytest.mark.parametrize("share", ["all", "target", "none"])
def test_shared_tied_and_untied_weights_are_found(tiny_model, share):
    model = tiny_model(share=share, tied_layers=2, normalization="pre")
    if not multiplies("float32"):
        pytest.skip("no C++ compiler here")
    source = torch.tensor([[5, 6, 7, 3]])
    inference = CompiledInference(compiled(model))
    state = inference.start(inference.encode(source, torch.tensor([4])))
    hidden, _ = inference.step(torch.tensor([2]), state)
    with torch.no_grad():
        expected = model.logits(model.decode(torch.tensor([[2]]), model.encode(source, torch.tensor([4]))))[0]
    torch.testing.assert_close(inference.logits(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "changes", "message"),
    [
        ((SYMBOLS, 31), {}, "29 source and 31 target"),
        ((SYMBOLS, SYMBOLS), {"rotary": True, "d_k": 5}, "d_k is odd"),
        ((SYMBOLS, SYMBOLS), {"heads": 3, "d_k": 0}, "not a multiple of 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_computed_with_them(tiny_model, sizes, changes, message):
    model = tiny_model()
    arrays = {name: tensor.numpy() for name, tensor in weights_of(model).items()}
    with pytest.raises(HeedfulError, match=message):
        Compiled(replace(model.config, **changes), sizes, arrays)
