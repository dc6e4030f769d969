"""How many threads compute, asked for with torch and without it."""

import os
import subprocess
import sys

import pytest
import torch

from heedful.threads import set_threads, threads

ASKING = "import sys; from heedful.threads import *; {}; print(threads(), 'torch' in sys.modules)"


@pytest.mark.parametrize(
    ("wanted", "expected"), [("3", 3), ("5,2", 5), ("0", None), ("many", None), ("", None), (None, None)]
)
def test_without_torch_they_are_those_of_the_environment_or_all_that_there_are(wanted, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {} if wanted is None else {"OMP_NUM_THREADS": wanted}
    command = [sys.executable, "-c", ASKING.format("pass")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert found.split() == [str(expected or every), "False"]


def test_torch_takes_what_was_set_before_it_was_imported():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", ASKING.format("set_threads(1); import torch; print(torch.get_num_threads())")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert found.split() == ["1", "1", "True"]


def test_torch_is_asked_and_told_where_it_is(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    try:
        set_threads(2)
        assert (threads(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, 2, "2")
        torch.set_num_threads(1)
        assert threads() == 1
    finally:
        torch.set_num_threads(before)
