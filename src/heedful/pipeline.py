"""Running a recipe: from raw text to a model folder, as a generator of events."""

import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heedful import bundle, files, run_folder
from heedful.config import from_table, read_toml, to_table
from heedful.data.batches import BatchStream
from heedful.decoding.forced import agreements
from heedful.errors import HeedfulError
from heedful.evaluation.scores import bleu_and_chrf
from heedful.heap import keep_heap, keep_products
from heedful.inspection.timing import time_training
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.family import build_model, check_sizes
from heedful.model.weights import put_weights, read_weights, weights_of, write_weights
from heedful.model_card import model_card
from heedful.preparation import check_cache, development_pairs, encode, examine, learn_lexicon, learn_vocabulary
from heedful.recipe import Recipe
from heedful.remarks import collapse, remarks
from heedful.text.corpus import Examined, Report
from heedful.text.reading import Reader
from heedful.text.vocabulary import UNKNOWN, Vocabulary
from heedful.training import loop
from heedful.training.log import forget_unsaved, write_event
from heedful.training.loop import Ended, Notice, Record, Saved, Step
from heedful.training.precision import settled
from heedful.training.processes import broadcast, check_alike, join, local_rank, rank, wait_for_all, world_size
from heedful.training.settings import TrainingConfig
from heedful.training.state import check_processes, newest_state, read_progress
from heedful.translator import Translator

LOOK = 50  # development lines that a training without evaluations is looked at by


@dataclass(frozen=True)
class Prepared:
    """What was found before training: the data report, sizes, where it computes, and how long training will take."""

    preset: str
    report: Report
    sizes: tuple[int, int]
    parameters: int
    device: str
    precision: str
    padding: float
    steps: int
    batches_in_epoch: int
    epochs: float
    seconds: float


@dataclass(frozen=True)
class Finished:
    """The model folder is complete; scores are those of the final weights on the development data.

    `seconds` are those from raw text to here; of sessions before a resume, those of training.
    """

    folder: Path
    scores: dict[str, float]
    seconds: float


Event = Record | Prepared | Finished


def run(recipe: Recipe, folder: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train from text to a model folder, yielding what happens; each event is also a line of log.jsonl.

    Raises:
        HeedfulError: something in the data or the settings that the user can mend.
    """
    join()
    with run_folder.claimed(folder):
        if rank() == 0:
            run_folder.check_free(folder)
            run_folder.remove_leftovers(folder)
            files.check_writable(folder)  # found out now, and not after hours of reading
        if local_rank() == 0:
            check_cache()
        yield from begin(recipe, folder).logged_events(stop)


def begin(recipe: Recipe, folder: Path) -> "Run":
    """Examine the data, learn the vocabulary, and start a model folder: everything before the first step."""
    started = time.monotonic()
    join()
    _set_threads(recipe.training)
    recipe = _with_absolute_paths(recipe)
    run_folder.check_names(folder, recipe)
    check_sizes(recipe.model)  # before what may take hours
    if recipe.start_from:
        read_weights(recipe.start_from / bundle.WEIGHTS)  # too: they may be missing
    examined = examine(recipe.data)
    if rank() == 0:
        begun = recipe.start_from
        vocabulary = Vocabulary.load(begun) if begun else learn_vocabulary(recipe, examined)
        run_folder.start(folder, recipe, vocabulary)
    wait_for_all()
    if not (folder / "model.toml").is_file():
        raise HeedfulError(f"{folder}: not what the first process wrote; --out must be one folder for all machines")
    return Run(recipe, folder, examined, started)


def resume(folder: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Continue a run from its last saved state: it ends in the weights of a run that was never stopped (CPU).

    Raises:
        HeedfulError: there is no run in `folder`, or a model whose state is gone.
    """
    join()  # before anything that another machine may have and this one not: who waits for it would wait for hours
    if not (folder / "recipe.toml").is_file() or not (folder / "model.toml").is_file():
        raise HeedfulError(f"{folder}: no training to resume in it; give the folder that `heedful train` wrote")
    if (folder / bundle.WEIGHTS).exists() and not newest_state(folder / "state"):
        raise HeedfulError(
            f"{folder}: a model without the state of its training, which cannot go on; begin another one with its "
            f"weights: --start-from {shlex.quote(str(folder))} --out NEW"
        )
    with run_folder.claimed(folder):
        started = time.monotonic()
        if rank() == 0:
            files.check_writable(folder)  # as when it began
        recipe = _with_absolute_paths(
            from_table(Recipe, read_toml(folder / "recipe.toml"), str(folder / "recipe.toml"))
        )
        _set_threads(recipe.training)
        bundle.read_manifest(folder)
        place = newest_state(folder / "state")
        if place:
            check_processes(place)
        before = run_folder.refuse_edits(folder, recipe, saved=bool(place))
        examined = examine(recipe.data)
        begun = Run(recipe, folder, examined, started)
        again = False
        if place:  # before anything is written: what has to be put back is still there
            progress = read_progress(place)
            begun.stream().restore(progress.data)
            again = bool(begun.dev) and loop.evaluation_is_due(recipe.training, progress)
        if rank() == 0:
            run_folder.take_edits(folder, recipe, before)
            run_folder.remove_leftovers(folder)
            forget_unsaved(folder / "log.jsonl", place, evaluated_again=again)
            loop.forget_unsaved_checkpoints(folder / "state")
        wait_for_all()
        yield from begun.logged_events(stop)


class Run:
    """One training run: what is shared between its parts."""

    def __init__(self, recipe: Recipe, folder: Path, examined: Examined, started: float) -> None:
        self.recipe, self.folder, self.started = recipe, folder, started
        self.vocabulary = Vocabulary.load(folder)
        self.reader = Reader(self.vocabulary, recipe.data.capitals)
        self.report = examined.report
        self.store = encode(examined, self.vocabulary)
        self.device = _device()
        if self.device.type == "cuda":
            # cuDNN's attention, which torch prefers on recent GPUs, makes a plan for each new shape: nearly each batch
            torch.backends.cuda.enable_cudnn_sdp(False)
        torch.manual_seed(recipe.training.seed)
        self.model = build_model(recipe.model, *self.vocabulary.sizes).to(self.device)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        if recipe.start_from and not newest_state(folder / "state"):
            weights = recipe.start_from / bundle.WEIGHTS
            put_weights(self.model, read_weights(weights), weights)
        self.dev, self.too_long = self._that_fit(development_pairs(examined))
        self._check_alike()

    def _check_alike(self) -> None:
        """Refuse to train with processes that would learn otherwise or from other text; paths may differ by machine."""
        table = to_table(self.recipe)
        settings = [table[part] for part in ("vocabulary", "model", "batches")]
        check_alike("settings", [*settings, table["training"] | {"threads": 0}, table["data"].get("weights")])
        check_alike("text", [self.store.name, len(self.store), self._judged_by()])

    def logged_events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield the events of the run; the first process also writes them to log.jsonl."""
        if rank() != 0:
            yield from self.events(stop)
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            for event in self.events(stop):
                write_event(log, event)
                yield event

    def events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Prepare, train, and finish the model folder."""
        torch.manual_seed(self.recipe.training.seed + 1000 * rank())
        stream = self.stream()
        self._fix_precision()
        seconds_a_step = broadcast(self._time_a_step(stream))
        self._fix_steps(seconds_a_step)
        training, batches = self.recipe.training, len(stream.plan())
        yield Prepared(
            preset=self.recipe.preset,
            report=self.report,
            sizes=self.vocabulary.sizes,
            parameters=self.parameters,
            device=_name_of(self.device),
            precision=training.precision,
            padding=stream.padding(),
            steps=training.steps,
            batches_in_epoch=batches,
            epochs=training.steps * self.recipe.batches.accumulate * world_size() / batches,
            seconds=training.steps * seconds_a_step,
        )
        said = remarks(self.recipe, self.report, self.vocabulary, self.store, self.device, self.too_long)
        yield from map(Notice, said)
        torch.manual_seed(training.seed + 1000 * rank())
        records = loop.train(
            self.model,
            stream,
            training,
            self.folder / "state",
            accumulate=self.recipe.batches.accumulate,
            evaluate=self._evaluate if self.dev else None,
            judged_by=self._judged_by(),
            stop=stop,
        )
        began = time.monotonic()
        for record in records:
            yield record
            if isinstance(record, Step) and rank() == 0 and self._is_to_be_looked_at(record.step):
                yield from map(Notice, self._look())
            if isinstance(record, Saved) and rank() == 0:
                write_weights(self.folder / bundle.WEIGHTS, self._weights())
            if isinstance(record, Ended) and record.reason != "interrupted":
                self.started -= max(0.0, record.seconds - (time.monotonic() - began))  # training before a resume
                finished = self._finish(record.step) if rank() == 0 else None
                wait_for_all()  # a machine whose torchrun has ended may be the one that the others meet at
                if finished:
                    yield finished

    def _is_to_be_looked_at(self, step: int) -> bool:
        """Return whether this is a third of the way of a training that is not evaluated before."""
        training = self.recipe.training
        third = training.steps // 3
        return bool(self.dev) and step == third and (not training.evaluate_every or training.evaluate_every > third)

    def _look(self) -> Iterator[str]:
        """Warn of a model that says the same whatever it is given, in the seconds that a few lines take."""
        search = replace(self.recipe.search, beam=1, n_best=1, sample=False)
        translator = Translator(self.model.eval(), self.vocabulary, search, capitals=self.recipe.data.capitals)
        with torch.inference_mode():
            outputs = [found[0].text for found in translator.translate([source for source, _ in self.dev[:LOOK]])]
        yield from collapse(outputs)

    def _finish(self, steps: int) -> Finished:
        weights = self._weights()
        write_weights(self.folder / bundle.WEIGHTS, weights)
        put_weights(self.model, weights, self.folder)
        scores = self._evaluate(self.model.eval(), beam=self.recipe.search.beam)[0] if self.dev else {}
        if self.dev:
            self._find_aligner()
        seconds = time.monotonic() - self.started
        device = f"{_name_of(self.device)}, {platform.machine()}"
        card = model_card(self.recipe, self.report, self.parameters, steps, scores, seconds, device)
        files.write_text(self.folder / "README.md", card)
        return Finished(self.folder, scores, seconds)

    def _that_fit(self, pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int]:
        """Return the development pairs that training would not find too long, and how many more there are.

        One line of a whole page would take more memory than all of training, and minutes of each evaluation.
        """
        kept = self.reader.fitting(pairs, self.recipe.data.max_length + 1)  # END is not counted there
        self.report.development -= len(pairs) - len(kept)
        return [pairs[number] for number in kept], len(pairs) - len(kept)

    def _judged_by(self) -> str:
        """Return a digest of the development data, and of how it is scored."""
        said = json.dumps([self.dev, self.recipe.data.languages, self.recipe.data.capitals])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _find_aligner(self) -> None:
        """Find the attention that agrees most with a lexicon of the training pairs, on the development data."""
        learned = learn_lexicon(self.store, self.recipe.data.seed)
        sources, targets, _ = self.reader.encode_pairs(*zip(*self.dev[:500], strict=True))
        if found := agreements(self.model, sources, targets, learned):
            bundle.keep_alignment(self.folder, *found[0])

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return the weights to translate with: an average, or, before the first checkpoint, the present ones."""
        averaged = loop.final_weights(self.folder / "state", self.recipe.training)
        stored = torch.bfloat16 if self.recipe.training.stored == "bfloat16" else torch.float32
        weights = averaged or weights_of(self.model)
        return {name: tensor.to(stored) for name, tensor in weights.items()}

    def stream(self) -> BatchStream:
        """Return this process's share of the batches, from the first one on."""
        return BatchStream(
            self.store,
            self.recipe.batches,
            vocabulary=self.vocabulary,
            subword_dropout=self.recipe.vocabulary.dropout,
            weights=self.recipe.data.weights,
            longest=self.recipe.model.longest,
            rank=rank(),
            world=world_size(),
        )

    def _time_a_step(self, stream: BatchStream) -> float:
        training, start = self.recipe.training, stream.state()
        accumulate = self.recipe.batches.accumulate
        _, *steady = time_training(self.model, iter(stream), training, accumulate=accumulate)
        stream.restore(start)
        return sum(step.seconds for step in steady) / len(steady)  # the first paid for what is set up once

    def _fix_precision(self) -> None:
        """Turn "auto" into a precision, once, for all processes and for resuming."""
        if self.recipe.training.precision == "auto":
            self._settle(precision=broadcast(settled("auto", self.device)))

    def _fix_steps(self, seconds_a_step: float) -> None:
        """Turn `minutes` into steps, once: the stored recipe has the steps, so that resuming is exact."""
        training = self.recipe.training
        if not training.minutes:
            return
        steps = max(20, int(60 * training.minutes / seconds_a_step))
        # Short runs still want a warmup, evaluations and checkpoints to average.
        every = min(training.checkpoint_every, max(1, steps // 20))
        warmup = min(training.warmup, max(1, steps // 5))
        shorter = warmup / training.warmup if training.schedule == "paper" and training.warmup else 1.0
        self._settle(
            minutes=0.0,
            steps=steps,
            warmup=warmup,
            rate=training.rate * shorter**0.5,  # equation 3 rises higher in fewer steps: its peak stays where it was
            checkpoint_every=every,
            evaluate_every=min(training.evaluate_every, every * 4),
        )

    def _settle(self, **found: Any) -> None:
        """Put what was found here into the training settings, the stored ones too: resuming is then exact."""
        self.recipe = replace(self.recipe, training=replace(self.recipe.training, **found))
        if rank() == 0:
            run_folder.write_recipe(self.folder, self.recipe)

    @torch.inference_mode()
    def _evaluate(self, model: EncoderDecoder, beam: int = 1) -> tuple[dict[str, float], list[str]]:
        """Score the development data: loss and perplexity by teacher forcing, BLEU and chrF by search."""
        search = replace(self.recipe.search, beam=beam, n_best=1, sample=False)
        translator = Translator(model, self.vocabulary, search, capitals=self.recipe.data.capitals)
        sources, references = [pair[0] for pair in self.dev], [pair[1] for pair in self.dev]
        loss = loop.mean_loss(model, *self.reader.encode_pairs(sources, references)[:2])
        outputs = [found[0].text for found in translator.translate(sources)]
        _, language = self.recipe.data.languages or ("", "")
        scores = {"loss": loss, "perplexity": float(np.exp(min(loss, 50.0)))}
        scores |= bleu_and_chrf(outputs, references, language)
        # compared as outputs are written: blanks are one, signs as the vocabulary folds them, and nothing is unknown
        wanted = self.vocabulary.encode_target(references)
        right = sum(
            output == self.vocabulary.decode_target(ids) and UNKNOWN not in ids
            for output, ids in zip(outputs, wanted, strict=True)
        )
        scores["exact"] = 100 * right / len(outputs)
        return scores, list(collapse(outputs))


def _set_threads(config: TrainingConfig) -> None:
    keep_heap()
    keep_products()
    if config.threads:
        torch.set_num_threads(config.threads)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} {'thread' if threads == 1 else 'threads'} of the processor"


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Let the stored recipe find what it needs from wherever it is resumed."""
    begun = recipe.start_from and bundle.locate(recipe.start_from).absolute()  # a link may take its place later
    return replace(recipe, start_from=begun, data=replace(recipe.data, folder=(recipe.data.folder or Path()).resolve()))
