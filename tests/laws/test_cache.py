"""Promise 3: cached steps equal the uncached decoder, whatever search does with the hypotheses."""

import pytest
import torch

from heedful.model.cache import ROOM, lengths_to_mask
from heedful.model.transformer import Memory

B, W, S = 3, 5, 7
CHOICES = pytest.mark.parametrize(
    ("normalization", "positions", "first_position"), [("post", "sinusoidal", 0), ("pre", "learned", 1)]
)


def encoded(model, lengths=(7, 5, 2)):
    torch.manual_seed(5)
    return model.encode(torch.randint(4, 29, (B, S)), torch.tensor(lengths))


def repeated(memory, times, sentences=slice(None)):
    allowed = memory.allowed_B11S
    return Memory(
        memory.states_BSD[sentences].repeat_interleave(times, 0),
        None if allowed is None else allowed[sentences].repeat_interleave(times, 0),
    )


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@CHOICES
@pytest.mark.parametrize("lengths", [(7, 5, 2), (7, 7, 7)])
@torch.no_grad()
def test_steps_equal_decode_at_every_position_beyond_a_full_cache(
    tiny_model, normalization, positions, first_position, lengths
):
    model = tiny_model(
        normalization=normalization, positions=positions, first_position=first_position, dtype=torch.float64
    )
    memory = encoded(model, lengths)
    target = torch.randint(4, 29, (B, 2 * ROOM + 5))
    expected = model.decode(target, memory)
    state = model.start(memory)
    for t in range(target.size(1)):
        hidden, state = model.step(target[:, t], state)
        close(hidden, expected[:, t])


@CHOICES
@torch.no_grad()
def test_hypotheses_share_their_sentences_memory(tiny_model, normalization, positions, first_position):
    model = tiny_model(
        normalization=normalization, positions=positions, first_position=first_position, dtype=torch.float64
    )
    memory = encoded(model)
    target = torch.randint(4, 29, (B * W, 11))
    expected = model.decode(target, repeated(memory, W))
    state = model.start(memory)
    for t in range(target.size(1)):
        hidden, state = model.step(target[:, t], state)
        close(hidden, expected[:, t])


@torch.no_grad()
def test_select_reorders_hypotheses_and_drops_sentences(tiny_model):
    model = tiny_model(dtype=torch.float64)
    memory = encoded(model)
    state = model.start(memory)
    prefix = torch.zeros(B * W, 0, dtype=torch.long)
    sentences = torch.arange(B)

    def step():
        nonlocal prefix, state
        prefix = torch.cat([prefix, torch.randint(4, 29, (len(prefix), 1))], dim=1)
        hidden, state = model.step(prefix[:, -1], state)
        close(hidden, model.decode(prefix, repeated(memory, W, sentences))[:, -1])

    for t in range(ROOM + 11):
        step()
        rows = torch.randint(W, (len(sentences), W)) + torch.arange(len(sentences))[:, None] * W
        dropped = {3: [0, 2], ROOM + 2: [1]}.get(t)  # rows of the sentences that stay
        if dropped is None:
            state = state.select(rows.flatten())
            prefix = prefix[rows.flatten()]
        else:
            staying = torch.tensor(dropped)
            state = state.select(rows[staying].flatten(), staying)
            prefix, sentences = prefix[rows[staying].flatten()], sentences[staying]
    assert sentences.tolist() == [2]


@torch.no_grad()
def test_a_memory_without_padding_needs_no_mask_after_sentences_leave(tiny_model):
    model = tiny_model(dtype=torch.float64)
    memory = encoded(model, (7, 7, 7))
    assert memory.allowed_B11S is None
    state = model.start(memory)
    _, state = model.step(torch.full((B,), 5), state)
    staying = torch.tensor([2, 0])
    hidden, _ = model.step(torch.full((2,), 6), state.select(staying, staying))
    expected = model.decode(torch.tensor([[5, 6]] * 2), repeated(memory, 1, staying))
    close(hidden, expected[:, -1])


def test_a_mask_is_true_exactly_where_tokens_are():
    mask = lengths_to_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert lengths_to_mask(torch.tensor([3, 3]), 3) is None
