"""The benchmarks that need no peer and no corpus run with the model in the box."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from heedful.model.kernels import can_compute

ROOT = Path(__file__).resolve().parents[2]


def test_recording_is_compared_with_attention_that_has_no_observer(monkeypatch, capsys):
    if not can_compute(torch.zeros(1, 4, 8, 48)):
        pytest.skip("no compiled attention here")
    monkeypatch.setattr(sys, "argv", ["recording.py", "--rounds", "1"])
    runpy.run_path(str(ROOT / "benchmarks" / "recording.py"), run_name="__main__")
    assert "recording / no observer: " in capsys.readouterr().out
