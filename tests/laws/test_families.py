"""The laws of the Transformer hold for the models that it left behind: causality, padding, cached steps, cost."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from heedful.data.batches import batch_of
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.inspection.cost import forward_flops, parameters, search_flops
from heedful.model.family import build_model
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.training.loop import batch_loss
from heedful.translator import Translator

SIZES = {"encoder_layers": 3, "decoder_layers": 3, "d_model": 14, "dropout": 0.0, "max_positions": 97}
KINDS = {
    "lstm": {"family": "lstm"},
    "attention": {"family": "lstm-attention"},
    "one way": {"family": "lstm-attention", "bidirectional": False, "residuals": False, "share": "none"},
    "convolution": {"family": "convolution"},
    "even kernel": {"family": "convolution", "kernel": 4, "decoder_layers": 2, "share": "target"},
}


@pytest.fixture(params=KINDS, name="settings")
def _settings(request):
    return KINDS[request.param]


def make(settings, dtype=torch.float64, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(ModelConfig(**{**SIZES, **settings, **changes}), 29, 29)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) / 5)
    return model.to(dtype).eval()


def text(lengths=(7, 5, 2), target=11):
    torch.manual_seed(5)
    source = torch.randint(4, 29, (len(lengths), max(lengths)))
    return source, torch.tensor(lengths), torch.randint(4, 29, (len(lengths), target))


def test_later_tokens_change_nothing_before_them(settings):
    model = make(settings)
    source, lengths, target = text()
    with torch.no_grad():
        memory = model.encode(source, lengths)
        before = model.decode(target, memory)
        for t in range(target.size(1)):
            changed = target.clone()
            changed[:, t] = (changed[:, t] + 1) % 29
            after = model.decode(changed, memory)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.isclose(after[:, t], before[:, t]).all(), "a state sees its own token"


def test_every_source_token_counts(settings):
    model = make(settings)
    source, lengths, target = text((7, 7, 7))
    with torch.no_grad():
        before = model.decode(target, model.encode(source, lengths))
        for s in range(source.size(1)):
            changed = source.clone()
            changed[:, s] = (changed[:, s] + 1) % 29
            after = model.decode(target, model.encode(changed, lengths))
            assert not torch.isclose(after, before).flatten(1).all(1).any()


@pytest.mark.parametrize("extra", [0, 1, 17])
def test_neither_padding_nor_the_rest_of_a_batch_changes_a_sentence(settings, extra):
    model = make(settings)
    source, lengths, target = text()
    with torch.no_grad():
        wide = functional.pad(source, (0, extra), value=17)
        together = model.decode(target, model.encode(wide, lengths))
        for row, length in enumerate(lengths.tolist()):
            memory = model.encode(source[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(model.decode(target[row : row + 1], memory)[0], together[row])


def test_padding_gets_exactly_no_gradient(settings):
    model = make(settings, share="none")  # a shared output projection gives every token a gradient
    source, lengths, target = text()
    source[torch.arange(7) >= lengths[:, None]] = 3  # a token that stands nowhere else
    model.logits(model.decode(target, model.encode(source, lengths))).sin().sum().backward()
    embedding = model.source_embedding
    weight = embedding.weight if isinstance(embedding, nn.Embedding) else embedding.token.weight
    assert (weight.grad[3] == 0).all()
    assert (weight.grad[source[0]].abs().sum(1) > 0).all()


@torch.no_grad()
def test_steps_equal_decode_whatever_search_does(settings):
    model = make(settings)
    source, lengths, _ = text()
    state, sentences, width = model.start(model.encode(source, lengths)), torch.arange(3), 1
    prefix = torch.zeros(3, 0, dtype=torch.long)
    for t in range(19):
        prefix = torch.cat([prefix, torch.randint(4, 29, (len(prefix), 1))], dim=1)
        hidden, state = model.step(prefix[:, -1], state)
        rows = sentences.repeat_interleave(width)
        expected = model.decode(prefix, model.encode(source[rows], lengths[rows]))
        torch.testing.assert_close(hidden, expected[:, -1])
        torch.testing.assert_close(model.logits(hidden), model.logits(expected)[:, -1])
        chosen = torch.randint(width, (len(sentences), 5)) + torch.arange(len(sentences))[:, None] * width
        width, staying = 5, {3: [0, 2], 11: [1]}.get(t)
        if staying is not None:
            chosen, sentences = chosen[staying], sentences[staying]
        state = state.select(chosen.flatten(), None if staying is None else torch.tensor(staying))
        prefix = prefix[chosen.flatten()]
    assert sentences.tolist() == [2]


@torch.no_grad()
def test_draws_of_a_sentence_may_begin_together(settings):
    model = make(settings)
    source, lengths, _ = text()
    token = torch.randint(4, 29, (12,))
    hidden, _ = model.step(token, model.start(model.encode(source, lengths)))
    rows = torch.arange(3).repeat_interleave(4)
    expected = model.decode(token[:, None], model.encode(source[rows], lengths[rows]))
    torch.testing.assert_close(hidden, expected[:, 0])


@pytest.mark.parametrize("config", [SearchConfig(beam=4, n_best=3), SearchConfig(n_best=2, beam=2, sample=True)])
def test_translations_do_not_depend_on_the_batch_and_have_the_score_that_scoring_finds(
    settings, toy_vocabulary, config
):
    size = toy_vocabulary.sizes[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = build_model(ModelConfig(**{**SIZES, **settings, "max_positions": 200}), size, size).eval()
    translator = Translator(model, toy_vocabulary, config)
    lines = ["the cat sees a dog", "und", "", "a house and a tree finds the dog"]
    found = [list(translator.translate(lines, batch=batch, align=True)) for batch in (1, 3)]
    for one, other in zip(*found, strict=True):
        assert [output.ids for output in one] == [output.ids for output in other]
    flat = [(line, output) for line, outputs in zip(lines, found[0], strict=True) for output in outputs if output.ids]
    sources = toy_vocabulary.encode_source([line for line, _ in flat])
    again = translator.score_ids(sources, [output.ids for _, output in flat])
    assert [output.log_probability for _, output in flat] == pytest.approx([o.log_probability for o in again], abs=1e-3)
    attends = settings["family"] != "lstm"
    assert any(output.alignment for _, output in flat) == attends


def test_recorded_attention_is_a_distribution_over_what_is_not_padding(settings):
    model = make(settings)
    source, lengths, target = text()
    with torch.no_grad(), recording(model) as maps:
        model.decode(target, model.encode(source, lengths))
    layers = {"lstm": 0, "lstm-attention": 1, "convolution": model.config.decoder_layers}[model.config.family]
    assert list(maps) == [f"cross.{n}" for n in range(layers)]
    for uses in maps.values():
        torch.testing.assert_close(uses[0].sum(-1), torch.ones(3, 1, 11, dtype=torch.float64))
        assert (uses[0][2, :, :, 2:] == 0).all()


def test_parameters_by_formula_are_those_that_the_model_has(settings):
    model = make(settings)
    counted = parameters(model.config, 29, 29)
    assert sum(counted.values()) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.usefixtures("products_by_torch")
def test_flops_by_formula_are_those_that_torch_counts(settings):
    model = make(settings, dtype=torch.float32)
    if settings["family"] != "convolution":
        for stack in (model.encoder, model.decoder):
            _with_cells(stack)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        memory = model.encode(torch.randint(29, (1, 11)), torch.tensor([11]))
        model.logits(model.decode(torch.randint(29, (1, 7)), memory))
    expected = forward_flops(model.config, 29, 11, 7)
    assert counter.get_total_flops() == sum(expected.values())
    assert search_flops(model.config, 29, 11, 7, 4)["decoder"] == 4 * expected["decoder"]


def test_lstm_layers_equal_torchs_cells(settings):
    if settings["family"] == "convolution":
        pytest.skip("has its own second implementation below")
    model, other = make(settings), make(settings)
    for stack in (other.encoder, other.decoder):
        _with_cells(stack)
    source, _, target = text((7,))
    with torch.no_grad():
        one, two = (each.decode(target, each.encode(source, torch.tensor([7]))) for each in (model, other))
    torch.testing.assert_close(one, two)


def test_the_lstm_without_attention_reads_backwards():
    model = make(KINDS["lstm"])
    source, lengths, _ = text()
    with torch.no_grad():
        _, last = model.encoder(model._embed(model.source_embedding, source[1:2, :5].flip(1)), None, torch.tensor([5]))
        memory = model.encode(source, lengths)
    for one, other in zip(last, memory.last, strict=True):
        torch.testing.assert_close(one[0][:, 0], other[0][:, 1])


def test_a_gated_convolution_equals_a_naive_one():
    model = make(KINDS["convolution"])
    layer, x = model.encoder[0], torch.randn(2, 9, 14, dtype=torch.float64)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    with torch.no_grad():
        found = layer(x)
        for position in range(7):
            gates = bias + sum(x[:, position + k] @ weight[:, :, k].T for k in range(3))
            expected = gates[:, :14] * gates[:, 14:].sigmoid()
            torch.testing.assert_close(found[:, position], expected)


def test_each_family_learns_and_narrow_copies_compute_nearly_the_same(settings):
    model = make(settings, dtype=torch.float32, dropout=0.1).train()
    batch = batch_of([[5, 6, 7, 3], [8, 3]], [[9, 3], [10, 11, 12, 13, 3]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.manual_seed(3)  # of dropout: else what other tests drew would decide
    losses = []
    for _ in range(40):
        loss = batch_loss(model, batch, 0.0).smoothed
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    narrow = copy.deepcopy(model.eval()).bfloat16()
    loss = batch_loss(narrow, batch, 0.0).smoothed
    assert loss.item() == pytest.approx(batch_loss(model, batch, 0.0).smoothed.item(), rel=0.2, abs=0.3)


def test_gradients_in_bfloat16_are_nearly_those_in_float32(settings):
    model = make(settings, dtype=torch.float32)  # before it has learned: after, the loss is nearly nothing
    narrow = copy.deepcopy(model).bfloat16()
    batch = batch_of([[5, 6, 7, 3], [8, 3]], [[9, 3], [10, 11, 12, 13, 3]])
    gradients = []
    for each in (model, narrow):
        batch_loss(each, batch, 0.0).smoothed.backward()
        gradients.append(torch.cat([parameter.grad.float().flatten() for parameter in each.parameters()]))
    assert (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"family": "lstm", "decoder_layers": 2}, "same number"),
        ({"family": "lstm", "encoder_layers": 0}, "at least 1"),
        ({"family": "lstm-attention", "d_model": 13}, "even"),
        ({"family": "convolution", "kernel": 1}, "at least 2"),
        ({"family": "convolution", "dropout": 1.0}, "between 0 and 0.99"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(HeedfulError, match=words):
        make(settings)


def _with_cells(stack):
    """Have a stack compute with torch's cells, one step after the other."""
    layers = list(stack.layers)

    def run(layer, x, state):
        ways = 2 if layer.bidirectional else 1
        outs, hiddens, cells = [], [], []
        for way, suffix in zip(range(ways), ("", "_reverse"), strict=False):
            cell = nn.LSTMCell(layer.input_size, layer.hidden_size).to(x.dtype)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(cell, name, getattr(layer, f"{name}_l0{suffix}"))
            now = tuple(part[way] for part in state) if state else None
            order = range(x.size(1)) if way == 0 else range(x.size(1) - 1, -1, -1)
            out = {}
            for t in order:
                now = cell(x[:, t], now)
                out[t] = now[0]
            outs.append(torch.stack([out[t] for t in range(x.size(1))], dim=1))
            hiddens.append(now[0])
            cells.append(now[1])
        return torch.cat(outs, -1), (torch.cat(hiddens, -1)[None], torch.cat(cells, -1)[None])

    def forward(x, first=None, lengths=None):
        last = []
        for number, layer in enumerate(layers):
            out, state = run(layer, x, first[number] if first else None)
            last.append(state)
            x = out + x if stack.residuals and number else out
        return x, last

    stack.forward = forward
