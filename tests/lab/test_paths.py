"""Paths and chains are counted in models as they compute; here in some whose graph is known."""

import pytest
import torch
from torch import nn

from heedful.errors import HeedfulError
from heedful.lab.paths import Unrolled, longest_chain, path_lengths, unrolled
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig


def small(family, layers=2, **settings):
    config = ModelConfig(
        family=family, encoder_layers=2, decoder_layers=layers, d_model=6, d_ff=7, heads=2, dropout=0.0, **settings
    )
    return build_model(config, 11, 11)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_attention_joins_all_positions_in_one_step(norm):
    paths = path_lengths(small("transformer", normalization=norm), 5)
    assert paths == {"source": [1] * 5, "target": [1] * 4 + [0]}  # its own embedding is in its residual stream


def test_recurrence_takes_a_step_for_each_position_between():
    paths = path_lengths(small("lstm"), 5)
    assert paths == {
        "source": [10, 9, 8, 7, 6],
        "target": [5, 4, 3, 2, 1],
    }  # the source is read backwards, its end first


def test_attention_shortens_the_way_to_the_source_alone():
    # The attention, and a cell of the first layer that reads the position: either way does.
    assert path_lengths(small("lstm-attention"), 5) == {"source": [2] * 5, "target": [5, 4, 3, 2, 1]}


def test_a_convolution_goes_as_far_as_its_kernel_in_each_layer():
    assert path_lengths(small("convolution", 4), 7)["target"] == [3, 3, 2, 2, 1, 1, 0]
    assert path_lengths(small("convolution", 4, kernel=5), 7)["target"] == [2, 2, 1, 1, 1, 1, 0]
    with pytest.raises(HeedfulError, match="more layers"):
        path_lengths(small("convolution", 2), 7)


@pytest.mark.parametrize("family", ["lstm", "lstm-attention", "transformer"])
def test_unrolled_a_model_computes_the_same(family):
    model = small(family)
    token, lengths = torch.tensor([[5, 7, 4, 9, 3]]), torch.tensor([5])
    same = unrolled(model)
    out, again = (one.decode(token, one.encode(token, lengths)) for one in (model, same))
    torch.testing.assert_close(out, again)
    ours, theirs = (torch.autograd.grad(one.sum(), of.output.weight) for one, of in ((out, model), (again, same)))
    torch.testing.assert_close(ours, theirs)


def test_the_longest_chain_is_counted():
    x = torch.ones(3, requires_grad=True)
    assert longest_chain(x) == 0
    assert longest_chain(x * 2) == 2  # the product, and what gathers the gradient of x
    assert longest_chain(((x * 2) * 3) + x) == 4
    layer = Unrolled(nn.LSTM(3, 3, batch_first=True))
    three, four, five = (longest_chain(layer(torch.ones(1, n, 3))[0]) for n in (3, 4, 5))
    assert five - four == four - three > 0
