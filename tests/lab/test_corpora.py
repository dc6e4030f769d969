"""Where experiments find real text, what they say without it, and that they learn it by the program's own code."""

import pytest

from heedful.cli import lab
from heedful.errors import HeedfulError
from heedful.lab import corpora
from heedful.lab.experiment import Verdict, find, run_and_keep

TINY = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "d_ff": 32, "heads": 2, "dropout": 0.3}


@pytest.fixture
def data(toy_corpora, monkeypatch):
    monkeypatch.setenv(corpora.VARIABLE, str(toy_corpora))
    return toy_corpora


def learned(training, held_out, tokens=256, **changes):
    recipe = corpora.short_run({**TINY, **changes}, vocabulary=300, tokens=tokens, steps=3, seed=1)
    training_run = corpora.learn_text("toy", recipe, training, held_out, held_out)
    while True:
        try:
            assert next(training_run).startswith("toy: ")
        except StopIteration as finished:
            return finished.value


def test_a_split_is_read_as_pairs_without_empty_sides(data):
    before = corpora.read("tatoeba-en-de", "train")
    assert len(before) == 120
    assert all(source and target for source, target in before)
    path = data / "tatoeba-en-de" / "train.de"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text("\n" + text.split("\n", 1)[1], encoding="utf-8")
        assert corpora.read("tatoeba-en-de", "train") == before[1:]
    finally:
        path.write_text(text, encoding="utf-8")


def test_what_is_missing_is_said_with_the_remedy(data, tmp_path, monkeypatch):
    assert corpora.missing(corpora.SPLITS) == []
    monkeypatch.delenv(corpora.VARIABLE)
    assert corpora.missing(corpora.SPLITS) == [*corpora.SPLITS]
    (tmp_path / "multi30k-en-de").mkdir()  # a folder without its files is no corpus
    monkeypatch.setenv(corpora.VARIABLE, str(tmp_path))
    with pytest.raises(HeedfulError, match=r"no multi30k-en-de: give --data FOLDER.*HEEDFUL_DATA.*val\.en val\.de"):
        corpora.read("multi30k-en-de", "val")


def test_one_experiment_without_its_text_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.delenv(corpora.VARIABLE, raising=False)
    with pytest.raises(HeedfulError, match="--data FOLDER"):
        list(run_and_keep("table2", True, tmp_path / "lab"))
    assert not (tmp_path / "lab").exists()


def test_all_leaves_out_what_has_no_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(corpora.VARIABLE, "")
    monkeypatch.setattr(lab, "EXPERIMENTS", {"attention-steps": "", "table2": "", "data-size": ""})
    lab.run("all", quick=True, out=tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "table2 left out: no multi30k-en-de; give --data FOLDER" in said
    assert "data-size left out: no tatoeba-en-de; give --data FOLDER" in said
    assert [path.name for path in tmp_path.glob("*.json")] == ["attention-steps.json"]


def test_a_quick_run_of_all_is_refused_for_one_whole_result_before_any_other_runs(monkeypatch, tmp_path):
    monkeypatch.setenv(corpora.VARIABLE, "")
    monkeypatch.setattr(lab, "EXPERIMENTS", {"attention-steps": "", "table4": ""})
    (tmp_path / "table4.json").write_text('{"name": "table4", "settings": {}, "quick": false, "data": {}}')
    with pytest.raises(HeedfulError, match=r"table4\.json: the result of a whole run"):
        lab.run("all", quick=True, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table4.json"]


def test_the_folder_given_is_looked_in_and_the_list_says_what_is_read(toy_corpora, monkeypatch, capsys):
    monkeypatch.setenv(corpora.VARIABLE, "")  # so that what `run` sets is undone
    monkeypatch.setattr(lab, "EXPERIMENTS", {"table2": ""})
    monkeypatch.setattr(lab, "run_and_keep", lambda *_: iter(()))
    monkeypatch.setattr(lab, "read_results", lambda _: [{"name": "table2", "data": {}}])
    monkeypatch.setattr(lab, "write_report", lambda _: "page")
    monkeypatch.setattr(find("table2"), "verdict", lambda _: Verdict(True, "told"))
    lab.run("table2", data=toy_corpora)
    assert corpora.missing(["multi30k-en-de"]) == []
    lab.list()
    assert "reads multi30k-en-de (--data)" in capsys.readouterr().out


def test_training_is_counted_and_measured_without_dropout_and_smoothing(data):
    pairs = corpora.read("multi30k-en-de", "train")[:20]
    found = learned(pairs, pairs)  # the same text on both sides of the gap
    assert found.training_loss == pytest.approx(found.development["loss"], rel=1e-4)
    assert len(found.outputs) == 20
    assert found.curve[-1]["step"] == 3
    assert found.flops == found.curve[-1]["flops"] > 3 * found.parameters
    assert 0.3 < found.epochs <= 3
    wider = learned(pairs, pairs, d_ff=64)
    assert wider.flops > found.flops
    assert wider.epochs == found.epochs


def test_a_training_costs_three_forward_passes_of_each_pair_it_has_seen(data, monkeypatch):
    monkeypatch.setattr(corpora, "forward_flops", lambda _model, _size, source, target: {"a": source, "b": 2 * target})
    pairs = corpora.read("multi30k-en-de", "train")[:20]
    found = learned(pairs, pairs, tokens=4_000)  # all in one batch
    assert found.epochs == pytest.approx(3.0)
    vocabularies = []
    monkeypatch.setattr(corpora, "forward_flops", lambda _model, size, *_: vocabularies.append(size) or {"a": 1.0})
    assert learned(pairs, pairs, tokens=4_000).flops == pytest.approx(3 * 20 * 3.0)
    assert vocabularies == [300] * 20
    assert found.flops > 3 * 20 * 3.0
