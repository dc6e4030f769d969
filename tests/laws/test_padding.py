"""Promise 2: a sentence's states and translation do not depend on padding or on the rest of its batch."""

import pytest
import torch
from torch.nn import functional

from heedful.decoding.settings import SearchConfig
from heedful.translator import Translator

LENGTHS = [(7, 5), (2, 11), (13, 1), (1, 3)]  # (source, target)
CHOICES = pytest.mark.parametrize(
    "choices",
    [
        {"normalization": "post", "positions": "sinusoidal"},
        {"normalization": "pre", "positions": "learned"},
        {"normalization": "pre", "rotary": True, "d_k": 6},
    ],
)


def sentences():
    torch.manual_seed(5)
    return [(torch.randint(4, 29, (s,)), torch.randint(4, 29, (t,))) for s, t in LENGTHS]


def batched(pairs, extra=0):
    """Pad pairs on the right, `extra` further than need be."""
    widths = [max(len(pair[side]) for pair in pairs) + extra for side in (0, 1)]
    padded = [
        torch.stack([functional.pad(pair[side], (0, widths[side] - len(pair[side]))) for pair in pairs])
        for side in (0, 1)
    ]
    return (*padded, torch.tensor([len(source) for source, _ in pairs]))


def states(model, pairs, extra=0):
    source, target, lengths = batched(pairs, extra)
    with torch.no_grad():
        memory = model.encode(source, lengths)
        hidden = model.decode(target, memory)
    return [(memory.states_BSD[row, : len(s)], hidden[row, : len(t)]) for row, (s, t) in enumerate(pairs)]


@CHOICES
@pytest.mark.parametrize("extra", [0, 1, 17])
@pytest.mark.usefixtures("each_way")
def test_batching_and_padding_leave_each_sentence_as_it_is_alone(tiny_model, choices, extra):
    model = tiny_model(**choices, dtype=torch.float64)
    pairs = sentences()
    together = states(model, pairs, extra)
    for pair, in_batch in zip(pairs, together, strict=True):
        for state, alone in zip(in_batch, states(model, [pair])[0], strict=True):
            torch.testing.assert_close(state, alone, rtol=1e-11, atol=1e-11)


@CHOICES
@pytest.mark.usefixtures("each_way")
def test_what_padding_holds_changes_nothing(tiny_model, choices):
    model = tiny_model(**choices)
    source, target, lengths = batched(sentences())
    memory = model.encode(source, lengths)
    rubbish = source.clone()
    rubbish[~memory.allowed_B11S[:, 0, 0]] = 17
    other = model.encode(rubbish, lengths)
    assert torch.equal(model.decode(target, memory), model.decode(target, other))


@CHOICES
@pytest.mark.usefixtures("each_way")
def test_padded_embeddings_get_exactly_no_gradient(tiny_model, choices):
    model = tiny_model(**choices)
    embedded = []
    for embedding in (model.source_embedding, model.target_embedding):
        embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    pairs = sentences()
    source, target, lengths = batched(pairs, extra=3)
    hidden = model.decode(target, model.encode(source, lengths))
    real = [torch.arange(target.size(1)) < len(t) for _, t in pairs]
    loss = (hidden[torch.stack(real)] @ torch.randn(hidden.size(-1))).sum()
    for gradient, side in zip(torch.autograd.grad(loss, embedded), (0, 1), strict=True):
        for row, pair in enumerate(pairs):
            length = len(pair[side])
            assert (gradient[row, length:] == 0).all()
            assert (gradient[row, :length].abs().sum(-1) > 0).all()


@CHOICES
def test_permuting_a_batch_permutes_its_outputs(tiny_model, choices):
    model = tiny_model(**choices, dtype=torch.float64)
    pairs, order = sentences(), [2, 0, 3, 1]
    straight, permuted = states(model, pairs), states(model, [pairs[i] for i in order])
    for place, i in enumerate(order):
        for one, other in zip(permuted[place], straight[i], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(beam=1, max_extra=1),
        SearchConfig(beam=4, max_extra=1, n_best=3),
        SearchConfig(beam=3, n_best=3, max_extra=1, sample=True),
    ],
)
def test_translations_do_not_depend_on_the_batch_size(tiny_model, toy_vocabulary, config):
    size = toy_vocabulary.sizes[0]
    translator = Translator(
        tiny_model(encoder_layers=1, decoder_layers=1, source_size=size, target_size=size), toy_vocabulary, config
    )
    words = ["the", "cat", "sees", "a", "house", "und", "findet", "Bäume"]
    lines = [" ".join(words[i % 5 : i % 5 + i % 4]) + "x" * (i % 3) for i in range(67)]
    found = [list(translator.translate(lines, batch=batch)) for batch in (1, 7, 64)]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert [output.ids for output in one] == [output.ids for output in two]
            assert [o.score for o in one] == pytest.approx([o.score for o in two], abs=1e-5)
