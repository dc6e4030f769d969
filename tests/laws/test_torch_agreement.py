"""Promise 6: with the same weights, our layers are torch's."""

import pytest
import torch
from torch import nn

from heedful.model.settings import ModelConfig
from heedful.model.transformer import DecoderLayer, EncoderLayer

B, S, T, D, H, F = 3, 7, 5, 22, 2, 31
LENGTHS = torch.tensor([7, 4, 1])


def layers(ours_class, theirs_class, normalization):
    torch.manual_seed(11)
    config = ModelConfig(d_model=D, heads=H, d_ff=F, dropout=0.0, normalization=normalization)
    ours = ours_class(config).double()
    theirs = theirs_class(
        D, H, F, dropout=0.0, batch_first=True, norm_first=normalization == "pre", dtype=torch.float64
    )
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter) / 3)
        attentions = [(ours.self_attention, theirs.self_attn)]
        if ours_class is DecoderLayer:
            attentions.append((ours.cross_attention, theirs.multihead_attn))
        for mine, other in attentions:
            other.in_proj_weight.copy_(torch.cat([mine.query.weight, mine.key.weight, mine.value.weight]))
            other.in_proj_bias.zero_()
            other.out_proj.weight.copy_(mine.output.weight)
            other.out_proj.bias.zero_()
        theirs.linear1.load_state_dict(ours.feed_forward.inner.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.outer.state_dict())
        for number, residual in enumerate(ours.residuals, start=1):
            getattr(theirs, f"norm{number}").load_state_dict(residual.norm.state_dict())
    return ours, theirs


def assert_alike(one, other, inputs):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(one)
    gradients = [torch.autograd.grad(out, inputs, upstream, retain_graph=True) for out in (one, other)]
    for a, b in zip(*gradients, strict=True):
        assert a.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("normalization", ["post", "pre"])
def test_an_encoder_layer_equals_torchs(normalization, padded):
    ours, theirs = layers(EncoderLayer, nn.TransformerEncoderLayer, normalization)
    x = torch.randn(B, S, D, dtype=torch.float64, requires_grad=True)
    allowed = torch.arange(S) < LENGTHS[:, None] if padded else None
    one = ours(x, None if allowed is None else allowed[:, None, None])
    other = theirs(x, src_key_padding_mask=None if allowed is None else ~allowed)
    assert_alike(one, other, [x])
    weights = [ours.feed_forward.inner.weight, theirs.linear1.weight]
    torch.testing.assert_close(
        *(torch.autograd.grad(y[:, 0].square().sum(), w)[0] for y, w in zip((one, other), weights, strict=True)),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("normalization", ["post", "pre"])
def test_a_decoder_layer_equals_torchs(normalization, padded):
    ours, theirs = layers(DecoderLayer, nn.TransformerDecoderLayer, normalization)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(B, S, D, dtype=torch.float64, requires_grad=True)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    allowed = torch.arange(S) < LENGTHS[:, None] if padded else None
    one = ours(x, causal, memory, None if allowed is None else allowed[:, None, None])
    hidden = None if allowed is None else ~allowed
    other = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=hidden)
    assert_alike(one, other, [x, memory])
