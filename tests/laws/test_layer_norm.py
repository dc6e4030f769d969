"""The compiled layer normalization is torch's, forward and backward, whatever the sizes and the number of threads."""

import pytest
import torch
from torch import nn

from heedful import native
from heedful.model.layer_norm import LayerNorm

# What float32 and bfloat16 can tell apart, inputs and outputs being rounded.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-7}
# shapes: below, at and above the width of a vector; one row, and more than one thread sums by itself
SHAPES = [(1, 1), (3, 5), (2, 7, 16), (129, 37), (3, 100, 128)]


@pytest.fixture(autouse=True)
def _compiler():
    if native.library("training") is None:
        pytest.skip("no C++ compiler here")


def case(shape, dtype):
    torch.manual_seed(3)
    x, upstream = 3 * torch.randn(shape) + 2, torch.randn(shape)
    norm = LayerNorm(shape[-1])
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return x.to(dtype).requires_grad_(), norm.to(dtype), upstream.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_torchs_forward_and_backward(shape, dtype):
    x, norm, upstream = case(shape, dtype)
    exact, parameters = x.detach().double().requires_grad_(), [norm.weight.double(), norm.bias.double()]
    parameters = [parameter.detach().requires_grad_() for parameter in parameters]
    found, expected = norm(x), nn.functional.layer_norm(exact, shape[-1:], *parameters, norm.eps)
    gradients = torch.autograd.grad(found, [x, norm.weight, norm.bias], upstream)
    wanted = torch.autograd.grad(expected, [exact, *parameters], upstream.double())
    for one, other in zip((found, *gradients), (expected, *wanted), strict=True):
        assert one.dtype == dtype
        error = (one.double() - other).abs().max() / max(1.0, other.abs().max().item())
        assert error < TOLERANCE[dtype]


def test_the_number_of_threads_changes_nothing():
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            x, norm, upstream = case((3000, 24), torch.float32)
            found.append(torch.autograd.grad(norm(x), [x, norm.weight, norm.bias], upstream))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_rows_that_do_not_lie_together_are_normalized_too():
    x, norm, _ = case((5, 12), torch.float32)
    assert torch.equal(norm(x.T.contiguous().T), norm(x))


def test_what_is_not_a_number_stays_so():
    _, norm, _ = case((2, 8), torch.float32)
    assert norm(torch.tensor([[1.0] * 8, [float("nan")] * 8])).isnan().any(1).tolist() == [False, True]


def test_what_the_compiled_code_is_not_made_for_is_left_to_torch():
    x, norm, _ = case((0, 8), torch.float32)
    gradients = torch.autograd.grad(norm(x).sum(), [x, norm.weight, norm.bias])
    assert [gradient.shape for gradient in gradients] == [(0, 8), (8,), (8,)]
    assert not any(gradient.any() for gradient in gradients)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        norm(torch.ones(3, 16))
    for other, shape in (
        (LayerNorm((2, 4)), (3, 2, 4)),
        (LayerNorm(8, bias=False), (3, 8)),
        (LayerNorm(8).double(), (3, 8)),
    ):
        x = torch.randn(shape, dtype=other.weight.dtype)
        expected = nn.functional.layer_norm(x, other.normalized_shape, other.weight, other.bias)
        assert torch.equal(other(x), expected)
