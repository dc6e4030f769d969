"""Turned queries and keys: their products know how far apart they are, and both ways of turning are one."""

import math

import pytest
import torch

from heedful import native
from heedful.model.rotation import Rotation

BOTH_WAYS = pytest.mark.usefixtures("compiled_or_not")


@BOTH_WAYS
@pytest.mark.parametrize("length", [7, 257, 601])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_depend_on_the_distance_alone(length, dtype):
    rotation = Rotation(6).to(dtype)
    torch.manual_seed(5)
    query, key = torch.randn(2, 6, dtype=dtype)
    queries = query.expand(1, length, 1, -1)

    def scores(start):
        return rotation(queries, start)[0, :, 0] @ rotation(key.view(1, 1, 1, -1), start).flatten()

    for start in (3, 401):
        torch.testing.assert_close(scores(start), scores(0), rtol=0, atol=1e-4)
    assert (scores(0) - scores(0)[0]).abs().max() > 0.1


@BOTH_WAYS
def test_angles_are_the_papers():
    turned = Rotation(6)(torch.ones(1, 2, 3, 6))
    for head in turned[0, 1]:
        angles = [math.atan2(y, x) for x, y in head.view(2, 3).T.tolist()]
        assert angles == pytest.approx([math.pi / 4 + 10_000 ** (-2 * i / 6) for i in range(3)])
    assert torch.equal(turned[:, 0], torch.ones(1, 3, 6))


@pytest.mark.parametrize("d_k", [2, 22, 32, 40])
def test_compiled_turns_and_their_gradients_are_those_of_torchs_operations(d_k, monkeypatch):
    if native.library("training") is None:
        pytest.skip("no C++ compiler here")
    torch.manual_seed(5)
    rotation, seen = Rotation(d_k), torch.randn(3, 5, 2, d_k)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("heedful.model.rotation.library", lambda _name: None)
        x = torch.randn(3, 2, 5, d_k, generator=torch.Generator().manual_seed(3)).transpose(1, 2).requires_grad_()
        out = rotation(x, 2)
        (out * seen).sum().backward()
        found.append((out.detach(), x.grad))
    torch.testing.assert_close(found[0], found[1])


@BOTH_WAYS
def test_bfloat16_turns_as_float32_does_to_its_own_precision():
    torch.manual_seed(5)
    rotation, x = Rotation(40), torch.randn(3, 5, 2, 40)
    narrow = rotation.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), Rotation(40)(x), rtol=0.02, atol=0.03)


def test_training_goes_on_after_a_search_asked_for_longer_texts():
    rotation, x = Rotation(6), torch.randn(1, 300, 2, 6, requires_grad=True)
    with torch.inference_mode():
        rotation.turns(300)
    rotation(x).sum().backward()
    assert x.grad is not None
