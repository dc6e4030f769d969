"""Running a recipe: from raw text to a model folder, as a generator of events."""

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tomli_w
import torch

import heedful
from heedful import bundle, files
from heedful.config import from_table, read_toml, to_table
from heedful.data.batches import Batch, BatchStream, batch_of
from heedful.data.tokens import TokenStore, content_key, encode_corpus
from heedful.decoding import lexicon
from heedful.errors import HeedfulError
from heedful.evaluation.scores import bleu_and_chrf
from heedful.heap import keep_heap, keep_products
from heedful.inspection.timing import time_training
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.family import build_model
from heedful.model_card import model_card
from heedful.recipe import Recipe
from heedful.text import augment, corpus, vocabulary
from heedful.text.corpus import Report
from heedful.text.vocabulary import PAD, Vocabulary
from heedful.training import loop
from heedful.training.log import forget_unsaved, write_event
from heedful.training.loop import Ended, Notice, Record, Saved, TrainingConfig
from heedful.training.precision import Precision, settled
from heedful.training.processes import agreed, local_rank, processes, wait_for_all
from heedful.training.state import newest_state
from heedful.translator import Translator

WRITTEN = ("state", "recipe.toml", "log.jsonl", "README.md")  # after model.toml
DAYS_KEPT = 60  # of a corpus, encoded, that no training has read
# What the stored tokens depend on beside the text, its vocabulary, and the way that they are made.
SHAPING = (
    *("tags", "altered", "words", "undecodable", "drop_duplicates", "drop_identical"),
    *("max_length", "max_ratio", "seed"),
)
TOKENS_VERSION = 1  # of that way
LEXICON_PAIRS = 20_000  # enough for the words that are seen often; a second or two


@dataclass(frozen=True)
class Prepared:
    """What was found before training: the data report, sizes, and how long training will take here."""

    report: Report
    symbols: tuple[int, int]
    parameters: int
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
    with _claimed(folder):
        if processes()[0] == 0:
            _check_free(folder)
            _remove_leftovers(folder)
        yield from begin(recipe, folder).logged_events(stop)


def begin(recipe: Recipe, folder: Path) -> "Run":
    """Examine the data, learn the vocabulary, and start a model folder: everything before the first step."""
    started = time.monotonic()
    _set_threads(recipe.training)
    recipe = _with_absolute_paths(recipe)
    examined = corpus.examine(corpus.corpora(recipe.data), corpus.development(recipe.data), recipe.data)
    if processes()[0] == 0:
        words = Vocabulary.load(recipe.start_from) if recipe.start_from else _learn_vocabulary(recipe, examined)
        _start_folder(folder, recipe, words)
    wait_for_all()
    return Run(recipe, folder, examined, started)


def resume(folder: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Continue a run from its last saved state: it ends in the weights of a run that was never stopped (CPU).

    Raises:
        HeedfulError: there is no run in `folder`, or a model whose state is gone.
    """
    if not (folder / "recipe.toml").is_file() or not (folder / "model.toml").is_file():
        raise HeedfulError(f"{folder}: no training to resume in it; give the folder that `heedful train` wrote")
    if (folder / bundle.WEIGHTS).exists() and not newest_state(folder / "state"):
        raise HeedfulError(
            f"{folder}: a model without the state of its training, which cannot go on; begin another one with its "
            f"weights: --start-from {folder} --out NEW"
        )
    with _claimed(folder):
        started = time.monotonic()
        recipe = from_table(Recipe, read_toml(folder / "recipe.toml"), str(folder / "recipe.toml"))
        _set_threads(recipe.training)
        bundle.read_manifest(folder)
        examined = corpus.examine(corpus.corpora(recipe.data), corpus.development(recipe.data), recipe.data)
        if processes()[0] == 0:
            _remove_leftovers(folder)
            forget_unsaved(folder / "log.jsonl", newest_state(folder / "state"))
        wait_for_all()
        yield from Run(recipe, folder, examined, started).logged_events(stop)


class Run:
    """One training run: what is shared between its parts."""

    def __init__(self, recipe: Recipe, folder: Path, examined: corpus.Examined, started: float) -> None:
        self.recipe, self.folder, self.started = recipe, folder, started
        self.words = Vocabulary.load(folder)
        self.report = examined.report
        self.store = self._encode(examined)
        self.device = _device()
        torch.manual_seed(recipe.training.seed)
        self.model = build_model(recipe.model, *self.words.sizes).to(self.device)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        if recipe.start_from and not newest_state(folder / "state"):
            weights = recipe.start_from / bundle.WEIGHTS
            bundle.put_weights(self.model, bundle.read_weights(weights), weights)
        self.dev, self.too_long = self._development(examined)

    def logged_events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Yield the events of the run; the first process also writes them to log.jsonl."""
        if processes()[0] != 0:
            yield from self.events(stop)
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            for event in self.events(stop):
                write_event(log, event)
                yield event

    def events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Prepare, train, and finish the model folder."""
        rank, _ = processes()
        torch.manual_seed(self.recipe.training.seed + 1000 * rank)
        stream = self.stream()
        self._fix_precision()
        seconds_a_step = agreed(self._time_a_step(stream))
        self._fix_steps(seconds_a_step)
        training, batches = self.recipe.training, len(stream.plan())
        yield Prepared(
            self.report,
            self.words.sizes,
            self.parameters,
            stream.padding(),
            training.steps,
            batches,
            training.steps * self.recipe.batches.accumulate * processes()[1] / batches,
            training.steps * seconds_a_step,
        )
        yield from map(Notice, self._warnings())
        torch.manual_seed(training.seed + 1000 * rank)
        records = loop.train(
            self.model,
            stream,
            training,
            self.folder / "state",
            accumulate=self.recipe.batches.accumulate,
            evaluate=self._evaluate if self.dev else None,
            stop=stop,
        )
        began = time.monotonic()
        for record in records:
            yield record
            if isinstance(record, Saved) and rank == 0:
                bundle.write_weights(self.folder / bundle.WEIGHTS, self._weights())
            if isinstance(record, Ended) and record.reason != "interrupted" and rank == 0:
                self.started -= max(0.0, record.seconds - (time.monotonic() - began))  # training before a resume
                yield self._finish()

    def _finish(self) -> Finished:
        weights = self._weights()
        bundle.write_weights(self.folder / bundle.WEIGHTS, weights)
        bundle.put_weights(self.model, weights, self.folder)
        scores = self._evaluate(self.model.eval(), beam=self.recipe.search.beam)[0] if self.dev else {}
        if self.dev:
            self._find_aligner()
        seconds = time.monotonic() - self.started
        card = model_card(self.folder.name, self.recipe, self.report, self.parameters, scores, seconds)
        files.write_text(self.folder / "README.md", card)
        return Finished(self.folder, scores, seconds)

    def _development(self, examined: corpus.Examined) -> tuple[list[tuple[str, str]], int]:
        """Return the development pairs that the model has positions for, and how many more there are.

        Those held out have their corpus's tag in front, as it stands in training; given ones are read as they are.
        """
        held_out = augment.augmented(examined.held_out(), tags=self.recipe.data.tags)
        pairs = corpus.development(self.recipe.data) or [(source, target) for _, source, target in held_out]
        longest = self.recipe.model.longest
        if longest is None or not pairs:
            return pairs, 0
        reader = Translator(self.model, self.words, capitals=self.recipe.data.capitals)
        sources, targets, _ = reader.encode_pairs(*zip(*pairs, strict=True))
        lengths = [max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
        kept = [pair for pair, length in zip(pairs, lengths, strict=True) if length <= longest]
        self.report.development -= len(pairs) - len(kept)
        return kept, len(pairs) - len(kept)

    def _find_aligner(self) -> None:
        """Find the attention that agrees most with a lexicon of the training pairs, on the development data."""
        count = min(len(self.store), LEXICON_PAIRS)
        chosen = np.random.default_rng(self.recipe.data.seed).choice(len(self.store), count, replace=False)
        sides = (self.store.take(side, np.sort(chosen)) for side in ("source", "target"))
        learned = lexicon.learn(zip(*(np.split(ids, lengths.cumsum()[:-1]) for ids, lengths in sides), strict=True))
        dev = self.dev[:500]
        sources = self.words.encode_source([pair[0] for pair in dev])
        targets = self.words.encode_target([pair[1] for pair in dev])
        if found := Translator(self.model, self.words).agreements(sources, targets, learned):
            bundle.keep_alignment(self.folder, *found[0])

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return the weights to translate with: an average, or, before the first checkpoint, the present ones."""
        averaged = loop.final_weights(self.folder / "state", self.recipe.training)
        stored = torch.bfloat16 if self.recipe.training.stored == "bfloat16" else torch.float32
        weights = averaged or bundle.take_weights(self.model)
        return {name: tensor.to(stored) for name, tensor in weights.items()}

    def _encode(self, examined: corpus.Examined) -> TokenStore:
        data = self.recipe.data
        inputs = [file for entry in examined.corpora for file in entry[:2] if file]
        settings = {
            "version": TOKENS_VERSION,
            "kinds": [path.suffixes for path in inputs],
            "held_out": self.report.held_out,
            **{name: getattr(data, name) for name in SHAPING},
        }
        path = files.cache_folder() / "tokens" / f"{content_key(inputs, json.dumps(settings), self.words)}.arrow"
        notes = path.with_suffix(".json")
        if processes()[0] == 0:
            files.mark_used(path, notes)
            files.remove_unused(path.parent, DAYS_KEPT)
        for here in (processes()[0] == 0, local_rank() == 0):  # and then where another machine has its own cache
            if here and not (path.is_file() and notes.is_file()):
                pairs = _training_pairs(self.recipe, examined)
                encoded = encode_corpus(pairs, self.words, path, data.max_length, data.max_ratio)
                files.write_text(notes, json.dumps(encoded._asdict()))
            wait_for_all()
        counts = json.loads(notes.read_text(encoding="utf-8"))
        self.report.added = counts["kept"] + counts["too_long"] + counts["ratio"] - self.report.kept
        self.report.drop("too long", counts["too_long"])
        self.report.drop("ratio", counts["ratio"])
        self.report.unknown = counts["unknown"]
        store = TokenStore(path)
        if not len(store):
            raise HeedfulError(f"no pair left of {self.report.read}: {self.report.dropped}; raise data.max_length")
        for side, lengths in (("source", store.source_lengths_N), ("target", store.target_lengths_N)):
            self.report.lengths[side] = [
                float(lengths.mean()),
                float(np.median(lengths)),
                float(lengths.max()),
            ]
        return store

    def stream(self) -> BatchStream:
        """Return this process's share of the batches, from the first one on."""
        rank, world = processes()
        return BatchStream(
            self.store,
            self.recipe.batches,
            vocabulary=self.words,
            subword_dropout=self.recipe.vocabulary.dropout,
            weights=self.recipe.data.weights,
            longest=self.recipe.model.longest,
            rank=rank,
            world=world,
        )

    def _time_a_step(self, stream: BatchStream) -> float:
        training, start = self.recipe.training, stream.state()
        optimizer = loop.make_optimizer(self.model, training)
        accumulate = self.recipe.batches.accumulate
        _, *steady = time_training(self.model, optimizer, iter(stream), training, accumulate=accumulate)
        stream.restore(start)
        return sum(step.seconds for step in steady) / len(steady)  # the first paid for what is set up once

    def _fix_precision(self) -> None:
        """Turn "auto" into a precision, once, for all processes and for resuming."""
        training = self.recipe.training
        if training.precision != "auto":
            return
        narrow = agreed(settled(training.precision, self.device) == "bfloat16")
        precision: Precision = "bfloat16" if narrow else "float32"
        self.recipe = replace(self.recipe, training=replace(training, precision=precision))
        if processes()[0] == 0:
            _write_recipe(self.folder, self.recipe)

    def _fix_steps(self, seconds_a_step: float) -> None:
        """Turn `minutes` into steps, once: the stored recipe has the steps, so that resuming is exact."""
        training = self.recipe.training
        if not training.minutes:
            return
        steps = max(20, int(60 * training.minutes / seconds_a_step))
        # Short runs still want a warmup, evaluations and checkpoints to average.
        every = min(training.checkpoint_every, max(1, steps // 20))
        self.recipe = replace(
            self.recipe,
            training=replace(
                training,
                minutes=0.0,
                steps=steps,
                warmup=min(training.warmup, max(1, steps // 5)),
                checkpoint_every=every,
                evaluate_every=min(training.evaluate_every, every * 4),
            ),
        )
        if processes()[0] == 0:
            _write_recipe(self.folder, self.recipe)

    def _warnings(self) -> Iterator[str]:
        tokens = int(self.store.target_lengths_N.sum())
        symbols = self.words.sizes[1]
        if self.recipe.vocabulary.kind in ("bpe", "unigram") and tokens < 20 * symbols:
            yield (
                f"the vocabulary has {symbols:,} symbols but the target text only {tokens:,} tokens: most symbols are "
                f"too rare to learn; try --vocabulary.size {max(300, tokens // 60)}"
            )
        if self.too_long:
            yield f"{self.too_long:,} development pairs are longer than the model has positions, and are left out"
        if self.report.leaked > self.report.kept // 100:
            yield (
                f"{self.report.leaked:,} training pairs share a sentence with the development data: its scores will "
                f"be too good; remove them, or leave development out to have disjoint pairs held out"
            )

    @torch.inference_mode()
    def _evaluate(self, model: EncoderDecoder, beam: int = 1) -> tuple[dict[str, float], list[str]]:
        """Score the development data: loss and perplexity by force-decoding, BLEU and chrF by search."""
        search = replace(self.recipe.search, beam=beam, n_best=1, sample=False)
        translator = Translator(model, self.words, search, capitals=self.recipe.data.capitals)
        loss = self._development_loss(translator)
        sources, references = [pair[0] for pair in self.dev], [pair[1] for pair in self.dev]
        outputs = [found[0].text for found in translator.translate(sources)]
        scores = {"loss": loss, "perplexity": float(np.exp(min(loss, 50.0)))} | bleu_and_chrf(outputs, references)
        scores["exact"] = 100 * sum(map(str.__eq__, outputs, references)) / len(outputs)
        return scores, list(_collapse(outputs))

    def _development_loss(self, translator: Translator) -> float:
        """Mean negative log-likelihood of a target symbol, in nats."""
        sources, targets, _ = translator.encode_pairs([pair[0] for pair in self.dev], [pair[1] for pair in self.dev])
        rows = sorted(range(len(sources)), key=lambda i: (len(targets[i]), len(sources[i])))
        total, tokens = 0.0, 0
        for start in range(0, len(rows), 64):
            chosen = rows[start : start + 64]
            batch: Batch = batch_of([sources[i] for i in chosen], [targets[i] for i in chosen]).to(self.device)
            total += loop.batch_loss(translator.model, batch, 0.0).likelihood.item()
            tokens += int((batch.target_out_BT != PAD).sum())
        return total / tokens


def _claimed(folder: Path) -> AbstractContextManager[None]:
    """Keep other runs out of the folder; the first process does so for all of a run."""
    return files.claimed(folder) if processes()[0] == 0 else nullcontext()


def _remove_leftovers(folder: Path) -> None:
    for place in (folder, folder / "state", folder / "state" / "checkpoints"):
        files.remove_leftovers(place, *WRITTEN, "model.toml", "vocabulary*.model", "*.safetensors", "step-*")


def _check_free(folder: Path) -> None:
    """Refuse to train over a model, or over files of somebody else.

    Of a run that ended before its first checkpoint there is nothing to lose: another one may take its place.
    """
    if newest_state(folder / "state") or (folder / bundle.WEIGHTS).exists():
        raise HeedfulError(
            f"{folder}: there is a model already; go on with `heedful train --resume {folder}`, or give another --out"
        )
    foreign = [name for name in WRITTEN if (folder / name).exists()]
    if foreign and not (folder / "model.toml").exists():
        raise HeedfulError(f"{folder}: {foreign[0]} there is not of a training; give another --out")


def _learn_vocabulary(recipe: Recipe, examined: corpus.Examined) -> Vocabulary:
    sources = (source for _, source, _ in _training_pairs(recipe, examined))
    targets = (target for _, _, target in _training_pairs(recipe, examined))
    tags = sorted({tag for tag in recipe.data.tags if tag})
    return vocabulary.learn(sources, targets, recipe.vocabulary, tags=tags, threads=os.cpu_count() or 1)


def _training_pairs(recipe: Recipe, examined: corpus.Examined) -> Iterator[augment.Triple]:
    data = recipe.data
    yield from augment.augmented(examined.training(), tags=data.tags, altered=data.altered, seed=data.seed)
    for source, target in examined.words if data.words else ():
        yield 0, source, target
        yield 0, source.capitalize(), target  # people begin with a capital, or do not


def _start_folder(folder: Path, recipe: Recipe, words: Vocabulary) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.remove(folder / "state")  # checkpoints of a run that was killed before it could be resumed
    provenance = {
        "heedful": heedful.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    before = bundle.read_manifest(recipe.start_from)["provenance"] if recipe.start_from else {}
    if recipe.start_from:
        provenance["start_from"] = recipe.start_from.name
    if attributions := list(filter(None, (recipe.data.attribution, before.get("data")))):
        provenance["data"] = " ".join(dict.fromkeys(attributions))  # what it began with came from somebody too
    tables = to_table(recipe.model), words, to_table(recipe.search), provenance
    bundle.describe(folder, *tables, languages=recipe.data.languages, capitals=recipe.data.capitals)
    _write_recipe(folder, recipe)
    files.write_text(folder / "log.jsonl", "")


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    files.write_text(folder / "recipe.toml", tomli_w.dumps(to_table(recipe)))


def _collapse(outputs: list[str]) -> Iterator[str]:
    """Warn when a model says the same whatever it is given: the commonest failure that a falling loss hides."""
    text, count = Counter(outputs).most_common(1)[0]
    if len(outputs) >= 10 and count > len(outputs) / 2:
        yield (
            f"{count} of {len(outputs)} development outputs are the same ({text[:40]!r}): the model ignores its input. "
            f"If this lasts: lower training.rate, train longer, or check that line n of both sides belong together"
        )


def _set_threads(config: TrainingConfig) -> None:
    keep_heap()
    keep_products()
    if config.threads:
        torch.set_num_threads(config.threads)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Let the stored recipe find what it needs from wherever it is resumed."""
    begun = recipe.start_from and bundle.locate(recipe.start_from).resolve()
    return replace(recipe, start_from=begun, data=replace(recipe.data, folder=(recipe.data.folder or Path()).resolve()))
