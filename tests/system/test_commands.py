"""The program as a user meets it: commands, pipes, errors."""

import contextlib
import errno
import gc
import gzip
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import sacrebleu
import tomli_w
import torch
from rich.console import Console

from heedful import bundle, native, run
from heedful.cli import output, translate
from heedful.cli.app import main
from heedful.cli.model import _say_slow
from heedful.config import to_table
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.files import claimed
from heedful.model.compiled import multiplies
from heedful.model.family import build_model
from heedful.model.settings import ModelConfig
from heedful.model.weights import read_weights, weights_of, write_weights
from heedful.serve.limits import ServeConfig
from heedful.text.vocabulary import SPACE
from heedful.training.average import average_files
from heedful.translator import WINDOW, Output, Translator

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from toy_task import settings, write_pairs


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def heedful(*arguments, text="", cwd="."):
    """Run the program with its own streams, but in this process: importing torch takes longer than most commands."""
    given = text if isinstance(text, bytes) else text.encode()
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="\n") for data in (given, b"", b"")]
    stdin, stdout, stderr = streams
    with (
        mock.patch.multiple(sys, argv=["heedful", *map(str, arguments)], stdin=stdin, stdout=stdout, stderr=stderr),
        contextlib.chdir(cwd),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    for stream in (stdout, stderr):
        stream.flush()
    return Ran(ended.value.code, stdout.buffer.getvalue().decode(), stderr.buffer.getvalue().decode())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    source, target = write_pairs(folder)
    table = settings(source, target, steps=30)
    (folder / "toy.toml").write_text(tomli_w.dumps(table))
    ran = heedful("train", folder / "toy.toml", "--out", folder / "model", "--tensorboard", folder / "events")
    assert ran.returncode == 0, ran.stderr
    return folder


def test_training_reports_the_data_then_steps_scores_and_the_folder(trained):
    ran = heedful("train", trained / "toy.toml", "--out", trained / "model2", "--training.steps", "4")
    assert "read" in ran.stderr
    assert "held out, disjoint on both sides" in ran.stderr
    assert "% padding" in ran.stderr
    assert re.search(r"parameters, (float32|bfloat16) on \d+ threads? of the processor", ran.stderr)
    assert "about 0:00:0" in ran.stderr
    assert "step 4/4" in ran.stderr
    assert "BLEU" in ran.stderr
    assert str(trained / "model2") in ran.stderr
    assert "\x1b" not in ran.stderr


def test_of_several_processes_the_first_one_speaks(trained):
    with mock.patch("heedful.cli.train.rank", return_value=1):
        ran = heedful("train", trained / "toy.toml", "--out", trained / "model3", "--training.steps", "2")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_more_outputs_widen_the_beam_and_never_narrow_it(trained):
    wide = trained / "wide"
    ran = heedful("train", trained / "toy.toml", "--out", wide, "--training.steps", "2", "--search.beam", "6")
    assert ran.returncode == 0, ran.stderr
    with mock.patch("heedful.translator.Translator.translate", return_value=iter(())) as translate:
        beams = []
        for arguments in (["--n-best", "2"], ["--n-best", "9"], ["--n-best", "2", "--beam", "3"]):
            heedful("translate", wide, *arguments, text="a b\n")
            beams.append(translate.call_args.args[1].beam)
    assert beams == [6, 9, 3]


def test_the_model_folder_is_complete(trained):
    names = {path.name for path in (trained / "model").iterdir()}
    assert {"model.toml", "vocabulary.model", "weights.safetensors", "recipe.toml", "log.jsonl", "README.md"} <= names
    events = [json.loads(line)["event"] for line in (trained / "model" / "log.jsonl").read_text().splitlines()]
    assert events[0] == "prepared"
    assert events[-1] == "finished"
    assert {"step", "evaluation", "saved", "ended"} <= set(events)
    assert any((trained / "events").iterdir())


def test_one_line_comes_out_for_each_line_and_empty_lines_stay_empty(trained):
    lines = ["a b c", "", "g f \u2028 e", "   ", "é ü 🙂", "a"]
    ran = heedful("translate", trained / "model", text="\n".join(lines) + "\n")
    assert ran.returncode == 0, ran.stderr
    out = ran.stdout.split("\n")
    assert len(out) == len(lines) + 1
    assert out[1] == ""
    assert out[3] == ""


def test_translate_writes_files_json_and_n_best(trained, tmp_path):
    (tmp_path / "in").write_text("a b\nc d e\n")
    model = trained / "model"
    ran = heedful(
        "translate", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--jsonl", "--n-best", "3"
    )
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [row["line"] for row in rows] == [1, 2]
    assert len(rows[0]["n_best"]) == 3
    assert rows[0]["score"] == rows[0]["n_best"][0]["score"] >= rows[0]["n_best"][1]["score"]
    plain = heedful("translate", model, "--n-best", "2", text="a b\n").stdout.splitlines()
    assert [line.split("\t")[0] for line in plain] == ["1", "1"]


def test_outputs_that_repeat_themselves_are_told(trained, tmp_path, monkeypatch):
    said = {"a": "a b c", "b": "b b b b b b", "c c c c": "d d d d"}
    outputs = lambda _, lines, *rest, **more: ([Output(said[line], -1.0, -2.0, [])] for line in lines)  # noqa: E731
    monkeypatch.setattr(Translator, "translate", outputs)
    ran = heedful("translate", trained / "model", "--jsonl", text="a\nb\nc c c c\n")
    assert [json.loads(line)["repeats"] for line in ran.stdout.splitlines()] == [False, True, False]
    assert "1 output says the same words over and over; --no-repeat-ngram 3 forbids it" in ran.stderr


def test_score_gives_the_score_that_translate_reported(trained, tmp_path, monkeypatch):
    (tmp_path / "in").write_text("a b\nc d e\nf g a b\n")
    rows = [
        json.loads(line)
        for line in heedful("translate", trained / "model", "--input", tmp_path / "in", "--jsonl").stdout.splitlines()
    ]
    (tmp_path / "out").write_text("".join(row["text"] + "\n" for row in rows))
    ran = heedful("score", trained / "model", "--source", tmp_path / "in", "--target", tmp_path / "out")
    scores = [float(line.split("\t")[0]) for line in ran.stdout.splitlines()]
    assert scores == pytest.approx([row["score"] for row in rows], abs=2e-6)
    monkeypatch.setattr("heedful.cli.score.WINDOW", 2)
    again = heedful("score", trained / "model", "--source", tmp_path / "in", "--target", tmp_path / "out")
    assert again.stdout == ran.stdout


def test_evaluate_gives_scores_with_signatures_and_compares_two_models(trained):
    source, target = trained / "pairs.source", trained / "pairs.target"
    model = trained / "model"
    ran = heedful("evaluate", model, "--source", source, "--reference", target, "--against", model, "--json")
    rows = {row["metric"]: row for row in json.loads(ran.stdout)}
    assert "version:" in rows["BLEU"]["signature"]
    assert {"BLEU", "chrF", "TER"} <= set(rows)
    assert any("p = " in row["details"] for row in rows.values())
    rates = heedful("evaluate", model, "--source", source, "--reference", target, "--symbols", "--json")
    assert [row["metric"] for row in json.loads(rates.stdout)] == ["word error rate", "symbol error rate"]


def test_evaluate_takes_pairs_in_one_file(trained, tmp_path):
    texts = [(trained / name).read_text().splitlines() for name in ("pairs.source", "pairs.target")]
    (tmp_path / "pairs.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in zip(*texts, strict=True)))
    apart = ("--source", trained / "pairs.source", "--reference", trained / "pairs.target")
    for arguments in ((), ("--symbols",)):
        together = heedful("evaluate", trained / "model", "--source", tmp_path / "pairs.tsv", *arguments, "--json")
        assert together.returncode == 0, together.stderr
        assert together.stdout == heedful("evaluate", trained / "model", *apart, *arguments, "--json").stdout


def test_evaluate_searches_as_it_is_told(trained, tmp_path):
    source, target = trained / "pairs.source", trained / "pairs.target"
    search = ("--beam", "2", "--length-penalty", "3", "--max-extra", "-1")
    arguments = ("--source", source, "--reference", target, "--save", tmp_path / "out", *search)
    assert heedful("evaluate", trained / "model", *arguments).returncode == 0
    assert (tmp_path / "out").read_text() == heedful("translate", trained / "model", *search, "-i", source).stdout
    assert (tmp_path / "out").read_text() != heedful("translate", trained / "model", "-i", source).stdout


def test_a_model_of_the_other_direction_is_heard_where_it_is_given(trained, tmp_path):
    source, target = trained / "pairs.source", trained / "pairs.target"
    search = ("--reverse", trained / "model", "--reverse-weight", "50")
    arguments = ("--source", source, "--reference", target, "--save", tmp_path / "out", *search)
    assert heedful("evaluate", trained / "model", *arguments).returncode == 0
    assert (tmp_path / "out").read_text() == heedful("translate", trained / "model", *search, "-i", source).stdout
    assert (tmp_path / "out").read_text() != heedful("translate", trained / "model", "-i", source).stdout
    for more in (("--sample", "--n-best", "2"), ("--n-best", "5")):  # of which the best is judged
        ran = heedful("evaluate", trained / "model", *arguments, *more)
        assert ran.returncode == 0, ran.stderr


def test_a_finished_model_is_told_its_languages_and_how_to_search(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    search = ("--beam", "2", "--length-penalty", "3", "--min-length", "3")
    expected = heedful("translate", model, *search, text="a b c\nb c\n").stdout
    assert expected != heedful("translate", model, text="a b c\nb c\n").stdout, "or nothing would be configured"
    note = "the model says no languages"
    assert note in heedful("translate", model, "--document", text="a b. c d.").stderr
    ran = heedful("configure", model, "--languages", "en", "--languages", "de", *search)
    assert (ran.returncode, ran.stdout) == (
        0,
        f"{model}: languages en to de, beam 2, length penalty 3.0, min length 3\n",
    )
    assert heedful("translate", model, text="a b c\nb c\n").stdout == expected
    assert "en to de" in heedful("info", model).stdout
    assert note not in heedful("translate", model, "--document", text="a b. c d.").stderr
    document = ("translate", model, "--document")
    assert heedful("configure", model, "--n-best", "2").returncode == 0
    assert heedful(*document, "--batch", "1", text="a b. c d.").stdout == heedful(*document, text="a b. c d.").stdout
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"a b. c d." * 99)[:20])
    torn = heedful(*document, "-i", tmp_path / "torn.gz")
    assert (torn.returncode, "torn.gz: cannot be read" in torn.stderr) == (2, True)
    assert heedful("configure", model, "--n-best", "1").returncode == 0
    for wrong in ((), ("--beam", "0"), ("--languages", "en"), ("--languages", "English", "--languages", "German")):
        ran = heedful("configure", model, *wrong)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert heedful("translate", model, text="a b c\nb c\n").stdout == expected


def test_a_program_may_wait_for_each_answer(trained):
    command = [sys.executable, "-m", "heedful", "translate", str(trained / "model"), "--window", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        too_late = threading.Timer(100, program.kill)
        too_late.start()
        for line in ("a b c", "b c"):
            program.stdin.write(line + "\n")
            program.stdin.flush()
            assert program.stdout.readline().endswith("\n")
        program.stdin.close()
        assert program.wait(60) == 0
        too_late.cancel()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model", "--outputs", "pairs.target", "--source", "pairs.source"], "leave one of them out"),
        (["--outputs", "pairs.target", "--against", "model"], "give --source"),
        (["model"], "give --source"),
        ([], "needs a model folder"),
        (["model", "--source", "pairs.source", "--symbols", "--lowercase"], "alone: leave"),
        (["model", "--source", "pairs.source", "--symbols", "--against", "model"], "alone: leave"),
        (["model", "--source", "pairs.source", "--against", "typo"], "typo"),
        (["model", "--source", "pairs.source", "--save", "model"], "a folder"),
        (["model", "--source", "pairs.source", "--save", "/dev/stdout"], "the scores go there"),
        (["model", "--source", "pairs.source", "--save", "./pairs.target"], "read as a text"),
        (["model", "--source", "pairs.source", "--save", "model/../pairs.source"], "read as a text"),
        (["model", "--source", "pairs.source", "--save", "pairs.source/out"], "pairs.source: "),
        (["model", "--source", "short"], "short has 1 lines and pairs.target"),
        (["--outputs", "pairs.target", "--symbols"], "--symbols needs --source"),
        (["--outputs", "pairs.target", "--beam", "2"], "translated already"),
        (["--outputs", "pairs.target", "--reverse", "model"], "translated already"),
        (["--outputs", "pairs.target", "--weights", "int8"], "translated already"),
        (["model", "--source", "pairs.source", "--reverse-weight", "1"], "give --reverse"),
        (["--outputs", "short"], "short has 1 lines and pairs.target"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_translated(trained, monkeypatch, arguments, expected):
    (trained / "short").write_text("a b\n")
    monkeypatch.setattr("heedful.translator.Translator.translate", None)
    ran = heedful("evaluate", *arguments, "--reference", "pairs.target", cwd=trained)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert expected in ran.stderr


@pytest.mark.skipif(not multiplies("int8"), reason="8-bit weights are not to be had here")
def test_a_second_model_that_knows_no_such_weights_is_refused_before_the_first_translates(
    trained, tmp_path, monkeypatch
):
    words = Translator.load(trained / "model").vocabulary
    lstm = build_model(ModelConfig(family="lstm", d_model=8, encoder_layers=1, decoder_layers=1), *words.sizes)
    bundle.create(tmp_path / "lstm", to_table(lstm.config), words, {}, {})
    write_weights(tmp_path / "lstm" / bundle.WEIGHTS, weights_of(lstm))
    monkeypatch.setattr("heedful.translator.Translator.translate", None)
    pairs = ("--source", trained / "pairs.source", "--reference", trained / "pairs.target")
    ran = heedful("evaluate", trained / "model", "--against", tmp_path / "lstm", "--weights", "int8", *pairs)
    assert ran.returncode == 2
    assert "int8 weights are for Transformers" in ran.stderr


@pytest.mark.parametrize("symbols", [(), ("--symbols",)])
def test_an_evaluation_that_is_stopped_keeps_what_it_translated(trained, tmp_path, monkeypatch, symbols):
    lines = [" ".join(each) for each in itertools.islice(itertools.product("abcdefg", repeat=5), WINDOW + 1)]
    (tmp_path / "source").write_text("".join(f"{line}\n" for line in lines))
    whole = Translator._window

    def stopping(self, taken, *rest):
        if len(taken) == 1:  # the last
            raise KeyboardInterrupt
        return whole(self, taken, *rest)

    monkeypatch.setattr(Translator, "_window", stopping)
    pairs = ("--source", tmp_path / "source", "--reference", tmp_path / "source", "--beam", "1")
    ran = heedful("evaluate", trained / "model", *pairs, "--save", tmp_path / "out", *symbols)
    assert ran.returncode == 130
    assert "out.partial" in ran.stderr
    kept = (tmp_path / "out.partial").read_text().splitlines()
    assert len(kept) == WINDOW
    few = Translator.load(trained / "model").translate(lines[:9], SearchConfig(beam=1))
    assert kept[:9] == [found[0].text for found in few]


def test_an_empty_row_is_no_input(trained, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a b\tx\n\t\nc d\ty\n")
    (tmp_path / "outputs").write_text("x\n\nno\n")
    ran = heedful(
        "evaluate", "--outputs", tmp_path / "outputs", "--source", tmp_path / "pairs.tsv", "--symbols", "--json"
    )
    assert json.loads(ran.stdout)[0]["score"] == 50.0
    assert "2 inputs" in ran.stdout


def test_what_error_rates_saved_they_score_again(trained, tmp_path):
    source, target, saved = (tmp_path / name for name in ("source", "target", "saved"))
    source.write_text("a b\nc d\na b\n")
    target.write_text("x\ny z\nw\n")
    arguments = ("--symbols", "--source", source, "--reference", target, "--json")
    first = heedful("evaluate", trained / "model", *arguments, "--save", saved)
    assert len(saved.read_text().splitlines()) == 3
    assert heedful("evaluate", "--outputs", saved, *arguments).stdout == first.stdout
    saved.write_text("x\nq\nx\n")
    rows = json.loads(heedful("evaluate", "--outputs", saved, *arguments).stdout)
    assert [row["score"] for row in rows] == [50.0, 66.667]  # x is one of two ways; q is not "y z"
    saved.write_text("x\ny z\nnot x\n")
    assert "more than once" in heedful("evaluate", "--outputs", saved, *arguments).stderr


@pytest.mark.parametrize("line", ["\tHello.", "\u00a0", "\u3000Hello.\t", "\u2028"])
def test_a_line_of_a_pipe_is_the_line_of_a_file(tmp_path, line):
    (tmp_path / "in").write_text(f"{line}\n", encoding="utf-8")
    piped = heedful("translate", "en-de", text=f"{line}\n")
    assert piped.stdout == heedful("translate", "en-de", "--input", tmp_path / "in").stdout
    assert piped.stdout == (heedful("translate", "en-de", text="Hello.\n").stdout if line.strip() else "\n")


def test_output_is_utf8_whatever_the_terminal_has(trained):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="latin-1", newline="\r\n") for _ in range(2)]
    arguments = ["heedful", "attend", str(trained / "model"), "a b", "--json"]
    with (
        mock.patch.multiple(sys, argv=arguments, stdout=streams[0], stderr=streams[1]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert ended.value.code == 0
    streams[0].flush()
    assert SPACE in streams[0].buffer.getvalue().decode("utf-8")


def test_average_makes_a_model_that_translates_and_info_describes_it(trained, tmp_path):
    ran = heedful("average", trained / "model", "--last", "2", "--out", tmp_path / "mean")
    assert ran.returncode == 0, ran.stderr
    assert heedful("translate", tmp_path / "mean", text="a b\n").returncode == 0
    files = sorted((trained / "model" / "state" / "checkpoints").glob("step-*"))[-2:]
    expected, found = average_files(files), read_weights(tmp_path / "mean" / "weights.safetensors")
    assert all(torch.equal(found[name], weights) for name, weights in expected.items())
    described = json.loads(heedful("info", tmp_path / "mean", "--json").stdout)
    assert described["parameters"]["decoder"] > 0
    assert "parameters" in heedful("info", tmp_path / "mean").stdout
    assert not {"README.md", "log.jsonl"} & {file.name for file in (tmp_path / "mean").iterdir()}, "scores of others"


def test_weights_of_another_model_are_not_averaged(trained, tmp_path):
    ran = heedful("train", trained / "toy.toml", "--out", tmp_path / "wider", "--model.d-ff", "96")
    assert ran.returncode == 0, ran.stderr
    files = [folder / "weights.safetensors" for folder in (trained / "model", tmp_path / "wider")]
    arguments = ["--out", tmp_path / "mean", *(item for file in files for item in ("--weights", file))]
    ran = heedful("average", trained / "model", *arguments)
    assert (ran.returncode, "weights of another model" in ran.stderr) == (2, True)
    ran = heedful("average", trained / "model", *arguments, "--last", "2")
    assert (ran.returncode, "leave one of them out" in ran.stderr) == (2, True)
    assert not (tmp_path / "mean").exists()


def test_an_ensemble_is_a_model_for_every_command_but_those_of_training(trained, tmp_path):
    both = tmp_path / "both"
    (trained / "a.txt").write_text("a b\nb c a\n")
    for arguments in (
        ("average", trained / "model", "--last", "2", "--out", tmp_path / "mean"),
        ("ensemble", trained / "model", tmp_path / "mean", "--out", both),
        ("translate", both),
        ("attend", both, "a b"),
        ("score", both, "--source", trained / "a.txt", "--target", trained / "a.txt"),
        ("evaluate", both, "--source", trained / "a.txt", "--reference", trained / "a.txt"),
        ("bench", "translate", both, "--input", trained / "a.txt"),
        ("translate", both, "--document"),
        ("align", both, "--source", trained / "pairs.source", "--target", trained / "pairs.target"),
        ("configure", both, "--beam", "2", "--languages", "en", "--languages", "de"),
    ):
        ran = heedful(*arguments, text="a b\n")
        assert ran.returncode == 0, ran.stderr
    described, alone = (json.loads(heedful("info", folder, "--json").stdout) for folder in (both, trained / "model"))
    assert described["parameters"] == {part: 2 * count for part, count in alone["parameters"].items()}
    assert "model, mean" in heedful("info", both).stdout
    again = heedful("ensemble", trained / "model", tmp_path / "mean", "--out", both)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    refused = heedful("train", trained / "toy.toml", "--start-from", both, "--out", tmp_path / "more")
    assert refused.returncode == 2
    assert "start from one of its members" in refused.stderr


def test_attend_waits_for_no_input_where_an_empty_text_is_given(trained):
    ran = heedful("attend", trained / "model", "", text="a b\n")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "the text is empty" in ran.stderr


def test_attend_shows_which_symbols_were_looked_at_in_every_form(trained, tmp_path):
    written = [part for name in ("html", "plot", "npz") for part in (f"--{name}", tmp_path / f"a.{name}")]
    written[3] = tmp_path / "a.svg"
    ran = heedful("attend", trained / "model", "a b c", "--show", "cross.0.1", *written)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == heedful("translate", trained / "model", text="a b c\n").stdout.strip()
    assert "cross attention, layer 0, head 1" in ran.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.npz", "a.svg"]
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["cross.0"].shape[1:] == (len(arrays["target_pieces"]), len(arrays["source_pieces"]))
    table = json.loads(heedful("attend", trained / "model", "--json", text="a b c\n").stdout)
    assert table["source"] == "a b c"
    two = heedful("translate", trained / "model", "--n-best", "2", "--beam", "4", text="a b c\n").stdout.splitlines()
    second = json.loads(heedful("attend", trained / "model", "a b c", "--json", "--beam", "4", "--rank", "2").stdout)
    assert second["text"] == two[1].split("\t")[2]
    without = json.loads(heedful("attend", trained / "model", "a b c", "--json", "--without", "cross.0").stdout)
    assert without["score"] != table["score"]
    assert (table["without"], without["without"]) == ([], ["cross.0"])
    assert len(table["alternatives"]) > 1, "the beam's, though one output is asked for"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--show", "cross.7"], "no attention 'cross.7'"),
        (["--show", "cross.0.²"], "no attention 'cross.0.²'"),
        (["--without", "cross.0.9"], "no attention 'cross.0.9'"),
        (["--plot", "a.gif"], "end the name with one of"),
        (["--kind", "encoder"], "--kind is for the picture: give --plot FILE"),
        (["--html", "a.html", "--plot", "a.svg"], "a page shows at most 2: give a shorter text"),
    ],
)
def test_what_attend_cannot_show_is_said_in_one_line(trained, tmp_path, arguments, expected, monkeypatch):
    monkeypatch.setattr("heedful.inspection.attention_page.LONGEST", 2)
    ran = heedful("attend", trained / "model", "a b", *arguments, cwd=tmp_path)
    assert ran.returncode == 2
    assert expected in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["lstm", "lstm-attention", "convolution"])
def test_other_families_train_stop_resume_translate_and_are_described(trained, tmp_path, family):
    toy, out = trained / "toy.toml", tmp_path / "model"
    settings = ["--model.family", family, "--model.encoder-layers", "2", "--model.decoder-layers", "2"]
    settings += ["--training.precision", "float32"]
    ran = heedful("train", toy, "--out", out, *settings)
    assert ran.returncode == 0, ran.stderr
    asked = itertools.count(1)
    with mock.patch("heedful.cli.train.run", lambda *given: run(*given[:2], stop=lambda: next(asked) == 11)):
        ran = heedful("train", toy, "--out", tmp_path / "stopped", *settings)
    assert "stopped at step 11" in ran.stderr
    ran = heedful("train", "--resume", tmp_path / "stopped")
    assert ran.returncode == 0, ran.stderr
    stopped, whole = (folder / "weights.safetensors" for folder in (tmp_path / "stopped", out))
    assert stopped.read_bytes() == whole.read_bytes()
    assert heedful("translate", out, text="a b\n").returncode == 0
    assert family in heedful("info", out).stdout
    ran = heedful("attend", out, "a b c")
    expected = {"lstm": "attends to nothing", "lstm-attention": "cross attention, layer 0"}
    assert expected.get(family, "cross attention, layer ") in ran.stdout  # which of two aligns words was measured


def test_the_lab_lists_runs_and_reports(tmp_path):
    pytest.importorskip("matplotlib")
    listed = heedful("lab", "list").stdout
    assert "attention-steps" in listed
    assert "minutes quick" in listed
    ran = heedful("lab", "run", "attention-steps", "--quick", "--out", tmp_path / "lab")
    assert ran.returncode == 0, ran.stderr
    assert "agrees with the model's own" in ran.stdout.replace("\n", " ")
    (tmp_path / "lab" / "report.html").unlink()
    assert heedful("lab", "report", tmp_path / "lab").stdout.strip().endswith("report.html")
    assert (tmp_path / "lab" / "report.html").is_file()
    assert heedful("lab", "run", "nothing").returncode == 2
    for _ in range(2):  # a name that looks like markup; the second time it is told that the result is there already
        ran = heedful("lab", "run", "attention-steps", "--quick", "--out", "[/a]", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert "already in [/a]" in ran.stderr
    assert "lab run all --quick" in heedful("lab", "report", tmp_path / "absent").stderr


def test_bench_shows_where_time_goes_and_leaves_nothing_behind(trained, tmp_path):
    ran = heedful("bench", "train", trained / "toy.toml", "--steps", "2", "--batches.tokens", "64", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    for row in ("data", "forward", "backward", "optimizer", "target tokens a second", "share of the peak, %"):
        assert row in ran.stdout
    ran = heedful("bench", "translate", trained / "model", "-i", trained / "pairs.source", "--beam", "2", "--json")
    figures = json.loads(ran.stdout)
    assert set(figures["seconds"]) == {"text", "encode", "step", "select", "search"}
    assert figures["sentences a second"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--source", "absent.en", "--target", "absent.de"], "absent.en: no such file"),
        (["train"], "--source FILE and --target FILE"),
        (["train", "absent.toml"], "absent.toml: no such file"),
        (["train", "--soruce", "x"], "Did you mean"),
        (["trian"], "Did you mean"),
        (["translate", "nowhere"], "not a model folder"),
        (["train", "--resume", "nowhere"], "no training to resume"),
        (["train", "--training.checkpoint-every", "0"], "training: checkpoint_every 0 must be at least 1"),
        (["train", "--model.dropout", "1.5"], "model: dropout 1.5 must be between 0 and 0.99"),
        (["train", "--training.beta1", "1"], "training: beta1 1.0 must be between 0 and 0.99999"),
        (["train", "--training.patience", "3", "--preset", "fast"], "set training.evaluate_every above 0"),
        (
            ["translate", "en-de", "--temperature", "0.5"],
            "search: nothing reads temperature 0.5 (it is for sample yes)",
        ),
        (["translate", "en-de", "--sample", "--beam", "8"], "leave one of them out"),
        (
            ["train", "my.toml", "--model.rotary", "true"],
            "a yes/no flag stands alone (--model.rotary, --model.no-rotary)",
        ),
        (["train", "--data.drop-duplicates", "no"], "no: no such recipe; a flag with several values is repeated"),
        (["train", "--data.drop-duplicates", "no"], "a yes/no flag stands alone (--model.rotary, --model.no-rotary)"),
        (["train", "--data.languages", "en", "de"], "de: no such recipe; a flag with several values is repeated"),
        (["translate", "en-de", "new.en"], "nothing takes 'new.en' here; a file goes with its flag (--input FILE)"),
        (["translate", "en-de", "--device", "nonsense"], "device nonsense: not to be had here"),
        (["translate", "en-de", "--no-repeat-ngram", "-1"], "no_repeat_ngram -1 must be at least 0"),
        (["translate", "en-de", "--threads", "-1"], "--threads. Must be >= 0"),
        (["configure", "en-de", "--beam", "5"], "a model in the box stays as it is; copy"),
        (["align", "en-de", "--source", "x", "--target", "y"], "a model in the box stays as it is; copy"),
        (["translate", "en-de", "--document", "--window", "1"], "leave --jsonl, --prefix, --n-best and --window out"),
        (["train", "--source", "a", "--target", "b", "--data.languages", "English"], "1 languages"),
        (["translate", "en-de", "--window", "0"], "--window. Must be >= 1"),
        (["translate", "en-de", "--max-extra", "100000000"], "max_extra 100000000 must be between"),
        (["translate", "en-de", "--beam", "100000"], "beam 100000 must be between 1 and 10000"),
        (["evaluate", "en-de", "--reference", "x", "--beam", "0"], "search: beam 0 must be between 1 and"),
        (["info", "en-de", "--length", "0"], "--length. Must be >= 1"),
        (["score", "en-de", "--source", "x", "--batch", "0"], "--batch. Must be >= 1"),
        (["align", "en-de", "--source", "x", "--target", "y", "--tested", "0"], "--tested. Must be >= 1"),
    ],
)
def test_a_mistake_gets_a_line_that_names_the_remedy_and_status_2(arguments, expected, tmp_path):
    ran = heedful(*arguments, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert expected in ran.stderr


def test_a_mistake_in_the_settings_can_be_mended_in_the_same_folder(trained, tmp_path):
    ran = heedful("train", trained / "toy.toml", "--out", tmp_path, "--data.max-length", "1")
    assert (ran.returncode, "raise data.max_length" in ran.stderr) == (2, True)
    (tmp_path / "state" / "checkpoints").mkdir(parents=True)  # as a kill before the first state leaves it
    (tmp_path / "state" / "checkpoints" / "step-00000009.safetensors").write_text("of another run")
    ran = heedful("train", trained / "toy.toml", "--out", tmp_path, "--training.steps", "2")
    assert ran.returncode == 0, ran.stderr


def test_a_model_whose_state_is_gone_is_not_trained_over(trained, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "copy", ignore=shutil.ignore_patterns("state"))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    ran = heedful("train", "--resume", tmp_path / "copy")
    assert ran.returncode == 2
    assert "--start-from" in ran.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == kept


def test_a_second_demo_in_the_same_place_is_refused(tmp_path):
    with claimed(tmp_path / "demo"):
        ran = heedful("demo", cwd=tmp_path)
    assert (ran.returncode, "another process writes there" in ran.stderr) == (2, True)
    assert "Must be > 0" in heedful("demo", "--minutes", "0", cwd=tmp_path).stderr


def test_a_text_is_not_translated_for_a_place_that_is_a_folder(trained, tmp_path):
    ran = heedful("translate", trained / "model", "--output", tmp_path, text="a b\n")
    assert (ran.returncode, ran.stderr) == (
        2,
        f"heedful: {tmp_path}: Is a directory; look at its path and permissions, or make room on its disk\n",
    )


def test_half_a_character_on_the_command_line_is_shown_as_the_model_reads_it(trained):
    ran = heedful("attend", trained / "model", "a \udce9 b", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["source"] == "a ? b"


def test_square_brackets_in_a_folders_name_are_shown(trained, tmp_path):
    ran = heedful("train", trained / "toy.toml", "--out", tmp_path / "[bold]", "--training.steps", "2")
    assert f"heedful translate '{tmp_path / '[bold]'}' -i" in ran.stderr  # quoted, as a shell wants it


def test_models_that_say_nothing_of_languages_make_an_ensemble(tmp_path):
    old = Path(__file__).parents[1] / "golden" / "format-1"
    ran = heedful("ensemble", old, old, "--out", tmp_path / "both")
    assert ran.returncode == 0, ran.stderr
    assert heedful("info", tmp_path / "both").returncode == 0


@pytest.mark.parametrize("names", [["thesis.tex"], ["model"], ["train.letters", "thesis.tex"]])
def test_the_demo_removes_nothing_of_others(tmp_path, names):
    (tmp_path / "demo").mkdir()
    for name in names:
        (tmp_path / "demo" / name).write_text("years")
    ran = heedful("demo", cwd=tmp_path)
    assert ran.returncode == 2
    assert "choose another --out" in ran.stderr
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(names)


def test_text_comes_from_and_goes_to_pipes_and_a_byte_order_mark_is_no_text(trained, tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa b c\n")
    expected = heedful("translate", trained / "model", text="a b c\n").stdout
    assert heedful("translate", trained / "model", "-i", tmp_path / "text").stdout == expected
    assert heedful("translate", trained / "model", text=(tmp_path / "text").read_bytes()).stdout == expected
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("a b c\n"))
    writer.start()
    with mock.patch("rich.console.Console.is_terminal", True):
        assert heedful("translate", trained / "model", "-i", tmp_path / "pipe").stdout == expected
    writer.join()
    assert heedful("translate", trained / "model", "-o", "/dev/null", text="a b c\n").returncode == 0
    assert Path("/dev/null").is_char_device()


# print's way out, rich's, and that of rich's within cyclopts
@pytest.mark.parametrize("arguments", [["translate", "model", "-i", "few"], ["info", "model"], ["train", "--help"]])
def test_a_reader_that_has_left_ends_it_without_a_word(trained, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    (trained / "few").write_text("a b c\n")  # written when all is done
    command = [sys.executable, "-m", "heedful", *arguments]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, cwd=trained)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("closed", "arguments", "expected"),
    [
        ("0<&-", "translate model", (0, b"", b"")),
        ("1>&-", "translate model -i few", (2, b"", b"heedful: standard output is closed; give --output FILE\n")),
        ("1>&-", "translate model -i few -o out", (0, b"", b"")),
        ("2>&-", "translate nowhere -i few", (2, b"", b"")),
    ],
)
def test_a_stream_that_is_closed_is_as_good_as_none(trained, closed, arguments, expected):
    (trained / "few").write_text("a b c\n")
    command = f"exec {sys.executable} -m heedful {arguments} {closed}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, check=False, cwd=trained)
    assert (ran.returncode, ran.stdout, ran.stderr) == expected


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
def test_what_was_translated_is_kept_when_a_cluster_ends_it(trained, tmp_path):
    os.mkfifo(tmp_path / "in")
    command = [sys.executable, "-m", "heedful", "translate", trained / "model", "-i", tmp_path / "in", "--window", "1"]
    with (
        subprocess.Popen([*command, "-o", tmp_path / "out"], stderr=subprocess.PIPE) as running,
        (tmp_path / "in").open("w") as writing,
    ):
        writing.write("a b c\nb c a\n")
        writing.flush()
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in tmp_path.glob(".out.*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        running.terminate()
        said = running.stderr.read().decode()
    assert (running.returncode, said) == (
        143,
        f"heedful: what was translated so far is in {tmp_path / 'out.partial'}\n",
    )
    assert (tmp_path / "out.partial").read_text().endswith("\n")
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
def test_a_closed_terminal_ends_nothing_that_nohup_began(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with output._ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_attend_reads_one_line_of_utf8(trained):
    ran = heedful("attend", trained / "model", text=b"a b \xff\n")
    assert (ran.returncode, "standard input:1: not UTF-8" in ran.stderr) == (2, True)


def test_bfloat16_is_refused_where_it_would_be_slower(trained, monkeypatch):
    monkeypatch.setattr("heedful.cli.model.multiplies", lambda _weights: False)
    monkeypatch.setattr("heedful.model.linear.has_native_bfloat16", lambda _device: False)
    ran = heedful("translate", trained / "model", "--weights", "bfloat16", text="a b\n")
    assert ran.returncode == 2
    assert "leave --weights out" in ran.stderr


def test_int8_is_refused_where_it_cannot_be_had(trained, without_compiler):
    ran = heedful("translate", trained / "model", "--weights", "int8", text="a b\n")
    assert ran.returncode == 2
    assert ran.stderr == ("heedful: int8 weights are not to be had here (HEEDFUL_COMPILE is 0): leave --weights out\n")


def test_a_translation_that_takes_longer_for_want_of_a_compiler_says_so(trained, without_compiler, monkeypatch):
    monkeypatch.delenv("HEEDFUL_COMPILE")
    monkeypatch.setenv("CXX", "no-such-g++")
    _say_slow.cache_clear()
    ran = heedful("translate", trained / "model", text="a b\n")
    assert ran.returncode == 0
    why = "no C++ compiler was found (no-such-g++); install one, or name one in CXX"
    assert f"without compiled steps takes longer: {why}\n" in ran.stderr
    _say_slow.cache_clear()
    monkeypatch.setenv("HEEDFUL_COMPILE", "0")  # as was wanted
    native._compiled.cache_clear()
    assert "takes longer" not in heedful("translate", trained / "model", text="a b\n").stderr


def test_a_model_that_is_set_to_draw_says_how_to_search_instead(trained, tmp_path):
    folder = shutil.copytree(trained / "model", tmp_path / "drawing")
    assert heedful("configure", folder, "--sample").returncode == 0
    ran = heedful("translate", folder, "--beam", "2", text="a b\n")
    assert (ran.returncode, "add --no-sample" in ran.stderr) == (2, True)
    assert heedful("translate", folder, "--beam", "2", "--no-sample", text="a b\n").returncode == 0


def test_align_finds_the_head_and_keeps_it(trained):
    folder = shutil.copytree(trained / "model", trained / "aligned")
    source, target = write_pairs(trained)
    ran = heedful("align", folder, "--source", source, "--target", target)
    assert ran.returncode == 0, ran.stderr
    best = ran.stdout.split()[0]
    assert best.startswith("cross.")
    heedful("average", folder, "--last", "2", "--out", trained / "mean")
    told = heedful("info", trained / "mean").stdout
    assert (best in told, "agrees with a lexicon" in told) == (True, False), "these weights were not asked"
    assert "alignment" in (told := heedful("info", folder).stdout)
    assert best in told
    (trained / "one").write_text("a\n")
    (trained / "other").write_text("a b c d e\n")
    ran = heedful("align", folder, "--source", trained / "other", "--target", trained / "one")
    assert (ran.returncode, "too few" in ran.stderr) == (2, True)


def test_prefixes_markup_and_pairs_are_taken_on_the_command_line(trained, tmp_path):
    model = trained / "model"
    (tmp_path / "begin").write_text("g g\n\n")
    found = heedful("translate", model, "--prefix", tmp_path / "begin", text="a b\nc d\n").stdout.splitlines()
    assert found[0].startswith("g g")
    assert found[1] == heedful("translate", model, text="c d\n").stdout.strip()
    for text, expected in [("a b\n", "goes on where the text has ended"), ("a\nb\nc\n", "ends after line 2 where")]:
        ran = heedful("translate", model, "--prefix", tmp_path / "begin", text=text)
        assert (ran.returncode, ran.stderr.count("\n"), expected in ran.stderr) == (2, 1, True), ran.stderr
    html = heedful("translate", "en-de", "--document", "--markup", text="<p>Good <b>morning</b>!</p>").stdout
    assert html.startswith("<p>")
    assert "<b>" in html
    for name, text in {"in": "a b\n", "out": "b a\n", "pairs.tsv": "a b\tb a\n"}.items():
        (tmp_path / name).write_text(text)
    apart = heedful("score", model, "--source", tmp_path / "in", "--target", tmp_path / "out").stdout
    assert heedful("score", model, "--source", tmp_path / "pairs.tsv").stdout == apart
    flat = heedful("score", model, "--source", tmp_path / "pairs.tsv", "--length-penalty", "0").stdout.split()
    assert flat[0] == flat[1]


def test_what_a_model_says_of_itself_is_shown_as_it_stands(trained, tmp_path):
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    said = "[bold]us[/] and [/them] :x:"
    bundle.amend(folder, provenance={**bundle.read_manifest(folder)["provenance"], "data": said})
    assert said in heedful("info", folder).stdout


def test_invalid_input_and_unwritable_places_end_calmly(trained, tmp_path):
    ran = heedful("translate", trained / "model", text=b"a b\n\xff\xfe\n")
    assert ran.returncode == 2
    assert "standard input:2: not UTF-8" in ran.stderr
    ran = heedful("translate", trained / "model", "--output", "/proc/nothing/out", text="a\n")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_reader_that_leaves_ends_the_program_quietly(trained, tmp_path):
    (tmp_path / "in").write_text("a b c\n" * 20_000)
    program = f"{sys.executable} -m heedful translate {trained / 'model'} --beam 1 -i {tmp_path / 'in'} | head -n 1"
    ran = subprocess.run(program, shell=True, capture_output=True, text=True, timeout=100)
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stderr == ""


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_too_little_memory_ends_in_a_line(trained, monkeypatch, error):
    def fail(*_arguments, **_more):
        raise error

    monkeypatch.setattr("heedful.translator.Translator.translate", fail)
    ran = heedful("translate", trained / "model", text="a\n")
    assert (ran.returncode, ran.stderr) == (
        2,
        "heedful: not enough memory; try a smaller --batch, --beam or batches.tokens, or shorter lines\n",
    )


def test_help_says_that_a_search_is_the_models_own_unless_told_otherwise():
    said = " ".join(heedful("translate", "--help").stdout.replace("\u2502", "").split())
    assert "the model's own, in a new one 0.6" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--help"], "translate"), (["evaluate", "--outputs", "text", "--reference", "text"], "100.00")],
)
def test_help_and_scores_of_text_come_without_torch(tmp_path, arguments, expected):
    (tmp_path / "text").write_text("a b c d e\n")
    assert expected in without_torch(*arguments, cwd=tmp_path)


def without_torch(*arguments, cwd, text=""):
    code = """
import sys
from heedful.cli.app import make_app
make_app()(sys.argv[1:], result_action="return_value")
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, cwd=cwd)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "choices",
    [[], ["--weights", "int8"], ["--weights", "bfloat16"], ["--document"], ["--beam", "1", "--threads", "2"]],
)
def test_the_models_in_the_box_translate_without_torch_where_a_compiler_is(tmp_path, choices):
    weights = choices[1] if "--weights" in choices else "float32"
    if not multiplies(weights):
        pytest.skip(f"no C++ compiler here, or no {weights}")
    said = without_torch("translate", "en-de", *choices, cwd=tmp_path, text="Where is the station?\n")
    assert said == "Wo ist der Bahnhof?\n"


def test_a_model_is_evaluated_without_torch_where_a_compiler_is(tmp_path):
    if not multiplies("float32"):
        pytest.skip("no C++ compiler here")
    (tmp_path / "source").write_text("Where is the station?\n")
    (tmp_path / "reference").write_text("Wo ist der Bahnhof?\n")
    said = without_torch("evaluate", "en-de", "--source", "source", "--reference", "reference", cwd=tmp_path)
    assert "100.00" in said


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copy", "reverse", "sort"])
def test_copying_reversing_and_sorting_are_learned_through_the_command_line(task, tmp_path):
    # sorting is learned from many examples, the others from many passes
    pairs, steps = (30_000, 1800) if task == "sort" else (6000, 1300)
    source, target = write_pairs(tmp_path / "train", pairs, seed=1, length=7, task=task)
    new_source, new_target = write_pairs(tmp_path / "test", 200, seed=2, length=7, task=task)
    # warmed up, and falling nearly all the way: the result hangs less on the seed
    rate = {"rate": 3e-3, "warmup": 100, "decay": 0.9}
    table = settings(source, target, steps=steps, checkpoint_every=40, evaluate_every=0, **rate)
    table["model"] |= {
        "d_model": 64,
        "d_ff": 128,
        "heads": 4,
        "dropout": 0.0,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "normalization": "pre",
    }
    table["batches"] = {"tokens": 1024}
    table["data"]["drop_duplicates"] = True
    (tmp_path / "task.toml").write_text(tomli_w.dumps(table))
    began = time.monotonic()
    ran = heedful("train", tmp_path / "task.toml", "--out", tmp_path / "model", "--training.threads", "1")
    assert ran.returncode == 0, ran.stderr
    ran = heedful(
        "evaluate", tmp_path / "model", "--source", new_source, "--reference", new_target, "--symbols", "--json"
    )
    wrong = json.loads(ran.stdout)[0]["score"]
    print(f"{task}: {wrong} % of new sequences wrong after {time.monotonic() - began:.0f} s")
    assert wrong <= 5.0


def test_a_full_disk_ends_in_a_line(trained, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        ran = heedful("average", trained / "model", "--last", "2", "--out", tmp_path / "mean")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (ran.returncode, ran.stderr.count("\n"), "make room" in ran.stderr) == (2, 1, True), ran.stderr
    assert not list(tmp_path.iterdir())


def test_no_command_asks_the_network(trained, tmp_path, monkeypatch):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)  # whoever asks may keep silent about it
        raise OSError("there is no network")

    for place, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(place, name, refuse)
    source, target = trained / "pairs.source", trained / "pairs.target"
    for given in (
        ("train", trained / "toy.toml", "--out", tmp_path / "model", "--training.steps", "2"),
        ("translate", "en-de"),
        ("translate", "en-de", "--document"),
        ("attend", "en-de", "A dog.", "--html", tmp_path / "page.html"),
        ("evaluate", tmp_path / "model", "--source", source, "--reference", target),
        ("info", "en-de"),
        ("score", tmp_path / "model", "--source", source, "--target", target),
    ):
        ran = heedful(*given, text="Hello.\n")
        assert ran.returncode == 0, ran.stderr
        assert not asked, given


def test_two_models_are_compared_by_their_own_scores(trained):
    heedful("train", trained / "toy.toml", "--out", trained / "brief", "--training.steps", "2")
    given = ("--source", trained / "pairs.source", "--reference", trained / "pairs.target", "--json")
    one, two = (
        json.loads(heedful("evaluate", trained / name, *given).stdout)[1]["score"] for name in ("model", "brief")
    )
    assert one != two
    ran = heedful("evaluate", trained / "model", "--against", trained / "brief", *given)
    [row] = [row for row in json.loads(ran.stdout) if row["metric"].startswith("chrF, ")]
    assert [float(number) for number in row["score"].split(" : ")] == pytest.approx([one, two], abs=0.006)


def test_the_other_direction_is_heard_by_and_from_ensembles_and_in_documents(trained, tmp_path):
    model, both = trained / "model", tmp_path / "both"
    heedful("average", model, "--last", "1", "--out", tmp_path / "mean")
    heedful("ensemble", model, tmp_path / "mean", "--out", both)
    for one, other, more in ((both, model, ()), (model, both, ()), (both, both, ("--document",))):
        given = ("translate", one, "-i", trained / "pairs.source", *more)
        ran = heedful(*given, "--reverse", other, "--reverse-weight", "50")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout != heedful(*given).stdout


def test_nothing_is_written_for_a_head_that_is_not_there(trained, tmp_path):
    ran = heedful("attend", trained / "model", "a b", "--html", "page.html", "--show", "cross.7", cwd=tmp_path)
    assert (ran.returncode, list(tmp_path.iterdir())) == (2, []), ran.stderr


@pytest.mark.parametrize("said", ["std::bad_alloc", "not enough memory: you tried to allocate 8 bytes."])
def test_however_torch_says_that_memory_is_out_it_is_a_line(trained, monkeypatch, said):
    def full(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr("heedful.translator.Translator.translate", full)
    ran = heedful("translate", trained / "model", text="a b\n")
    assert (ran.returncode, "not enough memory; try" in ran.stderr, ran.stderr.count("\n")) == (2, True, 1)


def test_weights_and_device_arrive_where_they_are_wanted(trained, monkeypatch):
    asked = []

    def load(folder, device="cpu", weights="float32"):
        asked.append((device, weights))
        raise HeedfulError("enough")

    monkeypatch.setattr("heedful.translator.Translator.load", load)
    source = trained / "pairs.source"
    given = ("--source", source, "--reference", trained / "pairs.target")
    for command in (("translate",), ("evaluate", *given), ("bench", "translate", "-i", source), ("serve",)):
        ran = heedful(*command, trained / "model", "--weights", "int8")
        assert (ran.returncode, asked) == (2, [("cpu", "int8")]), (command, ran.stderr)
        asked.clear()


def test_scores_are_of_the_references_and_settings_that_were_given(trained, tmp_path):
    texts = {"out": "The cat sat on the mat .\n", "one": "the cat sat on a mat.\n", "two": "The dog sat on the mat.\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    references = ("--reference", tmp_path / "one", "--reference", tmp_path / "two")
    ran = heedful("evaluate", "--outputs", tmp_path / "out", *references, "--lowercase", "--tokenize", "intl", "--json")
    bleu = json.loads(ran.stdout)[0]
    expected = sacrebleu.BLEU(lowercase=True, tokenize="intl")
    score = expected.corpus_score([texts["out"].strip()], [[texts["one"].strip()], [texts["two"].strip()]]).score
    assert bleu["score"] == pytest.approx(score, abs=5e-4)
    assert "nrefs:2" in bleu["signature"]


def test_alignments_are_told_by_translate_and_score_alike(tmp_path):
    (tmp_path / "in").write_text("The dog sleeps.\n")
    ran = heedful("translate", "en-de", "-i", tmp_path / "in", "--jsonl")
    (row,) = map(json.loads, ran.stdout.splitlines())
    (tmp_path / "out").write_text(row["text"] + "\n")
    ran = heedful("score", "en-de", "--source", tmp_path / "in", "--target", tmp_path / "out", "--jsonl")
    (scored,) = map(json.loads, ran.stdout.splitlines())
    assert scored["alignment"] == row["alignment"] != []


def test_what_was_translated_before_an_error_is_kept_beside_the_output(trained, tmp_path):
    (tmp_path / "in").write_bytes(b"a b\nc\n\xff\n")
    out = tmp_path / "out"
    ran = heedful("translate", trained / "model", "-i", tmp_path / "in", "-o", out, "--window", "1")
    assert ran.returncode == 2
    assert "in:3: not UTF-8" in ran.stderr
    assert f"what was translated so far is in {out}.partial" in ran.stderr
    assert (out.exists(), len((tmp_path / "out.partial").read_text().splitlines())) == (False, 2)
    (tmp_path / "in").write_bytes(b"a b\n\xff\n")
    ran = heedful("translate", trained / "model", "-i", tmp_path / "in", "-o", out, "--window", "1")
    assert f"what was translated so far is in {out}.partial.2" in ran.stderr
    kept = [len((tmp_path / name).read_text().splitlines()) for name in ("out.partial", "out.partial.2")]
    assert kept == [2, 1]


def test_a_line_that_is_no_sentence_is_told_of_once(trained, monkeypatch):
    monkeypatch.setattr("heedful.cli.translate.LONG", 5)
    ran = heedful("translate", trained / "model", text="a b\na b c a b c\nb c a b c\n")
    assert ran.returncode == 0
    assert ran.stderr.count("as one sentence; --document finds the sentences") == 1
    assert "line 2 has 11 characters" in ran.stderr


def test_what_is_translated_but_cannot_be_put_in_its_place_is_kept(trained, tmp_path, monkeypatch):
    def over_quota(_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", over_quota)
    out = tmp_path / "out"
    ran = heedful("translate", trained / "model", "-o", out, text="a b\nc\n")
    assert ran.returncode == 2
    assert f"what was translated so far is in {out}.partial" in ran.stderr
    assert len((tmp_path / "out.partial").read_text().splitlines()) == 2
    given = ["--source", trained / "pairs.source", "--reference", trained / "pairs.target"]
    ran = heedful("evaluate", trained / "model", *given, "--save", tmp_path / "test")
    assert f"what was translated so far is in {tmp_path / 'test.partial'}" in ran.stderr
    lines = len((trained / "pairs.source").read_text().splitlines())
    assert len((tmp_path / "test.partial").read_text().splitlines()) == lines


def test_standard_output_by_its_name_does_not_replace_the_file_that_it_goes_to(trained, tmp_path):
    (tmp_path / "in").write_text("a b c\n")
    (tmp_path / "out").write_text("what was there\n")
    with (tmp_path / "out").open("a") as file:
        command = [sys.executable, "-m", "heedful", "translate", trained / "model", "-i", tmp_path / "in"]
        subprocess.run([*command, "-o", "/dev/stdout"], stdout=file, check=True)
    assert (tmp_path / "out").read_text().splitlines()[0] == "what was there"
    assert len((tmp_path / "out").read_text().splitlines()) == 2


@pytest.mark.parametrize(("command", "flag"), [("translate", "-o"), ("evaluate", "--save")])
def test_plain_text_is_not_written_under_the_name_of_compressed_text(trained, tmp_path, command, flag):
    given = ["--source", trained / "pairs.source", "--reference", trained / "pairs.target"]
    more = ["-i", trained / "pairs.source"] if command == "translate" else given
    ran = heedful(command, trained / "model", *more, flag, tmp_path / "out.gz")
    assert (ran.returncode, "leave .gz out" in ran.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_lines_are_not_counted_where_they_are_written_to_the_same_terminal(monkeypatch, tmp_path):
    (tmp_path / "in").write_text("a\n")
    counted = []
    monkeypatch.setattr(translate, "read_lines", lambda path: counted.append(path) or iter("a"))
    monkeypatch.setattr(translate, "terminal", lambda stderr: Console(file=io.StringIO(), force_terminal=stderr))
    for same in (True, False):
        monkeypatch.setattr(translate.sys, "stdout", mock.Mock(isatty=lambda same=same: same))
        with translate._progress(tmp_path / "in", None) as advance:
            advance(1)
        assert len(counted) == (not same)


def test_a_model_in_the_box_is_not_changed_by_another_way_to_its_folder_either(tmp_path):
    (tmp_path / "mine").symlink_to(bundle.BOX / "en-de")
    for cwd, name in ((tmp_path, "mine"), (bundle.BOX, "en-de")):
        ran = heedful("configure", name, "--beam", "5", cwd=cwd)
        assert ran.returncode == 2
        assert "a model in the box stays as it is" in ran.stderr


def test_a_model_of_a_language_without_spaces_is_scored_by_its_characters(trained, tmp_path):
    model = shutil.copytree(trained / "model", tmp_path / "model")
    bundle.amend(model, languages=["en", "zh"])
    given = ["--source", trained / "pairs.source", "--reference", trained / "pairs.target", "--json"]
    told, chosen = (
        json.loads(heedful("evaluate", model, *given, *more).stdout)[0]["signature"]
        for more in ([], ["--tokenize", "intl"])
    )
    assert ("tok:zh" in told, "tok:intl" in chosen) == (True, True)
    of_outputs = heedful("evaluate", "--outputs", trained / "pairs.target", "--against", model, *given)
    assert "tok:zh" in json.loads(of_outputs.stdout)[0]["signature"]


def test_under_torchrun_a_training_that_is_stopped_ends_with_0(trained, tmp_path):
    asked = itertools.count(1)
    with (
        mock.patch("heedful.cli.train.world_size", return_value=2),
        mock.patch("heedful.cli.train.run", lambda *given: run(*given[:2], stop=lambda: next(asked) == 3)),
    ):
        ran = heedful("train", trained / "toy.toml", "--out", tmp_path / "model")
    assert (ran.returncode, "stopped at step 3" in ran.stderr) == (0, True), ran.stderr


def test_serve_believes_the_proxies_that_it_is_told_of_and_opens_a_browser(monkeypatch):
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    opened, config, settings = threading.Event(), uvicorn.Config, {}
    monkeypatch.setattr("webbrowser.open", lambda address: opened.set() if address.startswith("http://127") else None)
    monkeypatch.setattr(uvicorn, "Config", lambda *given, **named: settings.update(named) or config(*given, **named))
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: opened.wait(10))
    try:
        ran = heedful("serve", "--port", "0", "--open", "--proxies", "192.0.2.7")
    finally:
        gc.unfreeze()
    assert ran.returncode == 0, ran.stderr
    assert opened.is_set()
    assert settings["forwarded_allow_ips"] == ["127.0.0.1", "::1", "192.0.2.7"]
    assert settings["timeout_graceful_shutdown"] > ServeConfig().seconds


def test_ctrl_c_ends_a_command_with_130_and_a_word(trained, tmp_path):
    os.mkfifo(tmp_path / "in")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # who runs this may ignore it
    code = f"{heard}; from heedful.cli.app import main; main()"
    command = [sys.executable, "-c", code, "translate", trained / "model", "-i", tmp_path / "in", "--window", "1"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running,
        (tmp_path / "in").open("w") as writing,
    ):
        writing.write("a b c\nb c a\n")
        writing.flush()
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
    assert (running.returncode, said) == (130, "heedful: interrupted\n")


def test_attend_does_not_write_two_things_into_one_file(trained, tmp_path):
    ran = heedful("attend", trained / "model", "a b", "--html", "page", "--npz", tmp_path / "page", cwd=tmp_path)
    assert (ran.returncode, "name one file; give each its own" in ran.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8_does_not_fail_when_all_is_done(trained, tmp_path):
    folder = shutil.copytree(trained / "model", tmp_path / os.fsdecode(b"m\xff"))
    ran = heedful("configure", folder, "--beam", "3")
    assert ran.returncode == 0, ran.stderr
    assert "m\\udcff" in ran.stdout


@pytest.mark.parametrize("command", ["translate", "score", "evaluate", "attend", "align", "bench translate"])
def test_threads_are_those_asked_for(trained, monkeypatch, command):
    asked = []
    monkeypatch.setattr("heedful.cli.model.set_threads", asked.append)
    pairs = {"align": "--target", "score": "--target", "evaluate": "--reference"}
    text = ["a b"] if command == "attend" else ["-i", "pairs.source"] if "translate" in command else []
    if command in pairs:
        text = ["--source", "pairs.source", pairs[command], "pairs.target"]
    model = shutil.copytree(trained / "model", trained / f"with threads {command}")
    heedful(*command.split(), model, *text, "--threads", "2", cwd=trained)
    assert asked == [2]
