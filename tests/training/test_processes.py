"""Two gloo processes train as one process with their batches together."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from toy_task import settings, write_pairs

from heedful import build, resume, run
from heedful.errors import HeedfulError
from heedful.model.weights import read_weights
from heedful.training import processes

PROGRAM = """
import atexit, json, sys
from pathlib import Path
from heedful import build, run
from heedful.pipeline import Prepared, Run
from heedful.training.loop import Ended
threads = Path("/proc/self/task").glob("*/comm")
atexit.register(lambda: print(*(name.read_text() for name in threads)))  # runs after what is registered later
recipe = build(json.loads(sys.argv[1]))
exec(sys.argv[3])
for event in run(recipe, Path(sys.argv[2])):
    if isinstance(event, (Prepared, Ended)):
        print(json.dumps({"epochs": event.epochs} if isinstance(event, Prepared) else {"ended": event.reason}))
"""


# Each process writes the sum of its weights into a file: two outputs would interleave.
SUMS = """
import os, torch, heedful.pipeline as pipeline
make, made = pipeline.build_model, []
def build_and_keep(*arguments):
    pass
    made.append(make(*arguments))
    return made[0]
pipeline.build_model = build_and_keep
def write_sum():
    total = sum(tensor.double().sum().item() for tensor in made[0].parameters())
    Path(os.environ["HEEDFUL_CACHE"], "weights-" + os.environ["RANK"]).write_text(repr(total))
atexit.register(write_sum)
"""


def sums_of_weights(tmp_path):
    return [(tmp_path / "cache" / f"weights-{rank}").read_text() for rank in range(2)]


def environment(tmp_path):
    return {**os.environ, "HEEDFUL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def run_twofold(table, folder, first=""):
    script = folder.parent / "program.py"
    script.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = json.dumps(table), str(folder), first
    ended = subprocess.run(
        [*torchrun, *arguments], env=environment(folder.parent), capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_two_processes_learn_what_one_process_learns_from_both_their_batches(tmp_path):
    source, target = write_pairs(tmp_path)
    table = settings(source, target, steps=4, checkpoint_every=2, evaluate_every=0)
    table["model"]["dropout"] = 0.0
    table["training"] |= {"beta1": 0.0, "beta2": 0.0, "epsilon": 1.0, "clip": 0.0}  # follows the gradient, and its size
    one = {**table, "batches": {"tokens": 128, "accumulate": 2}}
    prepared, *_ = run(build(one), tmp_path / "one")
    assert f'"epochs": {prepared.epochs}' in run_twofold(table, tmp_path / "two")
    weights = [read_weights(Path(tmp_path / name / "weights.safetensors")) for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-5, atol=1e-7)


def test_no_thread_of_the_group_outlives_python(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=1, checkpoint_every=1, evaluate_every=0)
    assert "gloo" not in run_twofold(table, tmp_path / "two")


def test_processes_that_measure_other_scores_end_together(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=9, checkpoint_every=1, evaluate_every=1, patience=1)
    first = """
import itertools, os
scores = itertools.count() if os.environ["RANK"] == "0" else itertools.count(0, -1)
Run._evaluate = lambda self, model, beam=1: ({"loss": 1.0, "bleu": float(next(scores))}, [])
"""
    assert run_twofold(table, tmp_path / "two", first).count('"ended": "steps"') == 2


def test_processes_that_drew_other_weights_go_on_with_those_of_the_first(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=2, checkpoint_every=2, evaluate_every=0)
    run_twofold(table, tmp_path / "two", SUMS.replace("pass", 'torch.manual_seed(int(os.environ["RANK"]))'))
    assert len(set(sums_of_weights(tmp_path))) == 1


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ('recipe = replace(recipe, batches=replace(recipe.batches, tokens=96 + int(os.environ["RANK"])))', "settings"),
        ('recipe = replace(recipe, data=replace(recipe.data, source=(texts[int(os.environ["RANK"])],)))', "text"),
    ],
)
def test_processes_that_would_learn_otherwise_are_refused(tmp_path, first, said):
    table = settings(*write_pairs(tmp_path), steps=2, checkpoint_every=1, evaluate_every=0)
    texts = [Path(table["data"]["source"][0]), tmp_path / "backwards"]
    texts[1].write_text("".join(f"{line}\n" for line in reversed(texts[0].read_text().splitlines())))
    apart = f"""
import os
from dataclasses import replace
os.environ["HEEDFUL_CACHE"] += os.environ["RANK"]
os.environ["LOCAL_RANK"] = "0"
texts = [Path(name) for name in {[str(text) for text in texts]}]
"""
    with pytest.raises(AssertionError, match=f"process 1: not the {said} of the first process"):
        run_twofold(table, tmp_path / "two", apart + first)


@pytest.mark.parametrize(
    ("first", "status", "said"),
    [("", 2, "typo: no such file"), ("import heedful.pipeline; heedful.pipeline.examine = None", 1, "TypeError")],
)
def test_one_that_fails_does_not_wait_for_the_others(tmp_path, first, status, said):
    program = f"import atexit; atexit.register(print, 'left'); {first}\nfrom heedful.cli.app import main; main()"
    one = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "train",
            "--source",
            "typo",
            "--target",
            "typo",
            "--out",
            str(tmp_path / "out"),
        ],
        env=environment(tmp_path) | one,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    assert said in ended.stderr


def test_each_machine_has_its_own_cache_of_tokens(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=2, checkpoint_every=1, evaluate_every=0)
    first = """
import os
os.environ["HEEDFUL_CACHE"] += os.environ["RANK"]
os.environ["LOCAL_RANK"] = "0"
"""
    run_twofold(table, tmp_path / "two", first)
    assert all(list((tmp_path / f"cache{rank}" / "tokens").glob("*.arrow")) for rank in (0, 1))


def test_a_layer_that_one_process_leaves_out_still_has_a_gradient_in_the_sum(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=6, checkpoint_every=6, evaluate_every=0)
    table["model"] |= {"encoder_layers": 2, "decoder_layers": 2, "layer_dropout": 0.5}
    run_twofold(table, tmp_path / "two", SUMS)
    assert len(set(sums_of_weights(tmp_path))) == 1


def test_the_others_wait_for_hours_while_the_first_one_reads_the_text(monkeypatch):
    asked = {}
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        processes.distributed, "init_process_group", lambda name, timeout: asked.update({name: timeout})
    )
    monkeypatch.setattr(processes.atexit, "register", lambda _function: None)
    processes.join()
    assert asked == {"gloo": timedelta(hours=3)}


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(HeedfulError, match="4 processes for 2 GPUs"):
        processes.join()


def test_two_processes_that_stopped_go_on_to_the_same_bytes(tmp_path):
    table = settings(*write_pairs(tmp_path), steps=8, checkpoint_every=2, evaluate_every=0)
    run_twofold(table, tmp_path / "whole")
    first = """
import itertools, os
asked, begin = itertools.count(1), run
run = lambda recipe, folder: begin(recipe, folder, lambda: os.environ["RANK"] == "0" and next(asked) == 5)
"""
    assert run_twofold(table, tmp_path / "cut", first).count('"interrupted"') == 2
    with pytest.raises(HeedfulError, match="saved by 2 processes, but there are 1 now"):
        list(resume(tmp_path / "cut"))
    run_twofold(table, tmp_path / "cut", "from heedful import resume\nrun = lambda recipe, folder: resume(folder)")
    whole, cut = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_a_torch_without_processes_trains_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.distributed, "is_available", lambda: False)
    monkeypatch.delattr(processes.distributed, "is_initialized")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.join()
    list(run(build(settings(*write_pairs(tmp_path), steps=1)), tmp_path / "model"))
    assert read_weights(tmp_path / "model" / "weights.safetensors")
