"""What the paper says of embeddings, positions, stacks, sharing, sizes, cost and dropout."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from heedful.errors import HeedfulError
from heedful.inspection.cost import forward_flops, parameters
from heedful.model.dropout import Dropout
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Residual, Transformer, sinusoids

SOURCE, TARGET = 31, 29


@pytest.mark.parametrize("d_model", [14, 13])
@pytest.mark.parametrize("first", [0, 1])
def test_sinusoids_are_the_papers_formula(d_model, first):
    table = sinusoids(19, d_model, first)
    for row in range(19):
        for column in range(d_model):
            angle = (row + first) / 10000 ** ((column - column % 2) / d_model)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[row, column].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 7, 101])
def test_a_shifted_position_is_one_linear_map_of_the_position(k):
    """Section 3.5: "for any fixed offset k, PE(pos + k) can be represented as a linear function of PE(pos)"."""
    d_model, table = 22, sinusoids(307, 22)
    shift = torch.zeros(d_model, d_model)
    for i in range(0, d_model, 2):
        angle = k / 10000 ** (i / d_model)
        cos, sin = math.cos(angle), math.sin(angle)
        shift[i : i + 2, i : i + 2] = torch.tensor([[cos, sin], [-sin, cos]])
    torch.testing.assert_close(table[:-k] @ shift.T, table[k:], rtol=0, atol=2e-5)


@torch.no_grad()
def test_embeddings_are_scaled_by_the_root_of_d_model_and_positions_added(tiny_model):
    embedding = tiny_model().source_embedding
    token = torch.randint(29, (3, 11))
    expected = embedding.token.weight[token] * 14**0.5 + sinusoids(11, 14)
    torch.testing.assert_close(embedding(token), expected)
    torch.testing.assert_close(embedding(token[:, 5:], start=5), expected[:, 5:])


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@torch.no_grad()
def test_first_position_one_shifts_every_position_by_one(tiny_model, positions):
    zero, one = (tiny_model(positions=positions, first_position=first).source_embedding for first in (0, 1))
    token = torch.randint(29, (3, 12))
    shifted = one(token[:, :-1]) - one.token(token[:, :-1]) * one.scale
    straight = zero(token) - zero.token(token) * zero.scale
    torch.testing.assert_close(shifted, straight[:, 1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [257, 601])
@pytest.mark.parametrize("first", [0, 1])
@torch.no_grad()
def test_positions_extend_beyond_the_table_as_if_it_had_been_longer(tiny_model, length, first):
    embedding = tiny_model(first_position=first).source_embedding
    token = torch.full((1, length), 7)
    expected = embedding.token.weight[token] * embedding.scale + sinusoids(length, 14, first)
    torch.testing.assert_close(embedding(token), expected)
    torch.testing.assert_close(embedding(token[:, :1], start=length - 1), expected[:, -1:])


@pytest.mark.parametrize("first", [0, 1])
def test_more_tokens_than_learned_positions_are_refused_in_words(tiny_model, first):
    model = tiny_model(positions="learned", first_position=first)
    most = 97 - first
    model.encode(torch.full((1, most), 5), torch.tensor([most]))
    with pytest.raises(HeedfulError, match=f"learned {most} positions"):
        model.encode(torch.full((1, most + 1), 5), torch.tensor([most + 1]))


@torch.no_grad()
def test_without_positions_permuting_source_tokens_permutes_encoder_outputs(tiny_model):
    source, lengths = torch.randint(4, 29, (3, 11)), torch.full((3,), 11)
    order = torch.randperm(11)

    def difference(positions):
        model = tiny_model(positions=positions, dtype=torch.float64)
        straight = model.encode(source, lengths).states_BSD[:, order]
        return (straight - model.encode(source[:, order], lengths).states_BSD).abs().max().item()

    assert difference("sinusoidal") > 1e-3, "positions count"
    assert difference("none") < 1e-12


@torch.no_grad()
def test_with_rotary_alone_the_encoder_knows_order(tiny_model):
    model = tiny_model(positions="none", rotary=True, d_k=6)
    source, lengths, order = torch.randint(4, 29, (3, 11)), torch.full((3,), 11), torch.randperm(11)
    straight = model.encode(source, lengths).states_BSD[:, order]
    assert (straight - model.encode(source[:, order], lengths).states_BSD).abs().max() > 1e-3


@pytest.mark.parametrize("normalization", ["post", "pre"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("share", ["all", "target", "none"])
def test_every_parameter_gets_a_gradient(tiny_model, normalization, positions, share):
    model = tiny_model(normalization=normalization, positions=positions, share=share)
    hidden = model.decode(torch.randint(29, (3, 7)), model.encode(torch.randint(29, (3, 11)), torch.tensor([11, 5, 2])))
    model.logits(hidden).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("share", "distinct"), [("all", 1), ("target", 2), ("none", 3)])
def test_tied_weights_are_one_storage(tiny_model, share, distinct):
    model = tiny_model(share=share)
    source, target = model.source_embedding.token.weight, model.target_embedding.token.weight
    assert len({weight.data_ptr() for weight in (source, target, model.output.weight)}) == distinct
    assert (target.data_ptr() == model.output.weight.data_ptr()) == (share != "none")
    assert (source.data_ptr() == target.data_ptr()) == (share == "all")


@pytest.mark.parametrize("share", ["all", "target"])
def test_tied_weights_stay_tied_when_the_model_moves_or_changes_type(tiny_model, share):
    model = tiny_model(share=share).to(torch.bfloat16).to(torch.float64)
    assert model.output.weight is model.target_embedding.token.weight


@pytest.mark.parametrize(("normalization", "final"), [("post", 0), ("pre", 2)])
def test_a_pair_of_layers_has_five_residual_connections_and_five_norms(tiny_model, normalization, final):
    model = tiny_model(encoder_layers=1, decoder_layers=1, normalization=normalization)
    calls = []
    for module in model.modules():
        if isinstance(module, Residual | nn.LayerNorm):
            module.register_forward_hook(lambda module, args, output: calls.append(module))
    model.decode(torch.randint(29, (2, 3)), model.encode(torch.randint(29, (2, 5)), torch.tensor([5, 5])))
    assert sum(isinstance(module, Residual) for module in calls) == 5
    assert sum(isinstance(module, nn.LayerNorm) for module in calls) == 5 + final


@pytest.mark.parametrize("normalization", ["post", "pre"])
@torch.no_grad()
def test_a_residual_is_the_formula_of_its_normalization(normalization):
    residual = Residual(ModelConfig(d_model=14, dropout=0.0, normalization=normalization))
    x, weight = torch.randn(3, 5, 14), torch.randn(14, 14)
    expected = x + residual.norm(x) @ weight if residual.pre else residual.norm(x + x @ weight)
    torch.testing.assert_close(residual(x, lambda y: y @ weight), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share": "target"},
        {"share": "none", "normalization": "pre"},
        {"share": "none", "positions": "learned", "max_positions": 41},
        {"rotary": True, "d_k": 6},
        {"d_k": 0, "d_v": 0},
        {"encoder_layers": 3, "decoder_layers": 1, "heads": 1, "d_ff": 7},
    ],
)
def test_parameters_counted_on_paper_are_the_models(tiny_model, changes):
    source = TARGET if changes.get("share", "all") == "all" else SOURCE
    model = tiny_model(source_size=source, target_size=TARGET, **changes)
    counted = parameters(model.config, source, TARGET)
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())
    stacks = {"encoder": (model.encoder, model.encoder_norm), "decoder": (model.decoder, model.decoder_norm)}
    for part, modules in stacks.items():
        assert counted[part] == sum(p.numel() for module in modules for p in module.parameters())


def test_the_base_model_has_the_parameters_derived_by_hand():
    """Table 3 says 65 x 10^6 for the base model; 37,000 joint subwords (5.1), shared three ways (3.4).

    embeddings                                    37,000 x 512                        = 18,944,000
    attention: W^Q, W^K, W^V, W^O                 4 x 512 x 512                       =  1,048,576
    feed-forward: W_1, W_2, b_1, b_2              2 x 512 x 2048 + 2048 + 512         =  2,099,712
    layer norm: gain and bias                     2 x 512                             =      1,024
    encoder layer: 1 attention, 1 FFN, 2 norms    1,048,576 + 2,099,712 + 2,048       =  3,150,336   x 6 = 18,902,016
    decoder layer: 2 attentions, 1 FFN, 3 norms   2,097,152 + 2,099,712 + 3,072       =  4,199,936   x 6 = 25,199,616
    in all                                        18,944,000 + 18,902,016 + 25,199,616 = 63,045,632
    """
    with torch.device("meta"):
        model = Transformer(ModelConfig(), 37_000, 37_000)
    count = sum(p.numel() for p in model.parameters())
    assert count == 63_045_632 == sum(parameters(model.config, 37_000, 37_000).values())
    assert count == pytest.approx(65e6, rel=0.04)


def test_the_big_model_is_as_big_as_the_papers():
    config = ModelConfig(d_model=1024, d_ff=4096, heads=16, dropout=0.3)
    with torch.device("meta"):
        model = Transformer(config, 37_000, 37_000)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(213e6, rel=0.04)


@pytest.mark.usefixtures("products_by_torch")
@pytest.mark.parametrize("changes", [{}, {"d_k": 0, "d_v": 0}, {"decoder_layers": 1, "normalization": "pre"}])
@pytest.mark.usefixtures("without_compiler")
def test_flops_by_formula_are_those_that_torch_counts(tiny_model, changes):
    model = tiny_model(**changes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        memory = model.encode(torch.randint(29, (1, 11)), torch.tensor([11]))
        model.logits(model.decode(torch.randint(29, (1, 7)), memory))
    expected = sum(forward_flops(model.config, 29, 11, 7).values())
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_widths_of_keys_and_values_are_free(tiny_model):
    attention = tiny_model(d_model=15, heads=2, d_k=11, d_v=17).decoder[0].cross_attention
    shapes = [tuple(getattr(attention, name).weight.shape) for name in ("query", "key", "value", "output")]
    assert shapes == [(22, 15), (22, 15), (34, 15), (15, 34)]


@pytest.mark.parametrize(
    "changes",
    [
        {"d_model": 15, "d_k": 0, "d_v": 0},
        {"d_model": 15, "d_k": 5, "d_v": 0},
        {"encoder_layers": 0},
        {"decoder_layers": 0},
        {"d_ff": 0},
        {"d_model": 0},
        {"heads": -1},
        {"source_size": SOURCE, "share": "all"},
        {"heads": 0, "d_k": 0, "d_v": 0},
        {"rotary": True},  # of SIZES, whose d_k is odd
        {"d_k": -3},
        {"dropout": 1.0},
    ],
)
def test_sizes_that_do_not_fit_are_refused(tiny_model, changes):
    with pytest.raises(HeedfulError, match="model"):
        tiny_model(**changes)


# Dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("compiled_or_not")
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("shape", [(100_003,), (47, 43, 53)])
def test_dropout_zeroes_at_its_rate_and_keeps_the_expectation(p, shape):
    torch.manual_seed(1)
    y = Dropout(p)(torch.ones(shape))
    deviation = 5 * math.sqrt(p * (1 - p) / y.numel())
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=deviation + 1 / 512)
    assert y.mean().item() == pytest.approx(1.0, abs=deviation / (1 - p))
    assert len(y.unique()) == 2, "survivors are scaled alike"


@pytest.mark.usefixtures("compiled_or_not")
def test_the_expectation_is_exact_for_the_rate_that_is_used():
    # A threshold off by one would drop 1/256 more than survivors are scaled for; enough draws tell them apart.
    torch.manual_seed(2)
    y = Dropout(0.25)(torch.ones(4_000_037))
    assert y.mean().item() == pytest.approx(1.0, abs=5 * math.sqrt(1 / 3 / y.numel()))


@pytest.mark.usefixtures("compiled_or_not")
def test_what_survives_dropout_in_bfloat16_is_scaled_by_the_whole_scale():
    torch.manual_seed(1)
    x = (torch.rand(200_000) + 0.5).bfloat16()
    y = Dropout(0.1)(x)
    kept = y != 0
    assert y[kept].double().sum() / x[kept].double().sum() == pytest.approx(256 / 230, rel=5e-4)


@pytest.mark.usefixtures("compiled_or_not")
def test_dropout_drops_each_element_independently():
    torch.manual_seed(3)
    kept = (Dropout(0.5)(torch.ones(20_011, 8)) > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(20_011)


@pytest.mark.usefixtures("compiled_or_not")
def test_the_gradient_of_dropout_has_its_mask():
    x = torch.randn(1009, requires_grad=True)
    y = Dropout(0.3)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    assert 0 < (gradient == 0).sum() < 1009


@pytest.mark.usefixtures("compiled_or_not")
def test_the_number_of_threads_does_not_change_what_is_dropped():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(6)
            found.append(Dropout(0.3)(torch.ones(100_003)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.usefixtures("compiled_or_not")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_dropped_out_of_can_be_added_to_something_else(dtype):
    x, onto = (torch.randn(7, 149, dtype=dtype).requires_grad_() for _ in range(2))
    dropout = Dropout(0.3)
    torch.manual_seed(5)
    dropped = dropout(x)
    torch.manual_seed(5)
    summed = dropout(x, onto=onto)
    tolerance = 2**-7 if dtype == torch.bfloat16 else 1e-6  # compiled, it is rounded once
    torch.testing.assert_close(summed, onto + dropped, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(x)
    to_x, to_onto = torch.autograd.grad(summed, (x, onto), upstream)
    assert torch.equal(to_onto, upstream)
    torch.testing.assert_close(to_x, upstream * (dropped != 0) / (1 - 77 / 256), rtol=tolerance, atol=tolerance)
    assert torch.equal(dropout.eval()(x, onto=onto), onto + x)


def test_dropout_is_nothing_in_evaluation_or_at_zero():
    x = torch.randn(101)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_a_model_drops_out_in_training_and_only_there(tiny_model):
    model = tiny_model(dropout=0.3)
    source, lengths = torch.randint(29, (3, 11)), torch.tensor([11, 5, 2])
    assert torch.equal(model.encode(source, lengths)[0], model.encode(source, lengths)[0])
    model.train()
    assert not torch.equal(model.encode(source, lengths)[0], model.encode(source, lengths)[0])


def test_dropout_stands_where_the_paper_puts_it(tiny_model):
    """5.4: on the output of each sublayer and on both embedding sums; nowhere else unless asked for."""
    model = tiny_model(encoder_layers=1, decoder_layers=1, dropout=0.3)
    active = sorted(name for name, m in model.named_modules() if isinstance(m, Dropout) and m.p > 0)
    residuals = [f"encoder.0.residuals.{i}.dropout" for i in range(2)]
    residuals += [f"decoder.0.residuals.{i}.dropout" for i in range(3)]
    assert active == sorted([*residuals, "source_embedding.dropout", "target_embedding.dropout"])


@torch.no_grad()
def test_tied_layers_compute_what_copies_of_one_layer_compute(tiny_model):
    tied = tiny_model(encoder_layers=3, decoder_layers=3, tied_layers=2)
    apart = tiny_model(seed=2, encoder_layers=3, decoder_layers=3)
    apart.load_state_dict(tied.state_dict())  # holds a tied layer under each of its names
    text = torch.randint(4, 29, (3, 7)), torch.tensor([7, 5, 2])
    found, expected = (model.decode(text[0], model.encode(*text)) for model in (tied, apart))
    torch.testing.assert_close(found, expected)
    with recording(tied) as maps:
        tied.decode(text[0], tied.encode(*text))
    assert len(maps) == 9
    assert all(len(uses) == 1 for uses in maps.values())  # each layer's own, though two are one module
    with recording(tied, "cross.1") as one:
        tied.decode(text[0], tied.encode(*text))
    assert list(one) == ["cross.1"]
    torch.testing.assert_close(one["cross.1"], maps["cross.1"])
    counted = parameters(tied.config, 29, 29)
    assert (
        sum(counted.values()) == sum(p.numel() for p in tied.parameters()) < sum(p.numel() for p in apart.parameters())
    )


def test_layers_are_left_out_in_training_only_and_as_often_as_said(tiny_model):
    model = tiny_model(encoder_layers=5, layer_dropout=0.25)
    assert model._present(model.encoder) == list(model.encoder)
    model.train()
    torch.manual_seed(3)
    present = sum(len(model._present(model.encoder)) for _ in range(400)) / 2000
    assert 0.72 < present < 0.78
