"""Promise 5: killed at any moment and resumed, training ends in bit-identical weights.

What is killed is a process of its own; what runs to its end runs here, where torch is imported already.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from rich.console import Console

from heedful import HeedfulError, build, resume, run
from heedful.cli import display, train
from heedful.cli.terminal import is_live
from heedful.config import read_toml
from heedful.training.loop import Ended, Evaluation, Step
from heedful.training.state import newest_state

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from toy_task import settings, write_pairs

SLOWLY = """import signal
import time
from heedful.cli.app import main
from heedful.training import loop
rate = loop.learning_rate
loop.learning_rate = lambda *given: (time.sleep(0.02), rate(*given))[1]  # or it is over before a signal comes
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may have it ignored
main()
"""


def heedful(*arguments):
    command = [sys.executable, "-c", SLOWLY, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe, and the folder of an uninterrupted run of it beside the recipe's file."""
    tmp_path = tmp_path_factory.mktemp("resume")
    source, target = write_pairs(tmp_path)
    table = settings(source, target, steps=160, checkpoint_every=7, evaluate_every=20)
    path = tmp_path / "toy.toml"
    path.write_text(tomli_w.dumps(table))
    list(run(build(table), tmp_path / "whole"))
    return path


def last_step(folder):
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines if line.endswith("}")), default=0)


def run_until(process, folder, step, number):
    """Send a signal once training has come past `step`; return the exit status and what was said."""
    deadline = time.monotonic() + 60
    while last_step(folder) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


def same_bytes(first: Path, second: Path):
    return (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()


def test_killed_at_random_moments_and_resumed_a_run_ends_in_the_same_bytes(tmp_path, recipe):
    folder = tmp_path / "killed"
    seed = random.SystemRandom().randrange(1000)  # another each time: conftest.py seeds what `random` draws
    print(f"seed {seed}")  # pytest shows it where the test fails
    generator = random.Random(seed)
    status, _ = run_until(heedful("train", recipe, "--out", folder), folder, generator.randint(10, 60), signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, _ = run_until(heedful("train", "--resume", folder), folder, generator.randint(70, 130), signal.SIGKILL)
    assert status == -signal.SIGKILL
    list(resume(folder))
    assert same_bytes(folder, recipe.parent / "whole")
    steps = [
        json.loads(line)["step"]
        for line in (folder / "log.jsonl").read_text().splitlines()
        if '"event": "step"' in line
    ]
    assert steps == sorted(set(steps))


def test_ctrl_c_saves_says_how_to_go_on_and_resuming_ends_in_the_same_bytes(tmp_path, recipe, monkeypatch):
    folder = tmp_path / "stopped"
    status, said = run_until(heedful("train", recipe, "--out", folder), folder, 30, signal.SIGINT)
    assert status == 130, "a script does not go on with it"
    assert f"heedful train --resume {folder}" in said.replace("\n", "")
    assert "heedful: stopping once a step is done, and saving; once more ends at once\n" in said
    monkeypatch.chdir("/")  # the recipe in the folder knows where its data is
    list(resume(folder))
    assert same_bytes(folder, recipe.parent / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_training_is_saved_though_nobody_can_read_what_it_says(tmp_path, recipe, name):
    folder = tmp_path / "unread"
    process = heedful("train", recipe, "--out", folder)
    deadline = time.monotonic() + 60
    while last_step(folder) < 30 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.stderr.close()  # as `| tee` does that got the Ctrl-C, too, and a terminal that is closed
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 130
    assert newest_state(folder / "state")
    list(resume(folder))
    assert same_bytes(folder, recipe.parent / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
def test_a_training_under_nohup_does_not_hear_a_closed_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with train._graceful() as stopping:
            signal.raise_signal(signal.SIGHUP)
            assert not stopping()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_goes_on_where_what_it_says_cannot_be_written(tmp_path):
    code = (
        "from pathlib import Path; from heedful.cli.display import show;"
        "from heedful.training.loop import Ended, Notice;"
        "print(show([Notice('a'), Notice('b'), Ended(1, 'steps', 0.0)], Path('model')))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run([sys.executable, "-c", code], stderr=writing, stdout=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stdout) == (0, "False\n")


def test_lines_are_drawn_over_only_where_that_can_be(monkeypatch):
    for kind, expected in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", kind)
        assert is_live(Console(file=io.StringIO(), force_terminal=True)) == expected
    assert not is_live(Console(file=io.StringIO()))


def test_a_finished_folder_is_not_overwritten(tmp_path, recipe):
    with pytest.raises(HeedfulError, match="there is a model already"):
        next(run(build(read_toml(recipe)), recipe.parent / "whole"))
    assert (recipe.parent / "whole" / "weights.safetensors").exists()


def test_an_evaluation_is_not_taken_for_the_time_of_a_step(monkeypatch):
    now = 0.0
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now))
    shown = display._Plain(Console(file=io.StringIO()), Path("model"))
    shown.begin(SimpleNamespace(seconds=100.0, steps=1000))
    for number in range(1, 102):
        now += 0.1
        shown.show(step := Step(number, 1000, 1.0, 1.0, 1e-3, 2000, 20_000.0, 1))
        if number == 100:
            now += 10.0
            shown.show(Evaluation(number, {"loss": 1.0}, best=True))
    assert "0:02:59 left" in shown.columns(step)  # 899 steps of a tenth of a second, and 9 evaluations


def test_the_command_that_goes_on_can_be_copied(capsys):
    display.show([Ended(1, "interrupted", 0.0)], Path("my model"))
    assert "heedful train --resume 'my model'" in capsys.readouterr().err


def test_processes_join_before_anything_that_one_machine_alone_may_lack(monkeypatch, tmp_path):
    def joined():
        raise RuntimeError("joined")

    for module in ("heedful.cli.train", "heedful.pipeline"):
        monkeypatch.setattr(f"{module}.join", joined)
    with pytest.raises(RuntimeError, match="joined"):
        train.train(tmp_path / "absent.toml")
    with pytest.raises(RuntimeError, match="joined"):
        next(resume(tmp_path / "absent"))


def test_a_wish_to_stop_counts_where_nobody_reads_what_is_said(monkeypatch):
    def broken(*_arguments):
        raise BrokenPipeError

    with train._graceful() as stopping:
        monkeypatch.setattr(train.os, "write", broken)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.undo()
        assert stopping()


def test_term_to_all_processes_and_again_from_torchrun_is_one_wish(monkeypatch):
    with train._graceful() as stopping:
        assert not stopping()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stopping()
        monkeypatch.setattr(train, "SAME_WISH", -1.0)  # a second later
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
