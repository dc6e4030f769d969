"""What does cross-attention do? Alignments that are known, layers switched off, memories changed. (section 3.2.3)"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from heedful.config import Table
from heedful.data.batches import batch_of
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.lab.toy import FIRST, NUMBER_SYMBOLS, UNALIGNED, Pairs, Task, copying, counting, in_words, learn, right
from heedful.model.ablation import without
from heedful.model.recorder import recording
from heedful.model.settings import ModelConfig
from heedful.model.transformer import Memory, Transformer

QUESTION = "What does the decoder get through its attention to the encoder, and does that attention align?"
PAPER = "section 3.2.3"
MINUTES = (1.2, 3.2)
NEEDS: tuple[str, ...] = ()
TASKS = ("copy", "reverse", "numbers")  # where each target symbol comes from is known
CHANGES = ("as it is", "shuffled places", "another sentence's", "first half only")


@dataclass(frozen=True)
class Settings:
    """The tasks' symbols and lengths, how many numbers to write in words, the model's layers, and the training."""

    symbols: int = 16
    shortest: int = 4
    longest: int = 12
    numbers: int = 4
    layers: int = 2
    steps: int = 1_000
    repeats: int = 3


QUICK = Settings(steps=400, repeats=1)


def run(settings: Settings) -> Running:
    """Train a small model on each task; compare its attention with the known alignment, and change what it sees."""
    tasks: dict[str, list[Table]] = {}
    for name in TASKS:
        tasks[name] = []
        for seed in range(1, settings.repeats + 1):
            yield f"{name}, seed {seed}"
            model = _train(name, seed, settings)
            pairs = _task(name, settings, tested=True)(200, 77)
            tasks[name].append(
                {
                    "errors": _alignment_errors(model, pairs, name),
                    "memory": {change: _right_with(model, pairs, change) for change in CHANGES},
                    "without": {
                        place: float(right(without(model, [place]), pairs).float().mean())
                        for place in [f"cross.{layer}" for layer in range(settings.layers)]
                    },
                }
            )
    return {"tasks": tasks, "layers": settings.layers, "length": settings.longest - 2}


def verdict(data: Table) -> Verdict:
    """The claim: cross-attention lets every target position see all of the input; here, it finds its source."""
    parts, shown = [], True
    for task, runs in data["tasks"].items():
        best = _best(runs)
        error = fmean([run["errors"][best] for run in runs])
        memory = {change: fmean([run["memory"][change] for run in runs]) for change in CHANGES}
        alone = {place: fmean([run["without"][place] for run in runs]) for place in runs[0]["without"]}
        shown &= memory["as it is"] > 0.8 and error < 0.2 and memory["another sentence's"] < 0.1
        shown &= abs(memory["shuffled places"] - memory["as it is"]) < 0.02
        lost = ", ".join(f"without {place} {100 * value:.0f} %" for place, value in alone.items())
        parts.append(
            f"{task}: {100 * memory['as it is']:.0f} % right; the best layer ({best}) misses the known alignment of "
            f"{100 * error:.0f} % of the symbols; {lost}; with the memory's places shuffled "
            f"{100 * memory['shuffled places']:.0f} %, with another sentence's memory "
            f"{100 * memory[CHANGES[2]]:.0f} %, with its first half {100 * memory['first half only']:.0f} %"
        )
    return Verdict(
        shown, "; ".join(parts) + ". What is attended to is a set: its order is in the states, not in the places."
    )


def table(data: Table) -> Rows:
    """Alignment error of each layer, and what is right under each change; means of the repeats."""
    layers = [f"cross.{layer}" for layer in range(data["layers"])]
    head = ["task", *(f"alignment error, {place}, %" for place in layers)]
    head += [f"right: {change}, %" for change in CHANGES] + [f"right without {place}, %" for place in layers]
    rows = [head]
    for task, runs in data["tasks"].items():
        values = [fmean([run["errors"][place] for run in runs]) for place in layers]
        values += [fmean([run["memory"][change] for run in runs]) for change in CHANGES]
        values += [fmean([run["without"][place] for run in runs]) for place in layers]
        rows.append([task, *(f"{100 * value:.0f}" for value in values)])
    return rows


def draw(data: Table, figure: Any) -> None:
    """What is still right under each change, a group of bars for each task; a dot for each repeat."""
    left, right_panel = figure.subplots(1, 2, width_ratios=(1, 2))
    layers = [f"cross.{layer}" for layer in range(data["layers"])]
    groups: list[tuple[Any, list[str], Callable[[Table], list[float]]]] = [
        (left, layers, lambda run: [100 * run["errors"][place] for place in layers]),
        (
            right_panel,
            [*CHANGES, *(f"without\n{place}" for place in layers)],
            lambda run: [100 * v for v in (*run["memory"].values(), *run["without"].values())],
        ),
    ]
    for panel, labels, values in groups:
        for number, (task, runs) in enumerate(data["tasks"].items()):
            places = [place + 0.27 * (number - 1) for place in range(len(labels))]
            every = [values(run) for run in runs]
            panel.bar(places, [fmean(list(column)) for column in zip(*every, strict=True)], width=0.25, label=task)
            for one in every:
                panel.plot(places, one, "k.", markersize=3)
        panel.set_xticks(range(len(labels)), [label.replace(" ", "\n") for label in labels], fontsize=7)
        panel.set_ylim(0, 103)
    left.set(ylabel="symbols aligned wrongly, %", title="alignment error")
    right_panel.set(ylabel="sequences right, %", title="what the decoder is shown instead")
    right_panel.legend(frameon=False)


def _task(name: str, settings: Settings, *, tested: bool = False) -> Task:
    """Return the task as it is trained on, or of the one length that it is tested at."""
    if name == "numbers":
        return counting(settings.numbers if tested else 1, settings.numbers)
    length = settings.longest - 2
    shortest, longest = (length, length) if tested else (settings.shortest, settings.longest)
    return copying(settings.symbols, shortest, longest, backwards=name == "reverse")


def _train(name: str, seed: int, settings: Settings) -> Transformer:
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder_layers=settings.layers,
        decoder_layers=settings.layers,
        d_model=64,
        d_ff=128,
        heads=4,
        dropout=0.0,
        normalization="pre",
    )
    size = NUMBER_SYMBOLS if name == "numbers" else FIRST + settings.symbols
    model = Transformer(config, size, size)
    for _ in learn(model, _task(name, settings), settings.steps, 2e-3, seed=seed):
        pass
    return model.eval()


def _sources(name: str, source: list[int]) -> list[int]:
    """Return the place of the source that each symbol of the target stands for, UNALIGNED where it is none."""
    if name == "numbers":
        return [place for _, place in in_words(source[:-1])]
    places = list(range(len(source) - 1))
    return places[::-1] if name == "reverse" else places


@torch.inference_mode()
def _alignment_errors(model: Transformer, pairs: Pairs, name: str) -> dict[str, float]:
    """Return for each layer the share of target symbols whose head-averaged attention peaks at another than theirs."""
    batch = batch_of([source for source, _ in pairs], [target for _, target in pairs])
    with recording(model) as maps:
        model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
    known_BT = torch.full_like(batch.target_out_BT, UNALIGNED)
    for row, (source, _) in enumerate(pairs):
        places = torch.tensor(_sources(name, source))
        known_BT[row, : len(places)] = places
    aligned_BT = known_BT != UNALIGNED
    peaks = {place: uses[0].mean(1).argmax(-1) for place, uses in maps.items() if place.startswith("cross")}
    return {place: float((peak_BT != known_BT)[aligned_BT].float().mean()) for place, peak_BT in peaks.items()}


def _right_with(model: Transformer, pairs: Pairs, change: str) -> float:
    """Return the share of sequences that are right when the decoder is shown a changed memory."""
    encode = model.encode

    def changed(source_BS: Tensor, source_lengths_B: Tensor) -> Memory:
        if change == "first half only":
            halves_B = source_lengths_B // 2
            return encode(source_BS[:, : int(halves_B.max())], halves_B)
        states_BSD, allowed_B11S = encode(source_BS, source_lengths_B)
        if change == "shuffled places":  # and with them which of them are padding
            order_S = torch.randperm(states_BSD.size(1), generator=torch.Generator().manual_seed(3))
            return Memory(states_BSD[:, order_S], None if allowed_B11S is None else allowed_B11S[..., order_S])
        if change == "another sentence's":
            return Memory(states_BSD.roll(1, 0), None if allowed_B11S is None else allowed_B11S.roll(1, 0))
        return Memory(states_BSD, allowed_B11S)

    model.encode = changed  # type: ignore[method-assign]
    try:
        return float(right(model, pairs).float().mean())
    finally:
        del model.encode


def _best(runs: list[Table]) -> str:
    """Return the layer that aligns best on the mean of the repeats."""
    places: list[str] = list(runs[0]["errors"])
    return min(places, key=lambda place: fmean([run["errors"][place] for run in runs]))
