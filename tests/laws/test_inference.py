"""Promise 3: cached steps equal the uncached decoder, whatever search does with the hypotheses."""

import pytest
import torch

from heedful.model.inference import ROOM, Inference, product
from heedful.model.transformer import Memory, lengths_to_mask

B, W, S = 3, 5, 7
CHOICES = pytest.mark.parametrize(
    ("normalization", "positions", "first_position"), [("post", "sinusoidal", 0), ("pre", "learned", 1)]
)


def encoded(model, lengths=(7, 5, 2)):
    """Encode the same random text both ways: what search steps with, its state, and the memory for `decode`."""
    torch.manual_seed(5)
    text = torch.randint(4, 29, (B, S)), torch.tensor(lengths)
    inference = Inference(model)
    return inference, inference.start(inference.encode(*text)), model.encode(*text)


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
    inference, state, memory = encoded(model, lengths)
    target = torch.randint(4, 29, (B, ROOM + 5))
    expected = model.decode(target, memory)
    for t in range(target.size(1)):
        hidden, state = inference.step(target[:, t], state)
        close(hidden, expected[:, t])


@CHOICES
@torch.no_grad()
def test_hypotheses_share_their_sentences_memory(tiny_model, normalization, positions, first_position):
    model = tiny_model(
        normalization=normalization, positions=positions, first_position=first_position, dtype=torch.float64
    )
    inference, state, memory = encoded(model)
    target = torch.randint(4, 29, (B * W, 11))
    expected = model.decode(target, repeated(memory, W))
    for t in range(target.size(1)):
        hidden, state = inference.step(target[:, t], state)
        close(hidden, expected[:, t])


@torch.no_grad()
def test_select_reorders_hypotheses_and_drops_sentences(tiny_model):
    model = tiny_model(dtype=torch.float64)
    inference, state, memory = encoded(model)
    prefix, sentences, width = torch.zeros(B, 0, dtype=torch.long), torch.arange(B), 1

    def step():
        nonlocal prefix, state
        prefix = torch.cat([prefix, torch.randint(4, 29, (len(prefix), 1))], dim=1)
        hidden, state = inference.step(prefix[:, -1], state)
        close(hidden, model.decode(prefix, repeated(memory, width, sentences))[:, -1])

    for t in range(53):
        step()
        rows = torch.randint(width, (len(sentences), W)) + torch.arange(len(sentences))[:, None] * width
        width = W  # from one hypothesis to a beam of them, as search does after the first step
        staying = {3: [0, 2], 17: [1]}.get(t)  # rows of the sentences that stay; the last takes a lost one's place
        if staying is None:
            state = state.select(rows.flatten())
            prefix = prefix[rows.flatten()]
        else:
            state = state.select(rows[staying].flatten(), torch.tensor(staying))
            prefix, sentences = prefix[rows[staying].flatten()], sentences[staying]
    assert sentences.tolist() == [2]
    assert state.taken < 2 * 53, "places that no hypothesis came by were given up"


@pytest.mark.parametrize("zero", [False, True])
def test_eight_bits_are_nearly_as_good_and_do_not_depend_on_other_rows(zero):
    torch.manual_seed(1)
    x, weight, onto = torch.randn(7, 512), torch.randn(512, 512), torch.randn(7, 512)
    if zero:
        x[3] = 0.0
    exact, eight_bits = product(weight, "float32"), product(weight, "int8")
    for added in (None, onto):
        error = eight_bits(x, added) - exact(x, added)
        assert 0 < error.std() < 0.02 * 512**0.5
    for row in range(7):
        assert torch.equal(eight_bits(x[row : row + 1], None)[0], eight_bits(x, None)[row])


def test_a_small_product_stays_exact():
    weight = torch.randn(97, 89)
    assert torch.equal(product(weight, "int8").weight_IO, weight.T)


def test_a_mask_is_true_exactly_where_tokens_are():
    mask = lengths_to_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert lengths_to_mask(torch.tensor([3, 3]), 3) is None
