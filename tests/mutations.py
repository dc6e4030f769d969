"""Break the code by hand, one line at a time: some test must fail each time.

    python tests/mutations.py [NAME ...]

Works on a copy of src/; prints which tests failed for each mutation, and ends with 1 if one survived.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = {
    "no causal mask": ("model/transformer.py", "device=target_in_BT.device).tril()", "device=target_in_BT.device)"),
    "no padding mask": ("model/transformer.py", "if bool((lengths_B == width).all()):", "if True:"),
    "scores not scaled": ("model/transformer.py", "query_BHLK * query_BHLK.size(-1) ** -0.5", "query_BHLK * 1.0"),
    "embeddings not tied": ("model/transformer.py", 'if config.share != "none":', "if False:"),
    "embeddings not scaled": ("model/transformer.py", "math.sqrt(config.d_model)", "1.0"),
    "no label smoothing": (
        "training/loss.py",
        "gradient_CV[target_of_C] -= 1.0 - smoothing",
        "gradient_CV[target_of_C] -= 1.0",
    ),
    "length penalty without its 5": ("decoding/hypothesis.py", "((5.0 + length) / 6.0)", "(length / 6.0)"),
    "search stops at the first end": (
        "decoding/search.py",
        "length_penalty(beams.limit_B, config",
        "length_penalty(length, config",
    ),
    "beams not reordered": ("model/inference.py", "self.own_NR = self.own_NR.index_select(0, rows_N)", "pass"),
    "compiled beams not reordered": (
        "model/compiled.py",
        "self._came_NT[rows_N], self._sentence_N[rows_N]",
        "self._came_NT[np.sort(rows_N)], self._sentence_N[rows_N]",
    ),
    "compiled positions begin one too late": (
        "model/positions.py",
        "np.arange(first, first + length)",
        "np.arange(first + 1, first + 1 + length)",
    ),
    "compiled weights cut to bfloat16": ("model/compiled.py", "0x7FFF + ((bits_OI >> 16) & 1)", "0"),
    "compiled layers that are tied, but to others": (
        "model/compiled.py",
        "{number // tied * tied}",
        "{number // tied}",
    ),
    "compiled sizes not checked": ("model/compiled.py", "config.check_transformer(*sizes)", "pass"),
    "compiled attention without its last position": (
        "native/search.cpp",
        "own.data(), position + 1, heads",
        "own.data(), position + (position == 0), heads",
    ),
    "compiled search turns half of a pair the wrong way": (
        "native/search.cpp",
        "row[i] = a * cosine[i] + b * sine[i]",
        "row[i] = a * cosine[i] - b * sine[i]",
    ),
    "rooms that threads share": ("native/beam.h", "static thread_local Room hidden_room", "static Room hidden_room"),
    "turned gradients are not turned back": ("native/training.cpp", "turn(d_q, turns, -1)", "turn(d_q, turns, 1)"),
    "the whole search without patience": (
        "native/beam.h",
        "return rules.patience <= 0 ||",
        "return rules.patience <= 9 ||",
    ),
    "the whole search ends any of those found": ("native/beam.h", "c < rules.beam && total", "total"),
    "the whole search reads another's past": ("native/beam.h", "tokens[t][came[t]]", "tokens[t][b * width]"),
    "compiled attention's gradient without the softmax's own": (
        "native/training.cpp",
        "(load(back + i) - mean) * load(weight + i)",
        "load(back + i) * load(weight + i)",
    ),
    "compiled attention with another sentence's mask": (
        "native/training.cpp",
        "sentence != before",
        "before < 0",
    ),
    "layer normalization's gradient without the deviation's own": ("native/training.cpp", "- z * mean_product", ""),
    "compiled dropout drops others on the way back": (
        "model/dropout.py",
        "_drop(gradient, None, ctx.seed",
        "_drop(gradient, None, ctx.seed + 8",
    ),
    "accumulated gradients not averaged": (
        "training/loop.py",
        "scale_and_clip(model, 1.0 / tokens",
        "scale_and_clip(model, 1.0",
    ),
    "gradients of bfloat16 not collected": ("training/precision.py", "if self.computing is self.learning:", "if True:"),
    "data position not restored": ("training/loop.py", "stream.restore(progress.data)", "pass"),
    "random state not restored": ("training/loop.py", "restore_random_state(random", "(lambda *_: None)(random"),
    "equation 3 without d_model": ("training/schedule.py", "d_model**-0.5", "1.0"),
    "convolution sees what comes next": (
        "model/convolution.py",
        "(0, 0, self.config.kernel - 1, 0)",
        "(0, 0, self.config.kernel - 2, 1)",
    ),
    "convolution reads padding": ("model/convolution.py", "if real_BS1 is not None:", "if False:"),
    "LSTM's hypotheses not reordered": (
        "model/lstm.py",
        "(hidden[:, rows_N], cell[:, rows_N])",
        "(hidden[:, rows_N.sort().values], cell[:, rows_N])",
    ),
    "LSTM reads forwards": ("model/lstm.py", "source_BS = _backwards(source_BS, source_lengths_B)", "pass"),
    "a head switched off still speaks": (
        "model/ablation.py",
        "if head is None else head] = 0.0",
        "if head is None else head] *= 1.0",
    ),
    "weights not verified": ("model/weights.py", "if _digest(tensors) != expected:", "if False:"),
    "weights not verified without torch": ("model/arrays.py", "if digest(entries) != expected:", "if False:"),
}
TESTS = [
    "tests/laws",
    "tests/decoding",
    "tests/native",
    "tests/training/test_loop.py",
    "tests/training/test_precision.py",
    "tests/training/test_schedule.py",
    "tests/test_bundle.py",
]


def failures(source: Path) -> list[str]:
    """Run the fast laws against `source` and return the tests that failed."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=no", *TESTS]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.M)
    return failed or (["none: the tests crashed"] if ran.returncode else [])


def main() -> int:
    """Try every mutation; return the exit status."""
    if already := failures(ROOT / "src"):
        print(f"nothing is tried, as the tests fail without a mutation: {', '.join(already)}")
        return 2
    survived = 0
    for name in sys.argv[1:] or MUTATIONS:
        file, old, new = MUTATIONS[name]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "src"
            shutil.copytree(ROOT / "src", source)
            path = source / "heedful" / file
            text = path.read_text(encoding="utf-8")
            assert old in text, f"{name}: the line to break is gone from {file}"
            path.write_text(text.replace(old, new), encoding="utf-8")
            failed = failures(source)
        survived += not failed
        print(f"{name}: {len(failed)} failed, first {failed[0]}" if failed else f"{name}: SURVIVED", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
