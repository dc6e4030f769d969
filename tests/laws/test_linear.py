"""Products by oneDNN are torch's own, forward and backward, to the rounding of float32 sums."""

import pytest
import torch
from torch import nn

from heedful.model import linear as module
from heedful.model.linear import Linear, by_onednn, multiply, onednn_is_faster, sum_outer_products
from heedful.training.loss import consistent_cross_entropy, smoothed_cross_entropy

if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
    pytest.skip("this torch has no product by oneDNN", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("compiled_or_not")


@pytest.fixture(autouse=True)
def _onednn(monkeypatch):
    torch.manual_seed(3)
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 5), (0,), (2, 3, 4)])
@pytest.mark.parametrize("sizes", [(11, 11), (7, 35), (35, 7), (1, 1), (130, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_torchs(shape, sizes, bias):
    ours = Linear(*sizes, bias=bias)
    theirs = nn.Linear(*sizes, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape, sizes[0])
    given = [x.clone().requires_grad_() for _ in range(2)]
    assert by_onednn(x) == (x.numel() > 0)
    made = [layer(one) for layer, one in zip((ours, theirs), given, strict=True)]
    torch.testing.assert_close(*made)
    flowing = torch.randn_like(made[0])
    for out in made:
        out.backward(flowing)
    torch.testing.assert_close(given[0].grad, given[1].grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for_gets_a_gradient():
    layer = Linear(5, 3)
    layer.weight.requires_grad_(False)
    x = torch.randn(4, 5)
    layer(x).sum().backward()
    assert (x.grad, layer.weight.grad) == (None, None)
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 4.0))


@pytest.mark.parametrize("rows", [1, 16, 61])
@pytest.mark.parametrize("sizes", [(8, 8), (5, 40), (40, 5)])
def test_products_take_matrices_as_they_lie_in_memory(rows, sizes):
    x, gradient = torch.randn(rows, sizes[0]), torch.randn(rows, sizes[1])
    expected = gradient.double().T @ x.double()
    for one in (x, torch.randn(sizes[0], rows).T.copy_(x)):
        for other in (gradient, torch.randn(sizes[1], rows).T.copy_(gradient)):
            torch.testing.assert_close(sum_outer_products(other, one), expected.float())
    weight, bias = torch.randn(sizes[1], sizes[0]), torch.randn(sizes[1])
    for lying in (weight.T, weight.T.contiguous()):
        torch.testing.assert_close(multiply(x, lying, bias), (x.double() @ lying.double() + bias).float())


@pytest.mark.parametrize("size", [300, 20])
@pytest.mark.parametrize("targets", [40, 1000, 0])
def test_the_loss_is_the_same(monkeypatch, size, targets):
    hidden, weight = (torch.randn(n, 24, requires_grad=True) for n in (targets, size))
    target = torch.randint(size, (targets,))
    found = []
    for faster in (True, False):
        monkeypatch.setattr(module, "onednn_is_faster", lambda faster=faster: faster)
        plain = smoothed_cross_entropy(hidden, weight, target, 0.1)
        both = consistent_cross_entropy(hidden, hidden * 0.9, weight, target, 0.1, 4.0)
        gradients = torch.autograd.grad(plain.smoothed + both.smoothed, (hidden, weight))
        found.append((*plain, *both, *gradients))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_other_types_and_places_are_torchs():
    assert not by_onednn(torch.ones(2, 2, dtype=torch.float64))
    assert not by_onednn(torch.ones(2, 2, dtype=torch.bfloat16))
    assert not by_onednn(torch.ones(2, 2, device="meta"))


@pytest.mark.parametrize(
    ("maker", "capability", "expected"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
def test_only_where_mkl_leaves_avx_512_unused(monkeypatch, tmp_path, maker, capability, expected):
    monkeypatch.undo()
    listed = tmp_path / "cpuinfo"
    listed.write_text(f"processor : 0\nvendor_id : {maker}\n")
    monkeypatch.setattr(module, "Path", lambda _: listed)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert onednn_is_faster.__wrapped__() is expected
