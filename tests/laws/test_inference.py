"""Promise 3: cached steps, of either kind, equal the uncached decoder, whatever search does with the hypotheses."""

import pytest
import torch

from heedful.model.compiled import multiplies
from heedful.model.compiled_inference import CompiledInference, compiled
from heedful.model.inference import ROOM, Inference
from heedful.model.transformer import Memory, lengths_to_mask

B, W, S = 3, 5, 7
CHOICES = pytest.mark.parametrize(
    "choices",
    [
        {"normalization": "post", "positions": "sinusoidal", "first_position": 0},
        {"normalization": "pre", "positions": "learned", "first_position": 1},
        {"normalization": "pre", "positions": "sinusoidal", "rotary": True, "d_k": 6},
        {"normalization": "post", "positions": "learned", "rotary": True, "d_k": 22},
        {"normalization": "pre", "positions": "none", "rotary": True, "d_k": 6},
    ],
)
EXACT = {Inference: 1e-10, CompiledInference: 1e-4}  # in float64, and in float32


@pytest.fixture(params=[Inference, CompiledInference])
def engine(request, tiny_model):
    """Return a function from settings to a model, and what steps with its weights."""

    def make(weights="float32", **settings):
        by_compiled = request.param is CompiledInference
        model = tiny_model(**settings, dtype=torch.float32 if by_compiled else torch.float64)
        if by_compiled and not multiplies(weights):
            pytest.skip(f"no C++ compiler here, or no {weights}")
        if weights == "int8" and not by_compiled:
            pytest.skip("compiled only")
        return model, CompiledInference(compiled(model, weights)) if by_compiled else Inference(model, weights)

    return make


def encoded(model, inference, lengths=(7, 5, 2)):
    """Encode the same random text both ways: the state to step from, and the memory for `decode`."""
    torch.manual_seed(5)
    text = torch.randint(4, 29, (B, S)), torch.tensor(lengths)
    return inference.start(inference.encode(*text)), model.encode(*text)


def repeated(memory, times, sentences=slice(None)):
    allowed = memory.allowed_B11S
    return Memory(
        memory.states_BSD[sentences].repeat_interleave(times, 0),
        None if allowed is None else allowed[sentences].repeat_interleave(times, 0),
    )


def close(inference, one, other):
    torch.testing.assert_close(one, other, rtol=EXACT[type(inference)], atol=EXACT[type(inference)])


@CHOICES
@pytest.mark.parametrize("lengths", [(7, 5, 2), (7, 7, 7)])
@torch.no_grad()
def test_steps_equal_decode_at_every_position_beyond_all_room(engine, choices, lengths):
    model, inference = engine(**choices)
    state, memory = encoded(model, inference, lengths)
    target = torch.randint(4, 29, (B, ROOM + 5))
    expected = model.decode(target, memory)
    for t in range(target.size(1)):
        hidden, state = inference.step(target[:, t].contiguous(), state)
        close(inference, hidden, expected[:, t])
        close(inference, inference.logits(hidden), model.logits(expected[:, t]))


@CHOICES
@torch.no_grad()
def test_hypotheses_share_their_sentences_memory(engine, choices):
    model, inference = engine(**choices)
    state, memory = encoded(model, inference)
    target = torch.randint(4, 29, (B * W, 11))
    expected = model.decode(target, repeated(memory, W))
    for t in range(target.size(1)):
        hidden, state = inference.step(target[:, t].contiguous(), state)
        close(inference, hidden, expected[:, t])


@torch.no_grad()
def test_select_reorders_hypotheses_and_drops_sentences(engine):
    model, inference = engine()
    state, memory = encoded(model, inference)
    prefix, sentences, width = torch.zeros(B, 0, dtype=torch.long), torch.arange(B), 1

    def step():
        nonlocal prefix, state
        prefix = torch.cat([prefix, torch.randint(4, 29, (len(prefix), 1))], dim=1)
        hidden, state = inference.step(prefix[:, -1].contiguous(), state)
        close(inference, hidden, model.decode(prefix, repeated(memory, width, sentences))[:, -1])

    for t in range(71):
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
    if isinstance(inference, Inference):
        assert state.taken < 2 * 71, "places that no hypothesis came by were given up"


@torch.no_grad()
def test_compiled_steps_do_not_depend_on_the_batch_to_the_last_bit(engine):
    """Torch's products are not promised to be so; those of search.cpp are."""
    model, inference = engine(d_model=48, heads=3, d_k=16, d_v=32, d_ff=67)
    if not isinstance(inference, CompiledInference):
        pytest.skip("compiled only")
    state, _ = encoded(model, inference)
    target = torch.randint(4, 29, (B, 5))
    together = [inference.step(target[:, t].contiguous(), state)[0] for t in range(5)]
    torch.manual_seed(5)
    text = torch.randint(4, 29, (B, S))
    for row, length in enumerate((7, 5, 2)):
        alone = inference.start(inference.encode(text[row : row + 1], torch.tensor([length])))
        for t in range(5):
            hidden, _ = inference.step(target[row : row + 1, t].contiguous(), alone)
            assert torch.equal(hidden[0], together[t][row])


@pytest.mark.parametrize(("weights", "least"), [("bfloat16", 0.03), ("int8", 0.05)])
@torch.no_grad()
def test_narrow_weights_are_nearly_as_good(engine, weights, least):
    model, inference = engine(weights, d_model=47, heads=3, d_k=16, d_v=32, d_ff=67)
    state, memory = encoded(model, inference)
    target = torch.randint(4, 29, (B, 5))
    for t in range(5):
        hidden, state = inference.step(target[:, t].contiguous(), state)
    error = inference.logits(hidden) - model.logits(model.decode(target, memory)[:, -1])
    assert 0 < error.std() < least * model.logits(model.decode(target, memory)).std()


@torch.no_grad()
def test_rotary_steps_go_on_beyond_the_first_table_of_angles(engine):
    model, inference = engine(normalization="pre", rotary=True, d_k=6, encoder_layers=1, decoder_layers=1)
    torch.manual_seed(5)
    text, target = (torch.randint(4, 29, (1, 300)), torch.tensor([300])), torch.randint(4, 29, (1, 270))
    state, found = inference.start(inference.encode(*text)), []
    for t in range(270):
        hidden, state = inference.step(target[:, t].contiguous(), state)
        found.append(hidden)
    expected = model.decode(target, model.encode(*text))
    for t in (0, 255, 256, 269):
        close(inference, found[t], expected[:, t])


def test_a_mask_is_true_exactly_where_tokens_are():
    mask = lengths_to_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert mask[:, 0, 0].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert lengths_to_mask(torch.tensor([3, 3]), 3) is None


@torch.inference_mode()
def test_two_searches_of_one_encoding_do_not_change_each_other(engine):
    _, inference = engine()
    torch.manual_seed(5)
    memory = inference.encode(torch.randint(4, 29, (B, S)), torch.tensor([7, 5, 2]))
    tokens = torch.arange(4, 4 + B)
    expected = inference.step(tokens, inference.start(memory))[0].clone()
    first = inference.start(memory)
    inference.step(tokens, first)
    first.select(torch.tensor([2]), torch.tensor([2]))  # of which two sentences are done
    close(inference, inference.step(tokens, inference.start(memory))[0], expected)
