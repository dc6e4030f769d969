"""Where time goes: seconds of each phase of a training step and of a translation, and what the machine could do."""

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heedful.data.batches import Batch
from heedful.decoding.settings import SearchConfig
from heedful.inspection.cost import forward_flops, search_flops
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.engine import Engine
from heedful.model.ensemble import members_of
from heedful.model.linear import multiply
from heedful.text.vocabulary import PAD
from heedful.training.loop import SUMS, batch_loss, make_optimizer, scale_and_clip, sum_over_processes
from heedful.training.precision import Mixed
from heedful.training.settings import TrainingConfig
from heedful.translator import Translator


class Stopwatch:
    """Time since the last lap. Work that a GPU has been given counts in the lap that gave it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()

    def lap(self) -> float:
        """Return the seconds since the last lap, or since the start."""
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()


class TrainingStep(NamedTuple):
    """Seconds of a step by phase, its target tokens without padding, and the FLOPs that they need."""

    data: float
    forward: float
    backward: float
    optimizer: float
    tokens: int
    flops: int

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.data + self.forward + self.backward + self.optimizer


def time_training(
    model: EncoderDecoder,
    batches: Iterator[Batch],
    config: TrainingConfig,
    *,
    accumulate: int = 1,
    steps: int = 4,
) -> list[TrainingStep]:
    """Take `steps` real steps at a learning rate of zero: they cost what training costs, and teach nothing."""
    device = next(model.parameters()).device
    mixed, optimizer = Mixed(model, config.precision), make_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    mixed.computing.train()
    found = []
    for _ in range(steps):
        watch = Stopwatch(device)
        data = forward = backward = 0.0
        tokens = flops = 0
        for _ in range(accumulate):
            batch = next(batches).to(device)
            data += watch.lap()
            tokens += int((batch.target_out_BT != PAD).sum())
            flops += _training_flops(model, batch, 2 if config.consistency else 1)
            watch.lap()  # counting is no part of a step
            loss = batch_loss(mixed.computing, batch, config.label_smoothing, config.consistency)
            forward += watch.lap()
            loss.smoothed.backward()  # type: ignore[no-untyped-call]
            mixed.collect_gradients()
            backward += watch.lap()
        sum_over_processes(model, torch.zeros(len(SUMS), dtype=torch.float64))
        scale_and_clip(model, 1.0 / tokens, config.clip)
        optimizer.step()
        mixed.renew()
        found.append(TrainingStep(data, forward, backward, watch.lap(), tokens, flops))
    return found


def _training_flops(model: EncoderDecoder, batch: Batch, passes: int) -> int:
    """Forward once, backward twice as much, in each pass (R-Drop has two); padding is no wanted work."""
    size = model.output.weight.size(0)
    lengths = zip(batch.source_lengths_B.tolist(), (batch.target_out_BT != PAD).sum(1).tolist(), strict=True)
    return 3 * passes * sum(sum(forward_flops(model.config, size, *pair).values()) for pair in lengths)


@dataclass
class Translation:
    """Seconds of a translation by phase; what it read and wrote, and the FLOPs of that.

    `text` is everything about text and batches, `select` the reordering of caches, `search` the choice of hypotheses.
    """

    text: float = 0.0
    encode: float = 0.0
    step: float = 0.0
    select: float = 0.0
    search: float = 0.0
    sentences: int = 0
    tokens: int = 0
    flops: int = 0

    @property
    def seconds(self) -> float:
        """The whole translation."""
        return self.text + self.encode + self.step + self.select + self.search


def time_translation(translator: Translator, lines: Sequence[str], config: SearchConfig, batch: int) -> Translation:
    """Translate `lines` and return where the time went."""
    found = Translation(sentences=len(lines))
    translator.inference  # noqa: B018 - made before the watch starts
    watch = Stopwatch(translator.device)
    timed = Translator(translator.model, translator.vocabulary, capitals=translator.capitals)
    timed.compiled = None  # a whole search in one call has no phases to time
    timed.inference = _TimedEngine(translator.inference, found, watch)
    outputs = list(timed.translate(lines, config, batch=batch, workers=1))
    found.text += watch.lap()
    sources, _ = translator.reader.encode(lines)
    size = translator.vocabulary.sizes[1]
    for source, best in zip(sources, outputs, strict=True):
        found.tokens += len(best[0].ids)
        for model in members_of(translator.model):
            work = search_flops(model.config, size, len(source), len(best[0].ids), config.width)
            found.flops += sum(work.values())
    return found


class _TimedEngine:
    """What search uses of a model, with a stopwatch; what passes between its calls is the search's own time."""

    one_thread = False

    def __init__(self, inference: Engine, found: Translation, watch: Stopwatch) -> None:
        self._inference, self._found, self._watch = inference, found, watch

    def encode(self, source_BS: Tensor, source_lengths_B: Tensor) -> Any:
        self._found.text += self._watch.lap()
        encoded = self._inference.encode(source_BS, source_lengths_B)
        self._found.encode += self._watch.lap()
        return encoded

    def start(self, encoded: Any) -> "_TimedState":
        state = self._inference.start(encoded)
        self._found.encode += self._watch.lap()
        return _TimedState(state, self._found, self._watch)

    def step(self, token_N: Tensor, state: "_TimedState") -> tuple[Any, "_TimedState"]:
        self._found.search += self._watch.lap()
        hidden, after = self._inference.step(token_N, state.state)
        self._found.step += self._watch.lap()
        return hidden, replace(state, state=after)

    def logits(self, hidden: Any) -> Tensor:
        logits_NV = self._inference.logits(hidden)
        self._found.step += self._watch.lap()
        return logits_NV


@dataclass(frozen=True)
class _TimedState:
    state: Any
    found: Translation
    watch: Stopwatch

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "_TimedState":
        self.found.search += self.watch.lap()
        selected = self.state.select(rows_N, sentences_B)
        self.found.select += self.watch.lap()
        return replace(self, state=selected)


def matrix_peak(device: torch.device, precision: torch.dtype, size: int | None = None) -> float:
    """Return the FLOPs a second that torch reaches here in a product of two square matrices, by its faster library."""
    size = size or (2048 if device.type == "cpu" else 8192)  # a fast GPU would wait for us between smaller ones
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    multiply(a, b)
    watch = Stopwatch(device)
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.5:
        multiply(a, b)
        times.append(watch.lap())
    return 2 * size**3 / min(times)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held so far, on the GPU if it computes there; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if platform.system() == "Windows":
        return 0
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:  # getrusage counts what the process was forked from, too; not all kernels tell of this one
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
