import json

import pytest
from toy_task import settings, write_pairs

from heedful import Translator, build, resume, run
from heedful.config import merge, read_toml
from heedful.errors import HeedfulError
from heedful.pipeline import Finished, Prepared, _collapse
from heedful.training.loop import Evaluation, Notice


def toy(folder, **training):
    return settings(*write_pairs(folder), **training)


def test_a_model_that_says_the_same_whatever_it_is_given_is_noticed():
    assert list(_collapse(["ja"] * 11 + ["nein"] * 10))
    assert not list(_collapse(["ja"] * 10 + ["nein"] * 11 + ["doch"] * 11))
    (warning,) = _collapse(["ja"] * 20)
    assert "ignores its input" in warning
    assert "training.rate" in warning


def test_a_vocabulary_larger_than_the_data_bears_is_noticed(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    words = [f"word{i} thing{i * 7} place{i * 13}" for i in range(60)]
    source.write_text("".join(f"{line}\n" for line in words))
    target.write_text("".join(f"{line[::-1]}\n" for line in words))
    table = merge(
        settings(source, target, steps=1), {"vocabulary": {"kind": "bpe", "size": 500, "byte_fallback": True}}
    )
    notices = [event.message for event in run(build(table), tmp_path / "model") if isinstance(event, Notice)]
    assert any("--vocabulary.size" in notice for notice in notices)


def test_the_report_comes_first_and_the_finished_folder_last(tmp_path):
    events = list(run(build(toy(tmp_path, steps=3)), tmp_path / "model"))
    first, last = events[0], events[-1]
    assert isinstance(first, Prepared)
    assert first.report.read == first.report.kept + first.report.held_out + first.report.shared_with_held_out
    assert first.seconds > 0
    assert isinstance(last, Finished)
    assert {"loss", "perplexity", "bleu", "chrf"} <= last.scores.keys()
    evaluated = [event for event in events if isinstance(event, Evaluation)]
    assert evaluated[-1].step == 3


def test_minutes_become_steps_once_and_are_stored_as_steps(tmp_path):
    prepared = next(iter(run(build(toy(tmp_path, minutes=0.02)), tmp_path / "model")))
    stored = read_toml(tmp_path / "model" / "recipe.toml")["training"]
    assert stored["minutes"] == 0
    assert stored["steps"] == prepared.steps >= 20


def test_a_second_run_uses_the_cached_tokens(tmp_path, monkeypatch):
    recipe = build(toy(tmp_path, steps=1))
    list(run(recipe, tmp_path / "one"))
    monkeypatch.setattr("heedful.pipeline.encode_corpus", lambda *_: pytest.fail("encoded again"))
    list(run(recipe, tmp_path / "two"))


def test_runs_of_one_seed_are_equal_and_of_another_are_not(tmp_path):
    table = toy(tmp_path, steps=4)
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(run(build(table, {"training": {"seed": seed}}), tmp_path / name))
        weights.append((tmp_path / name / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_subword_dropout_trains_and_is_a_field(tmp_path):
    table = merge(
        toy(tmp_path, steps=3), {"vocabulary": {"kind": "bpe", "size": 300, "byte_fallback": True, "dropout": 0.3}}
    )
    assert isinstance(list(run(build(table), tmp_path / "model"))[-1], Finished)


def test_every_event_is_a_line_of_the_log(tmp_path):
    list(run(build(toy(tmp_path, steps=11)), tmp_path / "model"))
    rows = [json.loads(line) for line in (tmp_path / "model" / "log.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows][:1] == ["prepared"]
    assert {row["step"] for row in rows if row["event"] == "step"} >= {10, 11}
    assert all("time" in row for row in rows)


def test_what_cannot_be_resumed_or_built_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(HeedfulError, match="no training to resume"):
        next(resume(tmp_path))
    with pytest.raises(HeedfulError, match="unknown preset 'tinny'"):
        build({"preset": "tinny"})
    with pytest.raises(HeedfulError, match="did you mean 'rate'"):
        build({"training": {"rat": 1.0}})


def test_a_run_stopped_before_its_first_checkpoint_leaves_a_model_that_translates(tmp_path):
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=50, checkpoint_every=40)), tmp_path / "model", lambda: next(wishes)))
    assert len(list(Translator.load(tmp_path / "model").translate(["a b"]))) == 1
