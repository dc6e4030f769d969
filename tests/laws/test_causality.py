"""Promise 1: what comes later changes nothing before it, neither by value nor by gradient."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("each_way")
CHOICES = pytest.mark.parametrize(
    "choices",
    [
        *(
            {"normalization": norm, "positions": kind}
            for norm in ("post", "pre")
            for kind in ("sinusoidal", "learned", "none")
        ),
        {"rotary": True, "d_k": 6},
    ],
)


def example(model, length=11):
    torch.manual_seed(5)
    memory = model.encode(torch.randint(4, 29, (3, 7)), torch.tensor([7, 5, 2]))
    return torch.randint(4, 29, (3, length)), memory


@CHOICES
def test_changing_a_token_leaves_every_earlier_state_bit_equal(tiny_model, choices):
    model = tiny_model(**choices)
    target, memory = example(model)
    with torch.no_grad():
        before = model.decode(target, memory)
        for t in range(target.size(1)):
            changed = target.clone()
            changed[:, t] = (changed[:, t] + 1) % 29
            after = model.decode(changed, memory)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.isclose(after[:, t], before[:, t]).all(), "a state sees its own token"


@CHOICES
def test_the_gradient_of_a_state_is_exactly_zero_at_every_later_token(tiny_model, choices):
    model = tiny_model(**choices)
    embedded = []
    model.target_embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    target, memory = example(model)
    hidden = model.decode(target, memory)
    weight = torch.randn(hidden.size(-1))  # a plain sum would be constant under a layer norm
    for t in range(target.size(1)):
        (gradient,) = torch.autograd.grad((hidden[:, t] @ weight).sum(), embedded[0], retain_graph=True)
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[:, : t + 1].abs().sum(-1) > 0).all(), "and it sees all that came before"


def test_the_encoder_does_look_ahead(tiny_model):
    model = tiny_model()
    source, lengths = torch.randint(4, 29, (1, 7)), torch.tensor([7])
    changed = source.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 29
    assert not torch.equal(
        model.encode(source, lengths).states_BSD[:, 0], model.encode(changed, lengths).states_BSD[:, 0]
    )
