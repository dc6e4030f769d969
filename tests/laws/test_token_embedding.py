"""Embeddings: the gradient of a token is the sum over all places where it stands, in each type."""

import pytest
import torch
from torch.nn import functional

from heedful.model.token_embedding import TokenEmbedding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_stands_everywhere_learns_from_all_of_it(dtype):
    embedding = TokenEmbedding(5, 3).to(dtype)
    tokens = torch.full((64, 8), 2)
    tokens[0, 0] = 4
    embedding(tokens).backward(torch.full((64, 8, 3), 0.01, dtype=dtype))
    expected = torch.tensor([0, 0, 5.11, 0, 0.01])[:, None].expand(5, 3)
    torch.testing.assert_close(embedding.weight.grad.float(), expected, rtol=0.01, atol=0)
    assert embedding.weight.grad.dtype == dtype
    assert torch.equal(embedding(tokens), functional.embedding(tokens, embedding.weight))
