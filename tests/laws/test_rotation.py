"""Turned queries and keys: their products know how far apart they are. Compiled: test_fused_attention.py."""

import math

import pytest
import torch

from heedful.model.rotation import Rotation


@pytest.mark.parametrize("length", [7, 257, 601])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_depend_on_the_distance_alone(length, dtype):
    rotation = Rotation(6).to(dtype)
    torch.manual_seed(5)
    query, key = torch.randn(2, 6, dtype=dtype)
    queries = query.expand(1, 1, length, -1)

    def scores(start):
        return rotation(queries, start)[0, 0] @ rotation(key.view(1, 1, 1, -1), start).flatten()

    for start in (3, 401):
        torch.testing.assert_close(scores(start), scores(0), rtol=0, atol=1e-4)
    assert (scores(0) - scores(0)[0]).abs().max() > 0.1


def test_angles_are_the_papers():
    turned = Rotation(6)(torch.ones(1, 3, 2, 6))
    for head in turned[0, :, 1]:
        angles = [math.atan2(y, x) for x, y in head.view(2, 3).T.tolist()]
        assert angles == pytest.approx([math.pi / 4 + 10_000 ** (-2 * i / 6) for i in range(3)])
    assert torch.equal(turned[:, :, 0], torch.ones(1, 3, 6))


def test_bfloat16_turns_as_float32_does_to_its_own_precision():
    torch.manual_seed(5)
    rotation, x = Rotation(40), torch.randn(3, 2, 5, 40)
    narrow = rotation.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), Rotation(40)(x), rtol=0.02, atol=0.03)


def test_training_goes_on_after_a_search_asked_for_longer_texts():
    rotation, x = Rotation(6), torch.randn(1, 2, 300, 6, requires_grad=True)
    with torch.inference_mode():
        rotation.turns(300)
    rotation(x).sum().backward()
    assert x.grad is not None
