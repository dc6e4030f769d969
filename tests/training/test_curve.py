"""What is fast in training changes nothing: its loss curve is that of a plain loop of torch's own parts."""

import copy

import pytest
import torch
from test_loop import SYMBOLS, OneBatch, random_batch, steps_of
from torch.nn import functional

from heedful.model import linear
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.text.vocabulary import PAD
from heedful.training.loop import train
from heedful.training.schedule import learning_rate
from heedful.training.settings import TrainingConfig

STEPS = 200


def plain_curve(model, batches, config):
    """Full logits, torch's loss, its fused attention, its Adam one tensor at a time."""
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, foreach=False, fused=False)
    losses = []
    for step in range(1, STEPS + 1):
        batch = batches[(step - 1) % len(batches)]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                config.schedule, step, STEPS, config.rate, config.warmup, config.decay, model.config.d_model
            )
        hidden = model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
        loss = functional.cross_entropy(
            model.logits(hidden).flatten(0, 1),
            batch.target_out_BT.flatten(),
            ignore_index=PAD,
            label_smoothing=config.label_smoothing,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("normalization", "rotary"), [("post", False), ("pre", False), ("pre", True)])
def test_two_hundred_steps_have_the_losses_of_a_plain_loop(tmp_path, monkeypatch, request, normalization, rotary):
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 32, "d_ff": 61, "heads": 4, "dropout": 0.0}
    torch.manual_seed(3)
    model = Transformer(ModelConfig(**sizes, normalization=normalization, rotary=rotary), SYMBOLS, SYMBOLS)
    plain = copy.deepcopy(model)
    batches = [random_batch(rows=7, seed=seed) for seed in range(11)]
    config = TrainingConfig(
        steps=STEPS, schedule="cosine", rate=2e-3, warmup=20, checkpoint_every=STEPS, precision="float32"
    )
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: known)  # on this processor or not
    fast = [record.loss for record in steps_of(train(model, OneBatch(*batches), config, tmp_path))]
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)
    request.getfixturevalue("without_compiler")  # nothing of ours that is compiled
    monkeypatch.setattr("heedful.model.transformer.SHORT", 0)  # scaled_dot_product_attention everywhere
    slow = plain_curve(plain, batches, config)
    assert slow[-1] < slow[0] / 1.3, "it learns"
    assert fast == pytest.approx(slow, rel=1e-5, abs=1e-5)
