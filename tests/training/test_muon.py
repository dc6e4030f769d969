import pytest
import torch
from torch import nn

from heedful.model.settings import ModelConfig
from heedful.model.transformer import Transformer
from heedful.training.loop import make_optimizer
from heedful.training.muon import ADAM_SIZE, Muon, matrices_of, orthogonal
from heedful.training.settings import TrainingConfig

CONFIG = ModelConfig(encoder_layers=2, decoder_layers=1, d_model=14, d_ff=29, heads=2, dropout=0.0)


def parameter(*shape, seed=1):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("products", "blur"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", [(3, 17, 17), (2, 29, 11), (2, 11, 29)])
def test_singular_values_are_brought_near_to_one_and_directions_kept(shape, products, blur):
    given = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    made = orthogonal(given, products)
    assert made.dtype == given.dtype
    left, values, right = torch.linalg.svd(given, full_matrices=False)
    in_its_frame = left.mT @ made @ right.mT
    diagonal = in_its_frame.diagonal(dim1=1, dim2=2)
    clear = values > 0.1 * values[:, :1]  # five repetitions cannot lift what is almost nothing
    assert diagonal[clear].min() > 0.6
    assert diagonal.max() < 1.25
    torch.testing.assert_close(in_its_frame, torch.diag_embed(diagonal), atol=blur, rtol=0)


def test_a_gradient_of_nothing_gives_no_update():
    assert torch.equal(orthogonal(torch.zeros(1, 7, 5)), torch.zeros(1, 7, 5))


def test_updates_agree_with_those_of_torch():
    """torch's own Muon multiplies in bfloat16, hence the wide tolerance."""
    ours, theirs = parameter(23, 17), parameter(23, 17)
    rate, start = 0.01, ours.detach().clone()
    mine = Muon([ours], [parameter(3)], lr=rate, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=rate, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for seed in (2, 3, 5):
        gradient = torch.randn(23, 17, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    torch.testing.assert_close(ours - start, theirs - start, atol=0.1 * 3 * rate, rtol=0)
    assert torch.cosine_similarity((ours - start).flatten(), (theirs - start).flatten(), dim=0) > 0.99


def test_an_update_is_as_large_as_one_of_adam():
    matrix = parameter(64, 48)
    start = matrix.detach().clone()
    optimizer = Muon([matrix], [parameter(3)], lr=1.0, weight_decay=0.0)
    matrix.grad = parameter(64, 48, seed=2).detach()
    optimizer.step()
    assert (matrix - start).square().mean().sqrt().item() == pytest.approx(ADAM_SIZE, rel=0.2)


def test_linear_layers_go_to_muon_and_embeddings_norms_and_biases_to_adam():
    model = Transformer(CONFIG, 23, 23)
    matrices = {id(p) for p in matrices_of(model, model.output)}
    names = {name for name, p in model.named_parameters() if id(p) in matrices}
    assert {"encoder.0.self_attention.query.weight", "decoder.0.feed_forward.outer.weight"} <= names
    assert not [name for name in names if "embedding" in name or "norm" in name or "bias" in name]
    optimizer = make_optimizer(model, TrainingConfig(optimizer="muon"))
    by_adam = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert matrices.isdisjoint(by_adam)
    assert matrices | by_adam == {id(p) for p in model.parameters()}
