"""Equation 1 and multi-head attention, against torch's own, and against themselves on the other path."""

import math

import pytest
import torch
from torch.nn import functional

from heedful import native
from heedful.model import transformer
from heedful.model.fused_attention import fused_attention
from heedful.model.recorder import recording
from heedful.model.transformer import MultiHeadAttention, attention

B, H, L, M, K, KV, D = 3, 2, 5, 7, 11, 13, 34


def inputs(seed=2, scale=1.0):
    torch.manual_seed(seed)
    shapes = ((B, H, L, K), (B, H, M, K), (B, H, M, KV))
    return [(scale * torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]


def masks():
    torch.manual_seed(3)
    mask = torch.rand(B, 1, L, M) < 0.6
    mask[..., 0] = True
    return [None, mask, torch.ones(L, M, dtype=torch.bool).tril(), mask[:, :, :1]]


@pytest.mark.parametrize("mask", masks())
def test_attention_equals_torchs_forward_and_backward(mask):
    tensors = inputs()
    ours, _ = attention(*tensors, mask)
    theirs = functional.scaled_dot_product_attention(*tensors, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, tensors, upstream),
        torch.autograd.grad(theirs, tensors, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mask", masks())
def test_weights_sum_to_one_and_are_zero_where_not_allowed(mask):
    _, weights = attention(*inputs(scale=5.0), mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, L, dtype=torch.float64))
    assert (weights >= 0).all()
    if mask is not None:
        assert (weights[~mask.expand_as(weights)] == 0).all()


def test_equal_keys_are_attended_to_equally():
    query, key, value = inputs()
    heads, weights = attention(query, key[:, :, :1].expand_as(key), value, None)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / M))
    torch.testing.assert_close(heads, value.mean(2, keepdim=True).expand_as(heads))


@pytest.mark.usefixtures("compiled_or_not")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("short", [0, 10**6])
def test_a_row_that_may_attend_to_nothing_gives_no_nan(monkeypatch, dtype, short):
    monkeypatch.setattr(transformer, "SHORT", short)
    module = MultiHeadAttention(D, H, K, KV, 0.0).to(dtype)
    x = torch.randn(B, L, D, dtype=dtype, requires_grad=True)
    mask = torch.ones(B, 1, L, L, dtype=torch.bool)
    mask[1] = False
    mask[2, :, 3] = False
    y = module(x, module.keys_values(x), mask)
    gradients = torch.autograd.grad(y.sum(), [x, *module.parameters()])
    assert all(tensor.isfinite().all() for tensor in (y, *gradients))


@pytest.mark.parametrize("d_k", [1, 3, 64, 509])
def test_scores_are_scaled_by_exactly_the_root_of_d_k(d_k):
    # Two keys whose scores with the query differ by s get weights that differ by the factor exp(s).
    query, key = torch.randn(2, 1, 1, 1, d_k, dtype=torch.float64)
    keys = torch.cat([key, torch.zeros_like(key)], dim=2)
    _, weights = attention(query, keys, keys, None)
    difference = (weights[..., 0].log() - weights[..., 1].log()).item()
    assert difference == pytest.approx((query * key).sum().item() / math.sqrt(d_k), rel=1e-9)


@pytest.mark.parametrize("d_k", [2, 37, 1031])
def test_the_variance_of_scores_does_not_grow_with_d_k(d_k):
    torch.manual_seed(1)
    _, weights = attention(torch.randn(1, 1, 211, d_k), torch.randn(1, 1, 223, d_k), torch.ones(1, 1, 223, 1), None)
    log = weights.log()
    assert (log - log.mean(-1, keepdim=True)).var().item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("mask", [None, masks()[3]])
def test_multi_head_attention_equals_torchs_with_the_same_weights(mask):
    torch.manual_seed(7)
    width = D // H
    ours = MultiHeadAttention(D, H, width, width, 0.0).double()
    theirs = torch.nn.MultiheadAttention(D, H, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.out_proj.weight.copy_(ours.output.weight)
    x = torch.randn(B, L, D, dtype=torch.float64, requires_grad=True)
    y = torch.randn(B, M, D, dtype=torch.float64, requires_grad=True)
    hidden = None if mask is None else ~mask[:, 0, 0]
    weights = []
    ours.observer = weights.append
    one = ours(x, ours.keys_values(y), mask)
    other, their_weights = theirs(x, y, y, key_padding_mask=hidden, average_attn_weights=False)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(weights[0], their_weights, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(one)
    gradients = [torch.autograd.grad(out, (x, y), upstream) for out in (one, other)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mask", masks())
def test_short_and_long_sequences_are_attended_to_alike(monkeypatch, mask):
    torch.manual_seed(7)
    module = MultiHeadAttention(D, H, K, KV, 0.0).double()
    x = torch.randn(B, L, D, dtype=torch.float64, requires_grad=True)
    y = torch.randn(B, M, D, dtype=torch.float64, requires_grad=True)
    called = []
    torchs = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda *args: called.append(1) or torchs(*args))
    results = []
    for scores, calls in ((10**6, 0), (0, 1)):
        monkeypatch.setattr(transformer, "SHORT", scores)
        out = module(x, module.keys_values(y), mask)
        assert len(called) == calls
        upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        results.append([out, *torch.autograd.grad(out, [x, y, *module.parameters()], upstream)])
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("observed", "dropout", "dtype", "fused"),
    [
        (False, 0.0, torch.float32, True),
        (False, 0.0, torch.bfloat16, True),
        (False, 0.0, torch.float64, False),
        (True, 0.0, torch.float32, False),
        (False, 0.3, torch.float32, False),
    ],
)
def test_the_compiled_way_is_taken_where_it_can_be(monkeypatch, observed, dropout, dtype, fused):
    if native.library("training") is None:
        pytest.skip("no C++ compiler here")
    called = []
    monkeypatch.setattr(transformer, "fused_attention", lambda *args: called.append(1) or fused_attention(*args))
    module = MultiHeadAttention(D, H, K, KV, dropout).to(dtype)
    module.observer = (lambda _weights: None) if observed else None
    x = torch.randn(B, L, D, dtype=dtype)
    module(x, module.keys_values(x), None)
    assert bool(called) == fused


def test_attention_dropout_drops_weights_in_training_only():
    module = MultiHeadAttention(D, H, K, KV, 0.5)
    x = torch.randn(B, L, D)
    attended = module.keys_values(x)
    assert not torch.equal(module(x, attended, None), module(x, attended, None))
    module.eval()
    assert torch.equal(module(x, attended, None), module(x, attended, None))


def test_the_recorder_names_every_head_and_removes_itself(tiny_model):
    model = tiny_model(encoder_layers=2, decoder_layers=3)
    source, target = torch.randint(4, 29, (3, 7)), torch.randint(4, 29, (3, 5))
    with torch.no_grad(), recording(model) as maps:
        recorded = model.decode(target, model.encode(source, torch.tensor([7, 5, 2])))
    expected = {f"encoder.{i}": (3, 2, 7, 7) for i in range(2)}
    expected |= {f"decoder.{i}": (3, 2, 5, 5) for i in range(3)}
    expected |= {f"cross.{i}": (3, 2, 5, 7) for i in range(3)}
    assert {name: tuple(kept[0].shape) for name, kept in maps.items()} == expected
    assert all(len(kept) == 1 for kept in maps.values())
    assert (maps["decoder.1"][0].triu(1) == 0).all()
    assert (maps["cross.2"][0][2, :, :, 2:] == 0).all()
    with torch.no_grad():
        plain = model.decode(target, model.encode(source, torch.tensor([7, 5, 2])))
    assert all(len(kept) == 1 for kept in maps.values()), "the recorder has removed itself"
    torch.testing.assert_close(recorded, plain)


def test_the_recorder_removes_itself_after_an_error(tiny_model):
    model = tiny_model()
    with pytest.raises(ZeroDivisionError), recording(model):
        raise ZeroDivisionError
    assert all(m.observer is None for m in model.modules() if isinstance(m, MultiHeadAttention))
