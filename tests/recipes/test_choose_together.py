"""recipes/choose_together.py: models that read the same lines in ways of their own, choosing together."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest

from heedful import Translator

SCRIPT = Path(__file__).resolve().parents[2] / "recipes" / "choose_together.py"
LINES = ["the train is late", "is it yours?", "he sings"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("choose_together", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return Translator.load("en-de")


def test_a_model_alone_chooses_its_most_probable_proposal(script, model):
    proposed = script.propose(model, LINES)
    scores = [
        [output.log_probability for output in model.score([line] * len(p), p)]
        for line, p in zip(LINES, proposed, strict=True)
    ]
    likeliest = [found[own.index(max(own))] for found, own in zip(proposed, scores, strict=True)]
    assert script.choose([model], [LINES]) == likeliest


def test_the_mean_probability_of_both_readings_decides(script, model):
    readings = [LINES, ["the bus is early", "is it mine?", "she sings"]]
    chosen = script.choose([model, model], readings)
    for row, text in enumerate(chosen):
        proposed = {other for lines in readings for other in script.propose(model, lines)[row]}
        means = {
            other: sum(math.exp(model.score([lines[row]], [other])[0].log_probability) for lines in readings)
            for other in proposed
        }
        assert means[text] == pytest.approx(max(means.values()))


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60)


def test_texts_of_different_lengths_and_a_model_without_a_text_are_refused(tmp_path):
    (tmp_path / "two").write_text("a\nb\n")
    (tmp_path / "one").write_text("a\n")
    unequal = run("--output", tmp_path / "out", "en-de", tmp_path / "two", "en-de", tmp_path / "one")
    assert (unequal.returncode, "2, 1 lines: give equal ones" in unequal.stderr) == (2, True)
    alone = run("--output", tmp_path / "out", "en-de", tmp_path / "two", "de-en")
    assert (alone.returncode, "give the text that it reads" in alone.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_to_is_said_before_anything_is_translated(tmp_path):
    (tmp_path / "text").write_text("a\n")
    ended = run("--output", tmp_path, "no such model", tmp_path / "text")
    assert (ended.returncode, f"Is a directory: '{tmp_path}'" in ended.stderr) == (2, True), ended.stderr
