"""What can be told about one translation: each number is the model's own."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from heedful.data.batches import batch_of
from heedful.decoding.hypothesis import length_penalty
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.inspection.attention_page import attention_page
from heedful.inspection.attention_plot import plot_attention
from heedful.model.family import build_model
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.translator import Translator

TEXT = "the cat sees a dog"
FAMILIES = pytest.mark.parametrize("family", ["transformer", "lstm", "lstm-attention", "convolution"])


def translator(vocabulary, family="transformer", **changes):
    size = vocabulary.sizes[0]
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "d_ff": 32, "heads": 4, "dropout": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = build_model(ModelConfig(family=family, **sizes), size, size).eval()
    return Translator(model, vocabulary, SearchConfig(beam=3, n_best=2, max_extra=3, **changes))


@FAMILIES
def test_an_explanation_is_of_the_translation_that_translate_gives(toy_vocabulary, family):
    made = translator(toy_vocabulary, family)
    found, [expected] = made.explain(TEXT), list(made.translate([TEXT], align=True))
    assert found.text == expected[0].text
    assert [text for text, _ in found.alternatives] == [output.text for output in expected]
    assert sum(found.log_probabilities) == pytest.approx(expected[0].log_probability, abs=1e-3)
    penalty = length_penalty(len(found.target_pieces), made.search.length_penalty)
    assert found.score == pytest.approx(sum(found.log_probabilities) / penalty, abs=1e-3)
    assert found.alignment == expected[0].alignment
    assert found.source_pieces[-1] == found.target_pieces[-1] == "</s>"


@FAMILIES
def test_attention_has_the_documented_shapes_and_rows_that_add_up(toy_vocabulary, family):
    found = translator(toy_vocabulary, family).explain(TEXT)
    source, target = len(found.source_pieces), len(found.target_pieces)
    heads = 4 if family == "transformer" else 1
    shapes = {"encoder": (heads, source, source), "decoder": (heads, target, target), "cross": (heads, target, source)}
    kinds = {"transformer": 3, "lstm": 0}.get(family, 1)
    assert len({name.split(".")[0] for name in found.attention}) == kinds
    for name, weights in found.attention.items():
        assert weights.shape == shapes[name.split(".")[0]]
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        if name.startswith("decoder"):
            assert (np.triu(weights, 1) == 0).all()


def test_what_is_shown_for_a_piece_is_what_was_attended_to_when_it_was_chosen(toy_vocabulary):
    """Later pieces change nothing: the weights of a step are those of the whole."""
    made = translator(toy_vocabulary)
    found = made.explain(TEXT)
    [source] = toy_vocabulary.encode_source([TEXT])
    ids = next(iter(made.translate([TEXT])))[0].ids
    for length in range(1, len(ids)):
        batch = batch_of([source], [ids[:length]])
        with torch.inference_mode(), recording(made.model) as maps:
            made.model.decode(batch.target_in_BT, made.model.encode(batch.source_BS, batch.source_lengths_B))
        for name in ("cross.0", "cross.1"):
            np.testing.assert_allclose(maps[name][0][0].numpy(), found.attention[name][:, :length], atol=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_the_tree_holds_the_beam_and_the_way_to_the_best(toy_vocabulary, beam):
    made = translator(toy_vocabulary)
    config = SearchConfig(beam=beam, max_extra=3)
    found = made.explain(TEXT, config)
    tree = found.tree
    assert [branch.piece for branch in tree if branch.best] == found.target_pieces
    best = [number for number, branch in enumerate(tree) if branch.best]
    assert tree[best[-1]].ended
    assert tree[best[-1]].log_probability == pytest.approx(sum(found.log_probabilities), abs=1e-3)
    depth = []
    for branch in tree:
        assert branch.parent < len(depth)
        if branch.parent >= 0:
            assert not tree[branch.parent].ended
            assert branch.log_probability <= tree[branch.parent].log_probability + 1e-6
        depth.append(1 if branch.parent < 0 else depth[branch.parent] + 1)
    for level in range(1, max(depth) + 1):
        alive = [branch for branch, own in zip(tree, depth, strict=True) if own == level and not branch.ended]
        assert len(alive) <= beam


def test_every_output_of_the_beam_can_be_looked_into(toy_vocabulary):
    made = translator(toy_vocabulary)
    [expected] = made.translate([TEXT], SearchConfig(beam=3, n_best=3, max_extra=3))
    seen = [made.explain(TEXT, SearchConfig(beam=3, max_extra=3), rank=rank) for rank in (1, 2, 3)]
    assert [found.text for found in seen] == [output.text for output in expected]
    for rank, (found, output) in enumerate(zip(seen, expected, strict=True), start=1):
        assert found.rank == rank
        assert found.alternatives[rank - 1] == (found.text, found.score)
        assert sum(found.log_probabilities) == pytest.approx(output.log_probability, abs=1e-3)
        assert [branch.piece for branch in found.tree if branch.best] == found.target_pieces
        assert found.attention["cross.0"].shape == (4, len(output.ids), len(found.source_pieces))
    for rank in (0, 4):
        with pytest.raises(HeedfulError, match=f"no output of rank {rank}"):
            made.explain(TEXT, SearchConfig(beam=3, max_extra=3), rank=rank)


def test_an_empty_text_is_refused(toy_vocabulary):
    with pytest.raises(HeedfulError, match="nothing to explain"):
        translator(toy_vocabulary).explain("")


@pytest.mark.parametrize("family", ["transformer", "lstm-attention", "convolution"])
def test_heads_are_switched_off_one_by_one_and_all_of_a_layer(toy_vocabulary, family):
    made = translator(toy_vocabulary, family)
    source, target = torch.randint(4, 29, (2, 7)), torch.randint(4, 29, (2, 5))
    lengths = torch.tensor([7, 7])

    def hidden(model, source=source):
        with torch.no_grad():
            return model.decode(target, model.encode(source, lengths))

    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    everything = [f"cross.{n}" for n in range(1 if family == "lstm-attention" else 2)]
    assert not torch.allclose(hidden(made.without(everything[0]).model), hidden(made.model))
    deaf = made.without(*everything).model
    if family != "lstm-attention":  # whose decoder begins with the encoder's last states
        torch.testing.assert_close(hidden(deaf), hidden(deaf, torch.randint(4, 29, (2, 7))))
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.model.state_dict().items())
    if family == "transformer":
        one_by_one = made.without(*(f"cross.0.{head}" for head in range(4))).model
        assert torch.equal(hidden(one_by_one), hidden(made.without("cross.0").model))
        assert not torch.allclose(hidden(made.without("cross.0.2").model), hidden(made.without("cross.0.1").model))
        assert made.without("cross.0").explain(TEXT).score != made.explain(TEXT).score


@pytest.mark.parametrize("name", ["cross", "cross.2", "cross.0.4", "cross.0.x", "cross.0.1.1", "head.0"])
def test_a_head_that_is_not_there_is_refused_with_those_that_are(toy_vocabulary, name):
    with pytest.raises(HeedfulError, match=r"there are encoder\.0 \(heads 0 to 3\)"):
        translator(toy_vocabulary).without(name)


def test_the_page_is_one_file_whose_text_cannot_become_markup(toy_vocabulary):
    made = translator(toy_vocabulary)
    found = made.explain("</script><script>alert(1)</script> & <b>")
    page = attention_page(found)
    assert page.count("</script>") == 1, "only the page's own"
    assert "<b>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    data = page[page.index('querySelector("main"), ') + 23 : page.rindex(");\n</script>")]
    table = json.loads(data)
    assert table["source"] == found.source
    assert np.array(table["attention"]["cross.0"]).shape == found.attention["cross.0"].shape
    assert all(math.isfinite(branch["log_probability"]) for branch in table["tree"])


@pytest.mark.parametrize("kind", ["cross", "encoder", "decoder"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_has_a_panel_for_each_head(toy_vocabulary, tmp_path, kind, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"attention.{ending}"
    plot_attention(translator(toy_vocabulary).explain(TEXT), kind, path)
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<?xml" in start
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_picture_of_many_pieces_is_no_larger_than_one_can_open(toy_vocabulary, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("heedful.inspection.attention_plot.MOST_PIXELS", 40_000)
    plot_attention(translator(toy_vocabulary).explain(TEXT), "cross", tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[16:24]
    assert 20_000 < int.from_bytes(header[:4]) * int.from_bytes(header[4:]) <= 40_000


def test_pieces_that_look_like_mathematics_are_drawn_as_they_are(toy_vocabulary, tmp_path):
    pytest.importorskip("matplotlib")
    found = translator(toy_vocabulary).explain(TEXT)
    pieces = ["$$", r"$\no$", *found.source_pieces[2:]]
    plot_attention(replace(found, source_pieces=pieces), "cross", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").exists()


def test_attention_is_written_with_four_digits(toy_vocabulary):
    found = translator(toy_vocabulary).explain(TEXT)
    written = re.findall(r"\d\.\d+", json.dumps(found.to_table()["attention"]))
    assert len(written) > 100
    assert max(map(len, written)) == 6


def test_pictures_that_cannot_be_are_refused(toy_vocabulary, tmp_path):
    found = translator(toy_vocabulary, "lstm").explain(TEXT)
    with pytest.raises(HeedfulError, match="no cross attention"):
        plot_attention(found, "cross", tmp_path / "a.png")
    found = translator(toy_vocabulary).explain(TEXT)
    with pytest.raises(HeedfulError, match=r"/a\.gif: unknown kind of picture; .*\.png, \.svg"):
        plot_attention(found, "cross", tmp_path / "a.gif")
