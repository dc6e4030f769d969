"""An ensemble is the mean of its members' probabilities, in scoring and in every step of a search."""

import pytest
import torch

from heedful.decoding.settings import SearchConfig
from heedful.model.ensemble import Ensemble, members_of
from heedful.model.family import build_model
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.translator import Translator

SIZES = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, "d_ff": 23, "max_positions": 200}
FAMILIES = ("lstm", "transformer", "convolution", "lstm-attention")
LINES = ["the cat sees a dog", "und", "", "a house and a tree finds the dog"]


def member(family, seed=1, size=29, d_model=14):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(ModelConfig(family=family, d_model=d_model, **SIZES), size, size)
        with torch.no_grad():
            model.output.weight.mul_(9)  # opinions, that the members can differ in
    return model.eval()


def mixed(size=29):
    return Ensemble([member(family, seed, size, 10 + 2 * seed) for seed, family in enumerate(FAMILIES)]).eval()


@torch.no_grad()
def test_probabilities_are_the_mean_of_the_members():
    model = mixed()
    source, lengths, target = torch.randint(4, 29, (3, 7)), torch.tensor([7, 5, 2]), torch.randint(4, 29, (3, 6))
    found = model.logits(model.decode(target, model.encode(source, lengths))).exp()
    alone = [one.logits(one.decode(target, one.encode(source, lengths))).softmax(-1) for one in members_of(model)]
    assert len(alone) == 4
    assert not torch.allclose(alone[0], alone[1], atol=0.01)
    torch.testing.assert_close(found, sum(alone) / 4)


@pytest.mark.usefixtures("compiled_or_not")
@pytest.mark.parametrize("config", [SearchConfig(beam=4, n_best=3), SearchConfig(n_best=2, beam=2, sample=True)])
def test_search_finds_what_scoring_finds_whatever_is_in_the_batch(toy_vocabulary, config):
    translator = Translator(mixed(toy_vocabulary.sizes[0]), toy_vocabulary, config)
    found = [list(translator.translate(LINES, batch=batch)) for batch in (1, 3)]
    flat = [(line, output) for line, outputs in zip(LINES, found[0], strict=True) for output in outputs if output.ids]
    assert len(flat) >= 6
    assert [[output.ids for output in one] for one in found[0]] == [[output.ids for output in one] for one in found[1]]
    again = translator.score_ids(
        toy_vocabulary.encode_source([line for line, _ in flat]), [output.ids for _, output in flat]
    )
    assert [output.log_probability for _, output in flat] == pytest.approx([o.log_probability for o in again], abs=1e-3)


@pytest.mark.usefixtures("compiled_or_not")
def test_a_model_beside_itself_is_that_model(toy_vocabulary):
    one = member("transformer", size=toy_vocabulary.sizes[0])
    both = Ensemble([one, member("transformer", size=toy_vocabulary.sizes[0])])
    config = SearchConfig(beam=3, n_best=3)
    alone, twice = (list(Translator(model, toy_vocabulary, config).translate(LINES)) for model in (one, both))
    assert [[output.ids for output in found] for found in alone] == [
        [output.ids for output in found] for found in twice
    ]
    for first, second in zip(alone, twice, strict=True):
        assert [o.score for o in first] == pytest.approx([o.score for o in second], abs=1e-4)


def test_views_show_the_first_member_that_has_attention(toy_vocabulary):
    model = mixed(toy_vocabulary.sizes[0])
    source, lengths = torch.randint(4, 29, (1, 7)), torch.tensor([7])
    with torch.no_grad(), recording(model) as maps:
        model.decode(source, model.encode(source, lengths))
    assert {name.split(".")[0] for name in maps} == {"encoder", "decoder", "cross"}  # the Transformer's, the second one
    translator = Translator(model, toy_vocabulary)
    whole = translator.explain(LINES[0])
    assert whole.attention["cross.1"].shape == (2, len(whole.target_pieces), len(whole.source_pieces))
    switched_off = translator.without("cross.0", "cross.1")
    assert switched_off.explain(LINES[0]).log_probabilities != whole.log_probabilities
    for before, after in zip(members_of(model), members_of(switched_off.model), strict=True):
        same = all(torch.equal(x, y) for x, y in zip(before.parameters(), after.parameters(), strict=True))
        assert same == (before.config.family != "transformer")
