"""The compiled attention of training is equation 1, forward and backward, whatever the sizes."""

import pytest
import torch

from heedful import native
from heedful.model.fused_attention import fused_attention
from heedful.model.rotation import Rotation
from heedful.model.transformer import attention

# B, H, L, M, K, Kv: below, at and above the width of a vector; more rows than fit into registers; one of all
SIZES = [
    (3, 2, 5, 7, 11, 13),
    (2, 4, 16, 16, 16, 32),
    (1, 1, 1, 1, 1, 1),
    (2, 3, 37, 19, 40, 8),
    (2, 2, 64, 129, 64, 64),
]
# What float32 and bfloat16 can tell apart; bfloat16 rounds inputs and outputs only, so that errors do not add up.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-7}


@pytest.fixture(autouse=True)
def _compiler():
    if native.library("training") is None:
        pytest.skip("no C++ compiler here")


def inputs(sizes, dtype):
    batch, heads, positions, attended, d_k, d_v = sizes
    torch.manual_seed(2)
    shapes = (positions, d_k), (attended, d_k), (attended, d_v)
    return [torch.randn(batch, heads, *shape).to(dtype).requires_grad_() for shape in shapes]


def mask_of(kind, sizes):
    batch, _, positions, attended, *_ = sizes
    if kind == "padding":
        return torch.arange(attended) < torch.randint(1, attended + 1, (batch, 1, 1, 1))
    if kind == "causal":
        return torch.ones(positions, attended, dtype=torch.bool).tril()
    if kind == "any":
        allowed = torch.rand(batch, 1, positions, attended) < 0.5
        return allowed | (torch.arange(attended) == 0)
    return None


def test_one_memory_serves_several_texts():
    query, key, value = inputs(SIZES[0], torch.float32)
    one = [tensor.detach()[:1].requires_grad_() for tensor in (key, value)]
    found, (expected, _) = fused_attention(query, *one, None), attention(query, *one, None)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    for ours, torchs in zip(*(torch.autograd.grad(heads, one, upstream) for heads in (found, expected)), strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["none", "padding", "causal", "any"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_attention_forward_and_backward(sizes, kind, dtype):
    tensors, mask = inputs(sizes, dtype), mask_of(kind, sizes)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, (expected, _) = fused_attention(*tensors, mask), attention(*exact, mask)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, tensors, upstream), torch.autograd.grad(expected, exact, upstream.double())
    for one, other in zip((found, *gradients[0]), (expected, *gradients[1]), strict=True):
        assert one.dtype == dtype
        error = (one.double() - other).abs().max() / max(1.0, other.abs().max().item())
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d_k", [2, 22, 32, 40, 64])
def test_it_turns_queries_and_keys_as_rotation_does_and_their_gradients_back(d_k, dtype):
    tensors, rotation = inputs((3, 2, 19, 19, d_k, 13), dtype), Rotation(d_k)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    causal = mask_of("causal", (3, 2, 19, 19))
    found = fused_attention(*tensors, causal, rotation.turns(19))
    expected, _ = attention(rotation(exact[0]), rotation(exact[1]), exact[2], causal)
    assert (expected - attention(*exact, causal)[0]).abs().max() > 0.1
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, tensors, upstream), torch.autograd.grad(expected, exact, upstream.double())
    for one, other in zip((found, *gradients[0]), (expected, *gradients[1]), strict=True):
        error = (one.double() - other).abs().max() / max(1.0, other.abs().max().item())
        assert error < TOLERANCE[dtype]


def test_inputs_may_lie_in_memory_as_they_like():
    batch, heads, positions, width = 3, 2, 5, 8
    together = torch.randn(batch, positions, 3, heads, width, requires_grad=True)
    query, key, value = (together[:, :, i].transpose(1, 2) for i in range(3))
    across = torch.randn(batch, heads, width, positions).mT  # not even a row lies together
    for tensors in ([query, key, value], [across, key, value]):
        expected, _ = attention(*tensors, None)
        torch.testing.assert_close(fused_attention(*tensors, None), expected)
    (found,) = torch.autograd.grad(fused_attention(query, key, value, None).sum(), together)  # an expanded gradient
    (other,) = torch.autograd.grad(attention(query, key, value, None)[0].sum(), together)
    torch.testing.assert_close(found, other)


def test_what_is_hidden_changes_no_bit():
    sizes = (2, 2, 6, 21, 16, 16)
    query, key, value = (tensor.detach() for tensor in inputs(sizes, torch.float32))
    allowed = torch.arange(21) < 13
    found = fused_attention(query, key, value, allowed)
    key[:, :, 13:], value[:, :, 13:] = 1e3, -1e3
    assert torch.equal(found, fused_attention(query, key, value, allowed))


def test_who_may_attend_to_nothing_attends_to_all_alike():
    query, key, value = inputs((1, 1, 3, 7, 4, 4), torch.float32)
    allowed = torch.ones(1, 1, 3, 7, dtype=torch.bool)
    allowed[:, :, 1] = False
    found = fused_attention(query, key, value, allowed)
    torch.testing.assert_close(found[0, 0, 1], value[0, 0].mean(0))
    assert all(tensor.isfinite().all() for tensor in torch.autograd.grad(found.sum(), (query, key, value)))


def test_threads_change_no_bit():
    tensors = inputs((7, 3, 11, 13, 16, 16), torch.bfloat16)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = fused_attention(*tensors, None)
            found.append([out, *torch.autograd.grad(out.float().square().sum(), tensors)])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
