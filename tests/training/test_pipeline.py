import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from toy_task import settings, write_pairs

from heedful import Translator, build, bundle, preparation, resume, run
from heedful.config import from_table, merge, read_toml, to_table
from heedful.errors import HeedfulError
from heedful.evaluation.scores import bleu_and_chrf
from heedful.heap import keep_products
from heedful.model.weights import read_weights
from heedful.pipeline import Finished, Prepared, Run, begin
from heedful.preparation import encode
from heedful.recipe import PRESETS, Recipe
from heedful.remarks import collapse
from heedful.text.corpus import DataConfig, corpora, examine
from heedful.text.vocabulary import Vocabulary
from heedful.training.loop import Evaluation, Notice, Saved, Step, make_optimizer
from heedful.training.schedule import learning_rate
from heedful.training.state import newest_state
from heedful.translator import Output


def toy(folder, **training):
    return settings(*write_pairs(folder), **training)


@pytest.mark.parametrize(
    ("preset", "sizes", "steps", "average", "seconds"),
    [("paper-base", (512, 2048, 8, 0.1), 100_000, 5, 0.4), ("paper-big", (1024, 4096, 16, 0.3), 300_000, 20, 1.0)],
)
def test_two_presets_are_the_papers(preset, sizes, steps, average, seconds):
    """Sections 3.1, 3.5, 5.1 to 5.4 and 6.1, and table 3."""
    recipe = build({"preset": preset})
    model, training, search = recipe.model, recipe.training, recipe.search
    assert (model.d_model, model.d_ff, model.heads, model.dropout) == sizes
    assert (model.encoder_layers, model.decoder_layers, model.normalization, model.share) == (6, 6, "post", "all")
    assert (model.positions, model.rotary, recipe.vocabulary.size) == ("sinusoidal", False, 37_000)
    assert (training.optimizer, training.beta1, training.beta2, training.epsilon) == ("adam", 0.9, 0.98, 1e-9)
    assert (training.schedule, training.rate, training.warmup) == ("paper", 1.0, 4000)
    assert (training.label_smoothing, training.clip, training.weight_decay) == (0.1, 0.0, 0.0)
    assert (training.steps, training.average, recipe.batches.tokens) == (steps, average, 25_000)
    assert training.checkpoint_every * seconds == 10 * 60  # "written at 10-minute intervals"
    assert (search.beam, search.length_penalty, search.max_extra) == (4, 0.6, 50)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_whatever_it_leaves_to_be_said(preset, tmp_path):
    small = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "d_ff": 32, "heads": 2}
    source, target = write_pairs(tmp_path)
    table = merge(settings(source, target, steps=2, checkpoint_every=1), {"preset": preset, "model": small})
    *_, finished = run(build(table), tmp_path / "model")
    assert isinstance(finished, Finished)


def test_compiled_products_are_kept_unless_the_environment_says_how_many(monkeypatch):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    keep_products()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    keep_products()
    assert int(os.environ[name]) > 1024


def test_a_model_that_says_the_same_whatever_it_is_given_is_noticed():
    assert list(collapse(["ja"] * 11 + ["nein"] * 10))
    assert not list(collapse(["ja"] * 10 + ["nein"] * 11 + ["doch"] * 11))
    (warning,) = collapse(["ja"] * 20)
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
    again = build(merge(table, {"start_from": str(tmp_path / "model")}))
    events = list(run(again, tmp_path / "again"))  # whose vocabulary is learned already
    assert not any("--vocabulary.size" in event.message for event in events if isinstance(event, Notice))


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


def test_fewer_steps_of_equation_3_do_not_rise_higher(tmp_path):
    recipe = build(toy(tmp_path, minutes=0.02, schedule="paper", rate=2.0, warmup=4000))
    next(iter(run(recipe, tmp_path / "model")))
    stored = read_toml(tmp_path / "model" / "recipe.toml")["training"]
    assert stored["warmup"] < 4000
    peaks = [
        learning_rate("paper", w, 10_000, r, w, 0, 28) for w, r in ((4000, 2.0), (stored["warmup"], stored["rate"]))
    ]
    assert peaks[0] == pytest.approx(peaks[1])


def test_an_epoch_shows_each_corpus_as_often_as_its_weight_says(tmp_path):
    sides = [write_pairs(tmp_path / name, count=count, seed=count) for name, count in (("one", 60), ("two", 20))]
    data = {"source": [str(s) for s, _ in sides], "target": [str(t) for _, t in sides], "held_out": 0}
    data |= {"drop_duplicates": False, "drop_identical": False}
    rows = {}
    for weights in ([1.0, 1.0], [2.0, 1.0], [1.0, 3.0]):
        table = settings(*sides[0], steps=1)
        table["data"] = {**data, "weights": weights}
        stream, shown = begin(build(table), tmp_path / "model").stream(), 0
        for batch in stream:
            if stream.epoch:
                break
            shown += len(batch.source_BS)
        rows[tuple(weights)] = shown
    assert rows == {(1.0, 1.0): 80, (2.0, 1.0): 140, (1.0, 3.0): 120}


def test_a_text_that_a_model_can_only_spell_in_bytes_is_noticed(tmp_path):
    (tmp_path / "old").mkdir()
    table = merge(toy(tmp_path / "old", steps=1), {"vocabulary": {"kind": "bpe", "size": 290, "byte_fallback": True}})
    list(run(build(table), tmp_path / "model"))
    for name in ("new.source", "new.target"):
        (tmp_path / name).write_text("".join(f"{chr(0x430 + i)}{chr(0x440 - i % 9)}\n" for i in range(30)))
    data = {"source": str(tmp_path / "new.source"), "target": str(tmp_path / "old" / "pairs.target")}
    for source, told in ((tmp_path / "new.source", True), (tmp_path / "old" / "pairs.source", False)):
        lines = Path(data["target"]).read_text().splitlines(keepends=True)
        target = tmp_path / "new.target"
        target.write_text("".join(lines[: len(source.read_text().splitlines())]))
        fine = merge(
            table, {"start_from": str(tmp_path / "model"), "data": {"source": str(source), "target": str(target)}}
        )
        events = list(run(build(fine), tmp_path / f"fine-{told}"))
        notices = [event.message for event in events if isinstance(event, Notice)]
        assert any("spelt in bytes" in notice for notice in notices) == told


def test_a_preset_or_precision_that_does_not_fit_is_remarked_on(tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.remarks.has_native_bfloat16", lambda device: False)
    said = {}
    for preset, precision in (("small", "bfloat16"), ("tiny", "float32")):
        table = toy(tmp_path, steps=1, precision=precision)
        events = list(run(build({**table, "preset": preset, "model": {}}), tmp_path / preset))
        said[preset] = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "are few for the preset small: --preset fast" in said["small"]
    assert "no fast bfloat16: leave training.precision out" in said["small"]
    assert not any(words in said["tiny"] for words in ("few", "bfloat16"))


def test_a_size_that_a_remark_advises_can_be_learned(tmp_path):
    for side in ("source", "target"):  # many characters: more than 300 tokens are needed to spell them
        (tmp_path / side).write_text("".join(f"a house {i % 5} of {side} {chr(0x4E00 + i)}\n" for i in range(120)))
    table, said = settings(tmp_path / "source", tmp_path / "target", steps=1), []
    table["vocabulary"] = {"kind": "bpe", "size": 480}
    for name in ("first", "second"):
        events = run(build(table), tmp_path / name)
        said += [event.message for event in events if isinstance(event, Notice) and "too rare" in event.message]
        table["vocabulary"]["size"] = int(said[0].rpartition("--vocabulary.size ")[2])
    assert said[1].endswith("more text helps")


def test_blanks_do_not_tell_an_output_from_its_reference(tmp_path, monkeypatch):
    def right(_self, lines, *_):
        return ([Output(" ".join(reversed(line.split())), 0.0, 0.0, [])] for line in lines)

    monkeypatch.setattr(Translator, "translate", right)
    table = toy(tmp_path, steps=1)
    target = tmp_path / "pairs.target"
    target.write_text(target.read_text().replace(" ", "  "))
    *_, evaluated, _, _ = (
        event for event in run(build(table), tmp_path / "out") if not isinstance(event, Step | Saved)
    )
    assert evaluated.scores["exact"] == 100


def test_an_encoder_without_positions_is_remarked_on(tmp_path):
    for rotary in (False, True):
        table = merge(toy(tmp_path, steps=1), {"model": {"positions": "none", "rotary": rotary}})
        events = run(build(table), tmp_path / f"{rotary}")
        said = any("told no positions" in event.message for event in events if isinstance(event, Notice))
        assert said == (not rotary)


def test_tags_that_the_first_model_never_saw_are_remarked_on(tmp_path):
    table = merge(toy(tmp_path, steps=1), {"data": {"tags": ["<a>"]}})
    list(run(build(table), tmp_path / "first"))
    for tag in ("<a>", "<b>"):
        rest = {key: value for key, value in table.items() if key in ("training", "batches")}
        data = {"data": {**table["data"], "tags": [tag]}}
        events = run(build(rest, data, {"start_from": tmp_path / "first"}), tmp_path / f"second-{tag[1]}")
        said = [event.message for event in events if isinstance(event, Notice) and "no tokens for" in event.message]
        assert [f"no tokens for {tag}, and spells" in message for message in said] == ([True] if tag == "<b>" else [])


def test_too_short_limits_are_named_where_they_leave_no_pair(tmp_path):
    (tmp_path / "s").write_text("a b c d e f g h\n" * 3 + "b c d e f g h a\n")
    (tmp_path / "t").write_text("a\nb\nc\nd\n")
    data = {"source": str(tmp_path / "s"), "target": str(tmp_path / "t"), "held_out": 0}
    for limits, expected in (
        ({"max_ratio": 2.0}, "raise data.max_ratio"),
        ({"max_length": 2}, "raise data.max_length"),
    ):
        table = settings(tmp_path / "s", tmp_path / "t", steps=1)
        table["data"] = {**data, **limits}
        with pytest.raises(HeedfulError, match=rf"no pair left of 4 read: 4 \w.*; {expected}"):
            begin(build(table), tmp_path / "model")


@pytest.mark.parametrize(("every", "steps"), [(0, [4]), (2, [2, 4, 6, 8, 10]), (8, [4, 8])])
def test_a_training_without_evaluations_is_looked_at_after_a_third(tmp_path, monkeypatch, every, steps):
    monkeypatch.setattr("heedful.pipeline.collapse", lambda outputs: iter(["look"]))
    events = list(run(build(toy(tmp_path, steps=12, evaluate_every=every)), tmp_path / "model"))
    seen, looked = 0, []
    for event in events:
        seen = getattr(event, "step", seen)
        if isinstance(event, Notice) and event.message == "look" and seen < 12:
            looked.append(seen)
    assert looked == steps
    evaluated = list(run(build(toy(tmp_path, steps=12, evaluate_every=0)), tmp_path / "again"))[-1]
    assert evaluated.scores == events[-1].scores  # and nothing else changes


def test_the_model_folder_s_readme_says_how_it_was_measured(tmp_path):
    list(run(build(toy(tmp_path, steps=2, seed=3)), tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "|tok:13a|smooth:exp|version:" in card
    assert "preset tiny, 2 steps, seed 3" in card
    assert "of the processor" in card


def test_the_final_scores_are_those_of_the_recipe_s_search(tmp_path):
    table = toy(tmp_path, steps=60)
    scores = {}
    for name, search in (("greedy", {"beam": 1}), ("wide", {"beam": 7, "n_best": 2, "length_penalty": 5.0})):
        asked = build(merge(table, {"search": search}))
        finished = list(run(asked, tmp_path / name))[-1]
        translator = Translator.load(tmp_path / name)
        dev = begin(asked, tmp_path / name).dev
        outputs = [
            found[0].text for found in translator.translate([s for s, _ in dev], replace(asked.search, n_best=1))
        ]
        assert finished.scores["bleu"] == bleu_and_chrf(outputs, [t for _, t in dev], "")["bleu"]
        scores[name] = finished.scores["bleu"]
    assert scores["greedy"] != scores["wide"]


def test_a_second_run_uses_the_cached_tokens(tmp_path, monkeypatch):
    recipe = build(toy(tmp_path, steps=1))
    list(run(recipe, tmp_path / "one"))
    monkeypatch.setattr("heedful.preparation.encode_corpus", lambda *_: pytest.fail("encoded again"))
    list(run(recipe, tmp_path / "two"))


def test_tokens_that_nobody_reads_go_and_those_that_this_run_reads_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    recipe, tokens = build(toy(tmp_path, steps=1)), tmp_path / "cache" / "tokens"
    begin(recipe, tmp_path / "one")
    own = sorted(tokens.iterdir())
    (tokens / f"{'0f' * 16}.arrow").write_bytes(b"x")
    (tokens / "mine.arrow").write_bytes(b"x")  # a folder for caches may have files of others
    for file in tokens.iterdir():
        os.utime(file, (0, time.time() - 86_400 * 61))
    monkeypatch.setattr("heedful.preparation.encode_corpus", lambda *_: pytest.fail("encoded again"))
    begin(recipe, tmp_path / "two")
    assert sorted(tokens.iterdir()) == sorted([*own, tokens / "mine.arrow"])


@pytest.mark.parametrize(("place", "remedy"), [("out", "out"), ("cache", "set HEEDFUL_CACHE")])
def test_a_place_that_cannot_be_written_to_is_found_before_anything_is_read(tmp_path, monkeypatch, place, remedy):
    def refuse(*, dir):
        if place in Path(dir).relative_to(tmp_path).parts:
            raise PermissionError(13, "Permission denied", str(dir))
        return io.BytesIO()

    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # not permissions: root may write everywhere
    monkeypatch.setattr("heedful.pipeline.examine", lambda _: pytest.fail("read"))
    with pytest.raises((HeedfulError, PermissionError), match=remedy):
        next(run(build(toy(tmp_path, steps=1)), tmp_path / "out"))


def test_a_resumed_run_has_no_checkpoint_that_its_state_had_no_room_beside(tmp_path):
    model = tmp_path / "model"
    events = run(build(toy(tmp_path, steps=4, checkpoint_every=2)), model)
    for event in events:
        if isinstance(event, Saved):
            break
    events.close()
    checkpoints = model / "state" / "checkpoints"
    shutil.copy(checkpoints / "step-00000002.safetensors", checkpoints / "step-00000099.safetensors")
    list(resume(model))
    assert sorted(path.stem for path in checkpoints.glob("step-*")) == ["step-00000002", "step-00000004"]


def test_single_words_are_trained_on_with_their_corpus_tag_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.text.corpus.word_pairs", lambda _pairs: [("aA", "b")])
    plain, more = (
        begin(build(toy(tmp_path, steps=1), {"data": {"words": words, "tags": ["<t>"]}}), tmp_path / str(words))
        for words in (False, True)
    )
    # four times as it is, in lower case, and with a capital
    assert (more.report.added, more.report.kept - plain.report.kept) == (12, 12)
    last = more.store.lines("source", np.arange(len(more.store))[-12:])
    assert {more.vocabulary.pieces(line, "source")[0] for line in last} == {"▁<t>"}
    assert len({tuple(line) for line in last}) == 3


def test_training_text_that_is_in_the_development_text_is_told(tmp_path):
    table = toy(tmp_path, steps=1)
    for side in ("source", "target"):
        lines = (tmp_path / f"pairs.{side}").read_text().splitlines(True)[:5]
        (tmp_path / f"dev.{side}").write_text("".join(lines))
    dev = {f"development_{side}": str(tmp_path / f"dev.{side}") for side in ("source", "target")}
    notices = [event.message for event in run(build(table, {"data": dev}), tmp_path / "m") if isinstance(event, Notice)]
    assert any("share a sentence with the development data" in notice for notice in notices)


def test_tokens_that_are_somebody_elses_are_used_all_the_same(tmp_path, monkeypatch):
    recipe = build(toy(tmp_path, steps=1))
    list(run(recipe, tmp_path / "one"))

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr("pathlib.Path.touch", refuse)
    assert isinstance(list(run(recipe, tmp_path / "two"))[-1], Finished)


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


def test_subword_dropout_makes_no_line_longer_than_there_are_positions(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("one thing and another thing\n" * 40)
    target.write_text("another thing and one thing\n" * 40)
    words = {"kind": "bpe", "size": 300, "byte_fallback": True, "dropout": 0.9}
    table = merge(settings(source, target, steps=3), {"vocabulary": words, "model": {"positions": "learned"}})
    table["data"]["held_out"] = 0
    free = begin(build(table), tmp_path / "free")
    lengths = free.store.source_lengths_N.max()
    assert next(iter(free.stream())).source_BS.size(1) > lengths, "or the rest shows nothing"
    table["model"]["max_positions"], table["data"]["max_length"] = int(lengths), int(lengths) - 1
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


def test_two_runs_into_the_same_folder_are_one_too_many(tmp_path):
    first = run(build(toy(tmp_path, steps=2)), tmp_path / "model")
    next(first)
    recipe = (tmp_path / "model" / "recipe.toml").read_text()
    for second in (run(build(toy(tmp_path, steps=3)), tmp_path / "model"), resume(tmp_path / "model")):
        with pytest.raises(HeedfulError, match="another process writes there"):
            next(second)
    assert isinstance(list(first)[-1], Finished)
    assert (tmp_path / "model" / "recipe.toml").read_text() == recipe


@pytest.mark.parametrize(
    "name", ["model.toml", "recipe.toml", "README.md", "state", "vocabulary.model", "vocabulary.source.model"]
)
def test_a_folder_with_files_of_others_is_left_alone(tmp_path, name):
    path = tmp_path / "project" / name
    path.parent.mkdir()
    path.mkdir() if name == "state" else path.write_text("name = 'years of work'")
    with pytest.raises(HeedfulError, match=f"{name} there is not of a training; give another --out"):
        next(run(build(toy(tmp_path, steps=2)), tmp_path / "project"))
    assert list((tmp_path / "project").iterdir()) == [path]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"search": {"temperature": 0.0}}, "temperature must be in "),
        ({"search": {"n_best": 5}}, "n_best 5 must be between 1 and the beam, 4"),
        ({"model": {"positions": "learned", "max_positions": 128}}, "max_length 250 is more than .* set it to 127"),
        ({"model": {"family": "convolution", "max_positions": 250}}, "max_length 250 is more than .* set it to 249"),
        ({"vocabulary": {"joint": False}}, 'set model.share = "target"'),
        ({"training": {"minutes": float("nan")}}, "minutes nan must be between 0 and"),
        ({"preset": ["small"]}, "unknown preset"),
        ({"start_from": 1}, "start_from: expected a path"),
    ],
)
def test_what_training_would_stumble_over_later_is_refused_before_it(tables, expected):
    with pytest.raises(HeedfulError, match=expected):
        build(tables)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"training": {"schedule": "paper"}}, "training.rate 0.001 is for .*stable-decay.* a factor, as 1"),
        ({"preset": "paper-base", "training": {"schedule": "cosine"}}, "rate 1 is for .*paper.* the highest, as 0.001"),
        (
            [{"training": {"rate": 1.5e-3}}, {"training": {"schedule": "paper"}}],
            "rate 0.0015 is for .*stable-decay.* a factor, as 1",
        ),
        ([{"training": {"rate": 1.5e-3}}, {"preset": "paper-base"}], "rate 0.0015 is for .*stable-decay"),
        ({"model": {"positions": "none", "rotary": True, "first_position": 1}}, "first_position; leave it out"),
    ],
)
def test_settings_that_together_mean_nothing_are_refused(tables, expected):
    with pytest.raises(HeedfulError, match=expected):
        build(*([tables] if isinstance(tables, dict) else tables))


@pytest.mark.parametrize("family", ["convolution", "lstm", "lstm-attention"])
def test_families_without_matrices_for_muon_are_refused_it(tmp_path, family):
    table = toy(tmp_path, steps=2, optimizer="muon")
    with pytest.raises(HeedfulError, match=rf'muon.*"{family}" has none or few; set training.optimizer = "adam"'):
        build(table, {"model": {"family": family}})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"model": {"family": "lstm", "heads": 2}}, "model: nothing reads heads 2 .* family transformer"),
        ({"model": {"family": "lstm", "bidirectional": False}}, "bidirectional False .* family lstm-attention"),
        ({"model": {"family": "convolution", "rotary": True}}, "rotary"),
        ({"model": {"kernel": 5}}, "kernel 5 .* family convolution"),
        ({"model": {"max_positions": 300}}, "max_positions 300 .* positions learned or family convolution"),
        ({"vocabulary": {"kind": "unigram", "dropout": 0.1}}, "vocabulary: nothing reads dropout 0.1 .* kind bpe"),
        ({"training": {"matrix_rate": 3.0}}, "matrix_rate 3.0 .* optimizer muon"),
        ({"training": {"schedule": "cosine", "decay": 0.5}}, "decay 0.5 .* schedule stable-decay"),
        ({"model": {"family": "lstm", "heads": 2, "d_ff": 7}}, "d_ff 7 .*, heads 2 "),
    ],
)
def test_settings_that_others_leave_unread_are_refused(table, expected):
    with pytest.raises(HeedfulError, match=expected):
        build(table)


def test_another_family_or_preset_by_flag_takes_of_a_recipe_what_it_reads(tmp_path):
    table = merge(toy(tmp_path), {"vocabulary": {"kind": "bpe", "dropout": 0.1}})
    chosen = build(table, {"model": {"family": "convolution"}, "vocabulary": {"kind": "unigram"}})
    usual = build({"preset": table["preset"]})
    assert (chosen.model.heads, chosen.model.d_ff) == (usual.model.heads, usual.model.d_ff)
    assert chosen.vocabulary.dropout == 0
    assert build(to_table(chosen)) == chosen  # the stored recipe trains the same again
    fast = {"preset": "fast", "training": {"matrix_rate": 2.0}}
    assert build(fast).training.matrix_rate == 2.0
    assert build(fast, {"preset": "tiny"}).training.matrix_rate == build({"preset": "tiny"}).training.matrix_rate


def test_development_lines_in_capitals_are_read_as_the_model_reads_them(tmp_path):
    table, scores = toy(tmp_path, steps=60), []
    for path in tmp_path.glob("pairs.*"):  # words, not letters: a letter alone is no word in capitals
        path.write_text("".join(2 * c if c.isalpha() else c for c in path.read_text()))
    for write in (str.lower, str.upper):
        (tmp_path / "dev.source").write_text(write("aa bb\ncc dd ee\n"))
        (tmp_path / "dev.target").write_text(write("bb aa\nee dd cc\n"))
        dev = {"development_source": str(tmp_path / "dev.source"), "development_target": str(tmp_path / "dev.target")}
        recipe = build(table, {"data": {**dev, "capitals": True}})
        scores.append(list(run(recipe, tmp_path / write.__name__))[-1].scores)
    assert scores[0] == scores[1]


def test_development_lines_in_capitals_fit_where_their_lower_case_does(tmp_path):
    table = toy(tmp_path, steps=2, evaluate_every=1)
    for path in tmp_path.glob("pairs.*"):  # words, and a number, which capitals leave as it is
        path.write_text("".join("7" if c == "g" else 2 * c if c.isalpha() else c for c in path.read_text()))
    (tmp_path / "dev.source").write_text("AA BB CC DD 7\n" * 3)
    (tmp_path / "dev.target").write_text("7 DD CC BB AA\n" * 3)
    dev = {"development_source": str(tmp_path / "dev.source"), "development_target": str(tmp_path / "dev.target")}
    changes = {
        "data": {**dev, "capitals": True, "max_length": 5},
        "vocabulary": {"kind": "bpe", "size": 300, "byte_fallback": True},
        "model": {"positions": "learned", "max_positions": 6},
    }
    begun = begin(recipe := build(merge(table, changes)), tmp_path / "measured")
    assert len(begun.vocabulary.encode_source(["AA BB CC DD 7"])[0]) > 6, "or the rest shows nothing"
    assert (len(begun.dev), begun.too_long) == (3, 0)
    assert isinstance(list(run(recipe, tmp_path / "model"))[-1], Finished)


def test_stored_tokens_do_not_depend_on_what_is_only_said_of_the_text(tmp_path, monkeypatch):
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "first"))
    said = {"data": {"attribution": "somebody", "languages": ["en", "de"], "capitals": True}}
    list(run(build(merge(toy(tmp_path, steps=1), said)), tmp_path / "second"))
    assert len(list((tmp_path / "cache" / "tokens").glob("*.arrow"))) == 1
    list(run(build(merge(toy(tmp_path, steps=1), {"data": {"max_length": 3}})), tmp_path / "third"))
    assert len(list((tmp_path / "cache" / "tokens").glob("*.arrow"))) == 2


def test_the_time_of_training_before_a_resume_is_counted(tmp_path):
    wishes = iter([False, False, True])
    list(run(build(toy(tmp_path, steps=9)), tmp_path / "model", lambda: next(wishes, False)))
    [state] = (tmp_path / "model" / "state").glob("step-*/state.json")
    progress = json.loads(state.read_text())
    state.write_text(json.dumps({**progress, "seconds": 3600.0}))
    finished = list(resume(tmp_path / "model"))[-1]
    assert 3600 < finished.seconds < 3900


def test_sizes_that_do_not_fit_together_are_refused_before_anything_is_made_ready(tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.pipeline.examine", lambda data: pytest.fail("it has begun to read"))
    for change, expected in (({"heads": 3}, "heads"), ({"d_k": 3, "rotary": True}, "d_k is odd")):
        table = merge(toy(tmp_path, steps=2), {"model": change})
        with pytest.raises(HeedfulError, match=expected):
            next(run(build(table), tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_a_recipe_that_was_edited_is_resumed_where_its_state_can_be(tmp_path):
    folder = tmp_path / "model"
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=3)), folder, lambda: next(wishes, False)))
    written = (folder / "recipe.toml").read_text()
    for before, after, named in (
        ("tokens = ", "tokens = 1", "batches.tokens"),
        ('optimizer = "adam"', 'optimizer = "muon"', "training.optimizer"),
        ("exponential_average = 0.0", "exponential_average = 0.9", "training.exponential_average"),
        ('metric = "bleu"', 'metric = "loss"', "training.metric"),
        ("minutes = 0.0", "minutes = 5.0", "training.minutes"),
    ):
        assert before in written
        (folder / "recipe.toml").write_text(written.replace(before, after))
        with pytest.raises(HeedfulError, match=f"recipe.toml: {named} changed since .* put back what is in .*state"):
            next(resume(folder))
    kept = folder / "state" / "recipe.toml"
    kept.write_text(kept.read_text().replace("rotary = false\n", ""))  # as of a version that did not have it yet
    (folder / "recipe.toml").write_text(written.replace("checkpoint_every = ", "checkpoint_every = 1"))
    assert isinstance(list(resume(folder))[-1], Finished)


def test_a_recipe_that_was_edited_before_the_first_state_is_the_one_to_go_on_with(tmp_path):
    folder = tmp_path / "model"
    assert isinstance(next(run(build(toy(tmp_path, steps=3)), folder)), Prepared)  # and there it ended, say
    written = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(written.replace("tokens = ", "tokens = 1"))
    wishes = iter([False, True])
    list(resume(folder, lambda: next(wishes, False)))
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace("beam = 4", "beam = 3"))
    bundle.amend(folder, languages=["en", "de"])  # as `configure` does
    assert isinstance(list(resume(folder))[-1], Finished)
    translator = Translator.load(folder)
    assert (translator.search.beam, translator.languages) == (3, ("en", "de"))


def test_a_copy_that_somebody_made_of_a_state_is_nothing_to_go_on_from_and_stays(tmp_path):
    folder = tmp_path / "model"
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=3)), folder, lambda: next(wishes, False)))
    place = newest_state(folder / "state")
    copy = shutil.copytree(place, place.with_name(f"{place.name}.bak"))
    weights = folder / "state" / "checkpoints" / "step-00000001.mine.safetensors"
    weights.parent.mkdir(exist_ok=True)
    shutil.copyfile(place / "weights.safetensors", weights)
    assert newest_state(folder / "state") == place
    assert isinstance(list(resume(folder))[-1], Finished)
    assert copy.is_dir()
    assert weights.is_file()


def test_a_model_that_begun_another_may_move_once_the_other_is_saved(tmp_path):
    table = toy(tmp_path, steps=2)
    list(run(build(table), tmp_path / "first"))
    wishes = iter([True])
    start = {key: value for key, value in table.items() if key in ("data", "training", "batches")}
    list(run(build(start, {"start_from": tmp_path / "first"}), tmp_path / "second", lambda: next(wishes, False)))
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    first, *_ = resume(tmp_path / "second", lambda: True)  # the disk is gone
    assert isinstance(first, Prepared)
    (tmp_path / "first").symlink_to(tmp_path / "elsewhere")
    assert isinstance(list(resume(tmp_path / "second"))[-1], Finished)


def test_sizes_that_were_edited_before_the_first_state_are_refused(tmp_path):
    folder = tmp_path / "model"
    assert isinstance(next(run(build(toy(tmp_path, steps=3)), folder)), Prepared)
    written = (folder / "recipe.toml").read_text()
    for before, after, named in (("d_ff = ", "d_ff = 1", "model.d_ff"), ("size = ", "size = 1", "vocabulary.size")):
        (folder / "recipe.toml").write_text(written.replace(before, after))
        with pytest.raises(HeedfulError, match=f"{named} changed since"):
            next(resume(folder))


def test_an_out_that_is_not_on_all_machines_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.pipeline.rank", lambda: 1)
    with pytest.raises(HeedfulError, match="--out must be one folder for all machines"):
        begin(build(toy(tmp_path, steps=2)), tmp_path / "model")


def test_what_a_killed_process_left_aside_is_removed_on_resuming(tmp_path):
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=3)), tmp_path / "model", lambda: next(wishes, False)))
    checkpoints = tmp_path / "model" / "state" / "checkpoints"
    left = [tmp_path / "model" / ".weights.safetensors.1.tmp", checkpoints / ".step-00000001.safetensors.1.tmp"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    others = tmp_path / "model" / ".config.json.tmp", tmp_path / "model" / ".out.de.1.tmp"
    for file in others:
        file.write_bytes(b"x")
    folder = tmp_path / "model" / "state" / ".step-00000001.1.tmp"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"x")
    list(resume(tmp_path / "model"))
    assert not any(path.exists() for path in (*left, folder))
    assert all(path.exists() for path in others), "of somebody else"


def test_a_record_cut_off_in_the_log_is_dropped_on_resuming(tmp_path):
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=9)), tmp_path / "model", lambda: next(wishes, False)))
    with (tmp_path / "model" / "log.jsonl").open("a") as log:
        log.write('{"event": "evaluation", "scores": {"loss": 1.0}')
    list(resume(tmp_path / "model"))
    events = [json.loads(line)["event"] for line in (tmp_path / "model" / "log.jsonl").read_text().splitlines()]
    assert events[-1] == "finished"


def test_a_run_stopped_before_its_first_checkpoint_leaves_a_model_that_translates(tmp_path):
    wishes = iter([False, True])
    list(run(build(toy(tmp_path, steps=50, checkpoint_every=40)), tmp_path / "model", lambda: next(wishes)))
    assert len(list(Translator.load(tmp_path / "model").translate(["a b"]))) == 1


def test_altered_copies_are_trained_on_and_counted(tmp_path):
    prepared = next(iter(run(build(toy(tmp_path, steps=1), {"data": {"altered": 0.5}}), tmp_path / "model")))
    report = prepared.report
    assert 60 < report.added < 130
    assert report.kept == 211 + report.added - report.held_out - report.shared_with_held_out


def test_a_tag_is_one_symbol_and_languages_and_attribution_are_kept(tmp_path):
    table = merge(toy(tmp_path, steps=1), {"data": {"tags": ["<bt>"], "languages": ["en", "de"], "attribution": "us"}})
    table["vocabulary"] = {"kind": "bpe", "size": 300, "byte_fallback": True}
    list(run(build(table), tmp_path / "model"))
    words = Vocabulary.load(tmp_path / "model")
    assert "<bt>" in words.pieces(words.encode_source(["<bt> a b"])[0], "source")
    manifest = read_toml(tmp_path / "model" / "model.toml")
    assert manifest["languages"] == ["en", "de"]
    assert manifest["provenance"]["data"] == "us"


def test_held_out_pairs_have_the_tag_that_training_pairs_have(tmp_path):
    table = merge(toy(tmp_path), {"data": {"tags": ["<bt>"]}})
    dev = begin(build(table), tmp_path / "model").dev
    assert len(dev) == 20
    assert all(source.startswith("<bt> ") for source, _ in dev)


@pytest.mark.parametrize("model", [{"family": "convolution", "max_positions": 12}, {}])
def test_development_pairs_that_training_would_find_too_long_are_left_out(tmp_path, model):
    source, target = write_pairs(tmp_path / "dev", count=30, seed=3)
    source.write_text(source.read_text() + "a " * 40 + "\n")
    target.write_text(target.read_text() + "a\n")
    dev = {"development_source": str(source), "development_target": str(target), "max_length": 11}
    recipe = build(toy(tmp_path, steps=2, evaluate_every=1), {"model": model, "data": dev})
    events = list(run(recipe, tmp_path / "model"))  # whose outputs may not be longer than that either
    assert isinstance(events[-1], Finished)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert any("1 development pairs have more than 11 tokens" in message for message in said)


def test_patience_without_development_pairs_is_told_of(tmp_path):
    table = merge(toy(tmp_path, steps=1, patience=2, evaluate_every=1), {"data": {"held_out": 0}})
    said = [event.message for event in run(build(table), tmp_path / "model") if isinstance(event, Notice)]
    assert any("training.patience has nothing to wait for" in message for message in said)


def test_a_cache_that_cannot_be_written_says_how_to_have_another(tmp_path, monkeypatch):
    monkeypatch.setenv("HEEDFUL_CACHE", "/proc/nothing")
    with pytest.raises(HeedfulError, match=r"/proc/nothing/tokens: .*; set HEEDFUL_CACHE to a folder with room"):
        list(run(build(toy(tmp_path, steps=1)), tmp_path / "model"))


@pytest.mark.parametrize("place", ["out", "data"])
def test_names_that_are_not_utf8_are_refused_before_anything_is_learned(tmp_path, place):
    odd = tmp_path / os.fsdecode(b"mod\xe8le")
    table = toy(odd if place == "data" else tmp_path, steps=1)
    with pytest.raises(HeedfulError, match=r"mod\\udce8le.*: a name that is not UTF-8; rename it"):
        list(run(build(table), odd if place == "out" else tmp_path / "model"))


def test_training_starts_from_the_weights_and_the_vocabulary_of_another_model(tmp_path):
    list(run(build(toy(tmp_path, steps=3)), tmp_path / "old"))
    table = merge(settings(*write_pairs(tmp_path / "new", seed=7), steps=2, rate=0.0), {"start_from": tmp_path / "old"})
    recipe = build(table)
    list(run(recipe, tmp_path / "new" / "model"))
    old, new = (
        read_weights(folder / "weights.safetensors") for folder in (tmp_path / "old", tmp_path / "new" / "model")
    )
    assert all(torch.equal(old[name], new[name]) for name in old)  # at a rate of nothing
    one, other = (folder / "vocabulary.model" for folder in (tmp_path / "old", tmp_path / "new" / "model"))
    assert one.read_bytes() == other.read_bytes()


def test_the_card_tells_of_the_steps_that_were_taken(tmp_path):
    dev = write_pairs(tmp_path / "dev", count=30, seed=3)
    table = merge(
        toy(tmp_path, steps=90, rate=0.0, evaluate_every=2, patience=1),
        {"data": {"development_source": str(dev[0]), "development_target": str(dev[1])}},
    )
    list(run(build(table), tmp_path / "model"))
    assert ", 4 steps, " in (tmp_path / "model" / "README.md").read_text()


def test_files_of_pairs_are_not_taken_for_a_source_and_its_target(tmp_path):
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "old"))
    words, files = Vocabulary.load(tmp_path / "old"), [tmp_path / f"{name}.tsv" for name in "ab"]
    for file in files:  # each line of either is a pair, and a text as well
        file.write_text("".join(f"a {file.stem} {n}\tb a {file.stem}\n" for n in range(99)))
    mistaken = DataConfig(source=(files[0],), target=(files[1],), held_out=0)
    for config, pairs in ((mistaken, 99), (DataConfig(pairs=tuple(files), held_out=0), 198)):
        assert len(encode(examine(corpora(config), [], config), words)) == pairs


def test_what_is_said_of_the_model_to_start_from_is_true_of_the_new_one(tmp_path):
    said = {"data": {"languages": ["en", "de"], "capitals": True, "attribution": "theirs"}}
    list(run(build(merge(toy(tmp_path, steps=1), said)), tmp_path / "old"))
    recipe = build({"start_from": str(tmp_path / "old")})
    assert (recipe.data.languages, recipe.data.capitals) == (("en", "de"), True)
    assert not build({"start_from": str(tmp_path / "old"), "data": {"capitals": False}}).data.capitals
    more = merge(toy(tmp_path, steps=1), {"start_from": str(tmp_path / "old"), "data": {"attribution": "ours"}})
    list(run(build(more), tmp_path / "new"))
    provenance = read_toml(tmp_path / "new" / "model.toml")["provenance"]
    assert (provenance["data"], provenance["start_from"]) == ("ours theirs", "old")


def test_a_model_that_shares_an_embedding_between_two_vocabularies_can_still_go_on_and_be_started_from(tmp_path):
    table, wishes = merge(toy(tmp_path, steps=3), {"vocabulary": {"joint": False}}), iter([True])
    with pytest.raises(HeedfulError, match=r"vocabulary\.joint is false"):
        build(table)
    as_before = from_table(Recipe, merge(PRESETS["tiny"], table), "before that was refused")
    assert list(run(as_before, tmp_path / "old", lambda: next(wishes, False)))[-1].reason == "interrupted"
    assert isinstance(list(resume(tmp_path / "old"))[-1], Finished)
    assert build({"start_from": str(tmp_path / "old")}).model.share == "all"


def test_sizes_come_from_the_model_to_start_from_and_may_not_contradict_it(tmp_path):
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "old"))
    begun = {"start_from": str(tmp_path / "old"), "preset": "tiny"}
    recipe = build(begun, {"model": {"dropout": 0.4}})
    assert (recipe.model.d_model, recipe.model.dropout, recipe.vocabulary.kind) == (28, 0.4, "symbols")
    with pytest.raises(HeedfulError, match=r"model.d_model is 64, but .*old was trained with 28"):
        build(begun, {"model": {"d_model": 64}})
    with pytest.raises(HeedfulError, match=r"vocabulary.kind is bpe, but"):
        build(begun, {"vocabulary": {"kind": "bpe"}})
    with pytest.raises(HeedfulError, match="not a model folder"):
        build({"start_from": str(tmp_path)})


@pytest.mark.parametrize("preset", ["fast", "best"])
def test_a_preset_adds_nothing_to_a_model_to_start_from(preset):
    assert build({"start_from": "de-en", "preset": preset}).model.positions == "none"  # which has rotary ones alone
    old = Path(__file__).parents[1] / "golden" / "format-1"  # a model without rotary positions
    begun = {"start_from": str(old), "preset": preset}
    assert not build(begun).model.rotary
    with pytest.raises(HeedfulError, match=r"model\.rotary is True, but .*format-1 was trained with False"):
        build(begun, {"model": {"rotary": True}})


def test_weights_stored_in_bfloat16_take_half_the_room_and_translate(tmp_path):
    sizes = []
    for stored in ("float32", "bfloat16"):
        list(run(build(toy(tmp_path, steps=1, stored=stored)), tmp_path / stored))
        sizes.append((tmp_path / stored / "weights.safetensors").stat().st_size)
        assert len(list(Translator.load(tmp_path / stored).translate(["a b"]))) == 1
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    "changes",
    [{"model": {"layer_dropout": 0.5, "decoder_layers": 2}}, {"model": {"tied_layers": 2, "encoder_layers": 3}}],
)
def test_layer_dropout_and_tied_layers_train_and_translate(tmp_path, changes):
    table = merge(toy(tmp_path, steps=4, optimizer="muon"), changes)
    assert isinstance(list(run(build(table), tmp_path / "model"))[-1], Finished)
    assert len(list(Translator.load(tmp_path / "model").translate(["a b"]))) == 1


def test_two_passes_that_agree_train(tmp_path):
    events = list(run(build(toy(tmp_path, steps=4, consistency=5.0)), tmp_path / "model"))
    assert isinstance(events[-1], Finished)


def test_what_a_kill_in_the_middle_of_writing_weights_leaves_is_removed_on_resuming(tmp_path):
    """safetensors writes beside what is written aside, under a name of its own."""
    wishes = iter([False, True])
    model = tmp_path / "model"
    list(run(build(toy(tmp_path, steps=3)), model, lambda: next(wishes, False)))
    before = {path.name for path in model.iterdir()}
    program = (
        "import sys, torch, pathlib\n"
        "from heedful.model.weights import write_weights\n"
        "while True:\n"
        "    write_weights(pathlib.Path(sys.argv[1]), {'a': torch.zeros(8_000_000)})"
    )
    writing = subprocess.Popen([sys.executable, "-c", program, str(model / "weights.safetensors")])
    while not any(path.stat().st_size > 1e6 for path in model.glob(".*")):
        assert writing.poll() is None
    writing.kill()
    writing.wait()
    assert list(model.glob(".*")), "a file that was begun is left"
    list(resume(model))
    assert {path.name for path in model.iterdir()} - before <= {"README.md"}


def cut_and_resumed(table, tmp_path):
    """Return the weights of a run and of one that was stopped and resumed, and the events of the first."""
    events, asked = list(run(build(table), tmp_path / "whole")), itertools.count(1)
    assert list(run(build(table), tmp_path / "cut", lambda: next(asked) == 3))[-1].reason == "interrupted"
    list(resume(tmp_path / "cut"))
    whole, cut = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    return whole, cut, events


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"precision": "bfloat16"}},
        {"training": {"precision": "bfloat16", "optimizer": "muon", "consistency": 4.0}},
        {"training": {"exponential_average": 0.9}, "batches": {"accumulate": 2}},
        {"vocabulary": {"kind": "bpe", "size": 300, "byte_fallback": True, "dropout": 0.3}},
        {"model": {"layer_dropout": 0.5, "encoder_layers": 2, "decoder_layers": 2, "rotary": True}},
    ],
    ids=["plain", "bfloat16", "Muon and R-Drop", "accumulated", "subword dropout", "layer dropout"],
)
def test_with_two_threads_too_a_resumed_run_ends_in_the_same_bytes(tmp_path, monkeypatch, changes, onednn):
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no products of oneDNN")
    for where in ("heedful.model.linear", "heedful.training.state"):  # of one processor or the other
        monkeypatch.setattr(f"{where}.onednn_is_faster", lambda: onednn)
    before = torch.get_num_threads()
    table = toy(tmp_path, steps=6, checkpoint_every=2, threads=2)
    table = merge(table, {"model": {"d_model": 128, "d_ff": 512}, "batches": {"tokens": 2048}}, changes)  # work for two
    try:
        whole, cut, _ = cut_and_resumed(table, tmp_path)
    finally:
        torch.set_num_threads(before)
    assert whole == cut


def test_without_a_compiler_a_run_trains_resumes_and_translates(tmp_path, without_compiler):
    whole, cut, events = cut_and_resumed(toy(tmp_path, steps=6, checkpoint_every=2), tmp_path)
    assert whole == cut
    assert any("without compiled parts" in event.message for event in events if isinstance(event, Notice))
    [[output]] = Translator.load(tmp_path / "whole").translate(["a b"])
    assert output.ids


def test_the_precision_is_chosen_once_and_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr("heedful.pipeline.settled", lambda *_: "bfloat16")
    wishes, folder = iter([False, True]), tmp_path / "model"
    table = toy(tmp_path, steps=4, precision="auto")
    prepared, *_ = run(build(table), folder, lambda: next(wishes, False))
    stored = {read_toml(folder / path)["training"]["precision"] for path in ("recipe.toml", "state/recipe.toml")}
    assert (prepared.precision, stored) == ("bfloat16", {"bfloat16"})
    monkeypatch.setattr("heedful.pipeline.settled", lambda *_: pytest.fail("measured again"))
    assert next(resume(folder)).precision == "bfloat16"


def test_an_edited_recipe_is_checked_as_a_new_one_is(tmp_path):
    folder, wishes = tmp_path / "model", iter([False, True])
    list(run(build(toy(tmp_path)), folder, lambda: next(wishes, False)))
    table = read_toml(folder / "recipe.toml")
    table["training"] |= {"patience": 3, "evaluate_every": 0}
    (folder / "recipe.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(HeedfulError, match=r"recipe\.toml: training\.patience counts evaluations"):
        list(resume(folder))


def test_a_finished_training_goes_on_where_its_steps_are_raised(tmp_path):
    folder = tmp_path / "model"
    list(run(build(toy(tmp_path, steps=3)), folder))
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("steps = 3\n", "steps = 5\n"))
    events = list(resume(folder))
    assert [event.step for event in events if isinstance(event, Step)] == [4, 5]
    assert isinstance(events[-1], Finished)
    assert ", 5 steps, " in (folder / "README.md").read_text()


def test_a_resume_that_cannot_go_on_changes_nothing(tmp_path):
    folder, wishes = tmp_path / "model", iter([False, True])
    list(run(build(toy(tmp_path, steps=3)), folder, lambda: next(wishes, False)))
    written = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(written.replace("max_length = ", "max_length = 1"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(HeedfulError, match="data settings are not those that this training began with"):
        next(resume(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "recipe.toml").write_text(written)
    assert isinstance(list(resume(folder))[-1], Finished)


def test_a_run_killed_as_it_begins_is_not_resumed_with_the_recipe_of_an_earlier_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    next(run(build(toy(tmp_path)), folder))  # ended before its first state
    with monkeypatch.context() as patch:
        patch.setattr("heedful.run_folder.write_recipe", None)
        with pytest.raises(TypeError):
            next(run(build(merge(toy(tmp_path), {"model": {"d_ff": 31}})), folder))
    with pytest.raises(HeedfulError, match="no training to resume"):
        next(resume(folder))
    assert isinstance(list(run(build(toy(tmp_path)), folder))[-1], Finished)


def test_a_schedule_edited_before_a_resume_wants_a_rate_of_its_kind(tmp_path):
    folder, wishes = tmp_path / "model", iter([False, True])
    list(run(build(toy(tmp_path, steps=3)), folder, lambda: next(wishes, False)))
    table = read_toml(folder / "recipe.toml")
    other = {"paper": "cosine"}.get(table["training"]["schedule"], "paper")
    (folder / "recipe.toml").write_text(tomli_w.dumps(merge(table, {"training": {"schedule": other}})))
    with pytest.raises(HeedfulError, match=rf'recipe\.toml: training\.rate .* give training\.rate for "{other}" too'):
        next(resume(folder))
    both = {"schedule": other, "rate": 2 * table["training"]["rate"]}
    (folder / "recipe.toml").write_text(tomli_w.dumps(merge(table, {"training": both})))
    assert isinstance(list(resume(folder))[-1], Finished)


def test_a_run_without_development_text_says_that_it_was_not_scored(tmp_path):
    list(run(build(merge(toy(tmp_path), {"data": {"held_out": 0}})), tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "it was not scored" in card
    assert "BLEU" not in card


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 11, 12, 13, 17, 21, 23, 25, 27, 28, 29])
def test_killed_before_a_file_takes_its_place_a_run_can_still_be_made(tmp_path, monkeypatch, number):
    table = toy(tmp_path, steps=6, checkpoint_every=2, evaluate_every=0)
    list(run(build(table), tmp_path / "whole"))
    count, replace = itertools.count(1), Path.replace

    def killed(self, target):
        if next(count) == number:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr("heedful.files.remove", lambda _path: None)  # who is killed tidies nothing up
        with pytest.raises(Killed):
            list(run(build(table), tmp_path / "cut"))
    begun = all((tmp_path / "cut" / name).is_file() for name in ("recipe.toml", "model.toml"))
    list(resume(tmp_path / "cut") if begun else run(build(table), tmp_path / "cut"))
    whole, cut = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_the_time_told_is_steps_times_what_one_took(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "_time_a_step", lambda *_: 0.5)
    prepared = next(run(build(toy(tmp_path, minutes=1.0)), tmp_path / "model"))
    assert (prepared.steps, prepared.seconds) == (120, 60.0)


def test_nothing_that_training_writes_is_pickled(tmp_path):
    list(run(build(toy(tmp_path)), tmp_path / "model"))
    for file in (path for path in (tmp_path / "model").rglob("*") if path.is_file()):
        assert not file.read_bytes().startswith((b"PK", b"\x80")), file
        assert file.suffix in {".toml", ".model", ".safetensors", ".jsonl", ".json", ".md"}, file


def test_text_that_a_flag_names_in_one_form_takes_the_place_of_the_recipes_in_the_other():
    recipe = {
        "data": {"source": ["a.en"], "target": ["a.de"], "development_source": "v.en", "development_target": "v.de"}
    }
    found = build(recipe, {"data": {"pairs": ["my.tsv"], "development-pairs": "val.tsv"}}).data
    assert (found.source, found.target, found.pairs) == ((), (), (Path("my.tsv"),))
    assert (found.development_source, found.development_target) == (None, None)
    assert found.development_pairs == Path("val.tsv")
    found = build({"data": {"pairs": ["my.tsv"]}}, recipe).data
    assert (found.source, found.pairs) == ((Path("a.en"),), ())
    for more in ({"folder": "/"}, {"pairs": []}):
        found = build({"data": {**recipe["data"], "pairs": ["my.tsv"]}}, {"data": more}).data
        assert (found.source, found.pairs) == ((Path("a.en"),), () if "pairs" in more else (Path("my.tsv"),))


def test_of_a_model_that_was_given_away_the_vocabulary_is_not_to_be_chosen(tmp_path):
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "old"))
    (tmp_path / "old" / "recipe.toml").unlink()
    begun = {"start_from": str(tmp_path / "old"), "preset": "tiny"}
    for change in ({"size": 99}, {"kind": "unigram"}, {"joint": False}):
        with pytest.raises(
            HeedfulError, match=f"vocabulary.{next(iter(change))} is not to be chosen, as .*old's is kept"
        ):
            build(begun, {"vocabulary": change})
    assert build(begun, {"vocabulary": {"dropout": 0.1}}).vocabulary.dropout == 0.1
    assert build(to_table(build(begun))).start_from == tmp_path / "old"  # all of it, as it is stored


def test_a_model_without_weights_to_start_from_is_refused_before_anything_is_written(tmp_path):
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "old"))
    (tmp_path / "old" / "weights.safetensors").unlink()
    table = merge(toy(tmp_path, steps=1), {"start_from": str(tmp_path / "old")})
    with pytest.raises(HeedfulError, match=r"weights\.safetensors"):
        next(run(build(table), tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_what_is_edited_of_dropout_and_attribution_counts_in_the_model_folder_too(tmp_path):
    folder, wishes = tmp_path / "model", iter([False, True])
    table = merge(toy(tmp_path, steps=3), {"data": {"attribution": "theirs"}})
    list(run(build(table), folder, lambda: next(wishes, False)))
    stored = read_toml(folder / "recipe.toml")
    edited = merge(stored, {"model": {"dropout": 0.21}, "data": {"attribution": "theirs and ours"}})
    (folder / "recipe.toml").write_text(tomli_w.dumps(edited))
    list(resume(folder))
    manifest = bundle.read_manifest(folder)
    assert (manifest["model"]["dropout"], manifest["provenance"]["data"]) == (0.21, "theirs and ours")
    assert build({"start_from": str(folder)}).model.dropout == 0.21


def test_an_attribution_that_is_corrected_does_not_stay_beside_that_of_the_model_begun_with(tmp_path):
    list(run(build(merge(toy(tmp_path, steps=1), {"data": {"attribution": "first"}})), tmp_path / "old"))
    table, wishes = merge(toy(tmp_path, steps=3), {"data": {"attribution": "wrong"}}), iter([False, True])
    table = {name: table[name] for name in ("data", "training")} | {"start_from": str(tmp_path / "old")}
    folder = tmp_path / "new"
    list(run(build(table), folder, lambda: next(wishes, False)))
    assert bundle.read_manifest(folder)["provenance"]["data"] == "wrong first"
    stored = read_toml(folder / "recipe.toml")
    (folder / "recipe.toml").write_text(tomli_w.dumps(merge(stored, {"data": {"attribution": "right"}})))
    list(resume(folder))
    assert bundle.read_manifest(folder)["provenance"]["data"] == "right first"


def test_the_attribution_of_the_model_begun_with_stays_whatever_is_edited(tmp_path):
    list(run(build(merge(toy(tmp_path, steps=1), {"data": {"attribution": "theirs"}})), tmp_path / "old"))
    table, wishes = toy(tmp_path, steps=3), iter([False, True])
    table = {name: table[name] for name in ("data", "training")} | {"start_from": str(tmp_path / "old")}
    table["data"]["attribution"] = "theirs"  # said again
    list(run(build(table), tmp_path / "new", lambda: next(wishes, False)))
    for edited, expected in (("mine", "mine theirs"), ("", "theirs")):
        shutil.copytree(tmp_path / "new", tmp_path / f"edited-{edited}")
        stored = tmp_path / f"edited-{edited}" / "recipe.toml"
        stored.write_text(tomli_w.dumps(merge(read_toml(stored), {"data": {"attribution": edited}})))
        list(resume(stored.parent))
        assert bundle.read_manifest(stored.parent)["provenance"]["data"] == expected
    shutil.move(tmp_path / "old", tmp_path / "gone")
    stored = tmp_path / "new" / "recipe.toml"
    stored.write_text(tomli_w.dumps(merge(read_toml(stored), {"data": {"attribution": "mine"}})))
    list(resume(tmp_path / "new"))
    assert bundle.read_manifest(tmp_path / "new")["provenance"]["data"] == "mine theirs"


def test_weight_decay_is_not_for_plain_adam():
    """Whose gradient it would be added to."""
    by_adam = {"preset": "best", "training": {"optimizer": "adam", "rate": 2e-3}}
    with pytest.raises(HeedfulError, match="nothing reads weight_decay"):
        build(merge(by_adam, {"training": {"weight_decay": 0.2}}))
    model, decays = torch.nn.Linear(2, 2), []
    for optimizer in ("adam", "adamw"):
        training = build(merge(by_adam, {"training": {"optimizer": optimizer}})).training
        decays.append(make_optimizer(model, training).param_groups[0]["weight_decay"])
    assert decays == [0.0, 0.1], "a preset's counts where it is read"


def test_the_card_says_how_to_translate_wherever_the_folder_is(tmp_path):
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "en-de"))  # as a model in the box is called
    card = (tmp_path / "en-de" / "README.md").read_text()
    assert "in this folder: `heedful translate . -i input.txt`" in card


def test_a_damaged_text_in_the_cache_is_said_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_cache", lambda: tmp_path / "cache")
    list(run(build(toy(tmp_path, steps=1)), tmp_path / "model"))
    for kind, other in ((".arrow", b"ARROW1"), (".json", b"{")):
        [kept] = (tmp_path / "cache").glob(f"*{kind}")
        before = kept.read_bytes()
        kept.write_bytes(other)
        with pytest.raises(HeedfulError, match=rf"{kept.stem}\.arrow: damaged .*; remove it and {kept.stem}\.json"):
            list(run(build(toy(tmp_path, steps=1)), tmp_path / "again"))
        kept.write_bytes(before)
