"""The fused loss is torch's cross-entropy of the projected hidden states, chunk by chunk."""

import pytest
import torch
from torch.nn import functional

from heedful.training import loss as module
from heedful.training.loss import consistent_cross_entropy, smoothed_cross_entropy

N, D, V = 23, 11, 31
pytestmark = pytest.mark.usefixtures("compiled_or_not")
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])


def example(dtype=torch.float64, scale=1.0):
    torch.manual_seed(4)
    hidden = (torch.randn(N, D, dtype=dtype) * scale).requires_grad_()
    weight = torch.randn(V, D, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(V, (N,))


def reference(hidden, weight, target, smoothing):
    return functional.cross_entropy(hidden @ weight.T, target, label_smoothing=smoothing, reduction="sum")


@SMOOTHING
@pytest.mark.parametrize("chunk", [1, 5, 23, 512])
def test_the_loss_and_both_gradients_are_torchs_across_chunk_borders(monkeypatch, chunk, smoothing):
    monkeypatch.setattr(module, "CHUNK", chunk)
    hidden, weight, target = example()
    ours = smoothed_cross_entropy(hidden, weight, target, smoothing)
    theirs = reference(hidden, weight, target, smoothing)
    assert ours.smoothed.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert ours.nll.item() == pytest.approx(reference(hidden, weight, target, 0.0).item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, (hidden, weight)) for value in (ours.smoothed, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@SMOOTHING
def test_gradients_are_scaled_by_what_flows_back(smoothing):
    hidden, weight, target = example()
    plain = torch.autograd.grad(smoothed_cross_entropy(hidden, weight, target, smoothing).smoothed, (hidden, weight))
    scaled = torch.autograd.grad(
        -3.5 * smoothed_cross_entropy(hidden, weight, target, smoothing).smoothed, (hidden, weight)
    )
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(-3.5 * one, other)


def test_no_gradient_flows_from_the_log_likelihood():
    hidden, weight, target = example()
    result = smoothed_cross_entropy(hidden, weight, target, 0.1)
    for gradient in torch.autograd.grad(result.nll, (hidden, weight)):
        assert (gradient == 0).all()


@SMOOTHING
def test_without_gradients_the_values_are_the_same(smoothing):
    with_gradients = smoothed_cross_entropy(*example(), smoothing)
    with torch.no_grad():
        without = smoothed_cross_entropy(*example(), smoothing)
    assert without.smoothed.item() == with_gradients.smoothed.item()
    assert without.nll.item() == with_gradients.nll.item()


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_side_may_be_frozen(frozen):
    hidden, weight, target = example()
    (hidden, weight)[frozen].requires_grad_(False)
    free = (weight, hidden)[frozen]
    one = torch.autograd.grad(smoothed_cross_entropy(hidden, weight, target, 0.1).smoothed, free)[0]
    other = torch.autograd.grad(reference(hidden, weight, target, 0.1), free)[0]
    torch.testing.assert_close(one, other)


@SMOOTHING
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_stay_numbers(smoothing, dtype):
    hidden, weight, target = example(dtype, scale=1e4)
    assert (hidden @ weight.T).abs().max() > 1e4
    ours = smoothed_cross_entropy(hidden, weight, target, smoothing)
    gradients = torch.autograd.grad(ours.smoothed, (hidden, weight))
    assert all(tensor.isfinite().all() for tensor in (*ours, *gradients))
    assert ours.smoothed.item() == pytest.approx(reference(hidden, weight, target, smoothing).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_a_number_is_not_hidden(dtype):
    hidden, weight, target = example(dtype)
    with torch.no_grad():
        weight[(target[0] + 1) % V, 3] = torch.nan
    gradients = torch.autograd.grad(smoothed_cross_entropy(hidden, weight, target, 0.0).smoothed, (hidden, weight))
    assert all(tensor.isnan().any() for tensor in gradients)


def test_the_loss_of_equal_logits_is_the_logarithm_of_the_vocabulary():
    result = smoothed_cross_entropy(torch.zeros(N, D), torch.randn(V, D), torch.randint(V, (N,)), 0.1)
    expected = N * torch.tensor(float(V)).log().item()
    assert result.smoothed.item() == pytest.approx(expected, rel=1e-6)
    assert result.nll.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("chunk", [5, 512])  # gradients of several chunks are added up
@SMOOTHING
def test_bfloat16_stays_close_to_float32(smoothing, chunk, monkeypatch):
    monkeypatch.setattr("heedful.training.loss.CHUNK", chunk)
    hidden, weight, target = example(torch.float32)
    narrow = [tensor.detach().to(torch.bfloat16).requires_grad_() for tensor in (hidden, weight)]
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    rough, exact = (smoothed_cross_entropy(*pair, target, smoothing) for pair in (narrow, wide))
    assert rough.smoothed.dtype == torch.float32
    assert rough.smoothed.item() == pytest.approx(exact.smoothed.item(), rel=0.01)
    assert rough.nll.item() == pytest.approx(exact.nll.item(), rel=0.01)
    for one, other in zip(
        torch.autograd.grad(rough.smoothed, narrow), torch.autograd.grad(exact.smoothed, wide), strict=True
    ):
        assert one.dtype == torch.bfloat16
        assert (one.float() - other).norm() < 0.02 * other.norm()


def test_no_tokens_cost_nothing():
    hidden, weight, target = example()
    result = smoothed_cross_entropy(hidden[:0], weight, target[:0], 0.1)
    assert result.smoothed.item() == 0
    assert (torch.autograd.grad(result.smoothed, weight)[0] == 0).all()


@SMOOTHING
@pytest.mark.parametrize("chunk", [1, 5, 512])
@pytest.mark.parametrize("consistency", [1.0, 5.0])
def test_two_passes_cost_the_mean_of_both_and_their_divergence(monkeypatch, chunk, smoothing, consistency):
    monkeypatch.setattr(module, "CHUNK", chunk)
    first, weight, target = example()
    second = (first + 0.3 * torch.randn(N, D, dtype=first.dtype)).detach().requires_grad_()
    ours = consistent_cross_entropy(first, second, weight, target, smoothing, consistency)
    p, q = ((hidden @ weight.T).log_softmax(-1) for hidden in (first, second))
    divergence = sum(functional.kl_div(b, a, log_target=True, reduction="sum") for a, b in ((p, q), (q, p)))
    each = [reference(hidden, weight, target, smoothing) for hidden in (first, second)]
    theirs = sum(each) / 2 + consistency / 4 * divergence  # half of equation 4 of Liang et al. 2021
    assert ours.smoothed.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, (first, second, weight)) for value in (ours.smoothed, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_where_nothing_is_learned_no_gradient_is_computed(monkeypatch):
    hidden, weight, target = example()
    expected = smoothed_cross_entropy(hidden, weight, target, 0.1)
    monkeypatch.setattr(module, "_add_product", None)
    with torch.no_grad():
        assert smoothed_cross_entropy(hidden, weight, target, 0.1) == expected
