"""Text in; text, scores and alignments out.

A Transformer that is compiled translates without torch, which takes longer to import than many a text to translate:
what needs it is imported where it is needed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from heedful import bundle
from heedful.bundle import Bundle
from heedful.config import from_table
from heedful.data.lines import pairs_by_length, shared
from heedful.decoding.hypothesis import Hypothesis, length_penalty
from heedful.decoding.settings import SearchConfig
from heedful.decoding.whole_search import is_whole, whole_search
from heedful.errors import HeedfulError
from heedful.heap import keep_heap
from heedful.model.compiled import Compiled
from heedful.model.settings import ModelConfig, Weights
from heedful.text.capitals import in_capitals, split_tag
from heedful.text.document import careful, clean, translating
from heedful.text.reading import Reader
from heedful.text.vocabulary import UNKNOWN, Vocabulary
from heedful.threads import threads

if TYPE_CHECKING:
    import torch

    from heedful.decoding.explanation import Explanation
    from heedful.decoding.search import Beams
    from heedful.model.encoder_decoder import EncoderDecoder
    from heedful.model.engine import Engine

T = TypeVar("T")
WINDOW = 4096  # lines sorted by length together, so that a stream needs bounded memory


@dataclass(frozen=True)
class Output:
    """One translation of a line. `score` is its length-normalised log-probability, `log_probability` the sum, in nats.

    Where a model of the other direction has a say, `score` is both ones' together.
    `ids` are its target tokens, END last; `alignment` has (source word, target word), counted from 0, if asked for.
    """

    text: str
    score: float
    log_probability: float
    ids: list[int] = field(repr=False)
    alignment: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


@dataclass
class Translator:
    """A model and how to search with it; with `capitals`, a line in capitals is handled as in lower case."""

    trained: "EncoderDecoder | Bundle"  # or the folder of one, whose weights become torch's when `model` is asked for
    vocabulary: Vocabulary
    search: SearchConfig = SearchConfig()
    weights: Weights = "float32"
    capitals: bool = False
    languages: tuple[str, ...] = ()  # codes of source and target, where the model folder says them
    aligner: str = ""  # the attention that aligns words, "cross.2" or a head of it "cross.2.1"; "" = by rule of thumb
    reverse: "Translator | None" = None  # of the other direction: helps to choose among what the beam found

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu", weights: Weights = "float32") -> "Translator":
        """Load a model folder, or one in the box by its name; `weights` "bfloat16" and "int8" are faster, less exact.

        Raises:
            HeedfulError: a file is missing, truncated or altered.
        """
        loaded = bundle.load(bundle.locate(folder), device)
        config = from_table(SearchConfig, loaded.manifest.get("search", {}), str(folder))
        capitals, languages = loaded.manifest.get("capitals", False), tuple(loaded.manifest.get("languages", ()))
        aligner = loaded.manifest.get("alignment", {}).get("attention", "")
        return cls(loaded, loaded.vocabulary, config, weights, capitals, languages, aligner)

    def with_reverse(self, reverse: "Translator") -> "Translator":
        """Return this translator, its beams ordered with the help of a model of the other direction.

        A `score` then is both models' together; `score` and `explain` know this model's alone.

        Raises:
            HeedfulError: both models say their languages, and these are not the other way round.
        """
        known = self.languages and reverse.languages
        if known and reverse.languages != self.languages[::-1]:
            ours, theirs = ("-".join(languages) for languages in (self.languages, reverse.languages))
            raise HeedfulError(f"a model for {theirs} cannot check {ours}; give one of the other direction")
        return replace(self, reverse=reverse)

    @cached_property
    def reader(self) -> Reader:
        """How the model reads text."""
        return Reader(self.vocabulary, self.capitals)

    @cached_property
    def _pools(self) -> dict[tuple[int, int], ThreadPoolExecutor]:
        """Threads to translate with, by process, since a forked one has none of them, and by how many there are."""
        return {}

    @cached_property
    def model(self) -> "EncoderDecoder":
        """The model itself, in evaluation mode if it came from a folder.

        If it is changed then, search does not know of it: `Translator(translator.model, translator.vocabulary)` does.
        """
        return self.trained.model if isinstance(self.trained, Bundle) else self.trained

    @property
    def device(self) -> "torch.device":
        """Where the model computes."""
        return next(self.model.parameters()).device

    @cached_property
    def configs(self) -> list[ModelConfig]:
        """The sizes and choices of the model, or of each member of an ensemble."""
        if isinstance(self.trained, Bundle):
            return self.trained.configs
        from heedful.model.ensemble import members_of

        return [model.config for model in members_of(self.trained)]

    @cached_property
    def longest(self) -> int | None:
        """The tokens of the longest text that the model can read or write, END among them; None: any."""
        return min((own for config in self.configs if (own := config.longest) is not None), default=None)

    @cached_property
    def compiled(self) -> Compiled | None:
        """The model for search without torch, with its weights of now; None where only torch can search with it."""
        if isinstance(self.trained, Bundle):
            made = self.trained.compiled(self.weights)
        else:
            from heedful.model.compiled_inference import compiled

            made = compiled(self.trained, self.weights)
        if made:
            keep_heap()
        return made

    @cached_property
    def inference(self) -> "Engine":
        """The model for search by steps; one whose weights change after this was asked for needs a new Translator."""
        from heedful.model.family import engine_of

        if self.compiled is None and self.device.type == "cpu":
            keep_heap()
        return engine_of(self.compiled or self.model, self.weights)

    def translate(
        self,
        lines: Iterable[str],
        config: SearchConfig | None = None,
        *,
        batch: int = 64,
        prefixes: Iterable[str] | None = None,
        align: bool = False,
        window: int = WINDOW,
        workers: int = 0,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[list[Output]]:
        """Yield for each line, in order, its `n_best` translations, best first; an empty line gives one empty text.

        Lines are taken `window` at a time, sorted by length and translated `batch` together; what else is in a
        batch does not change a translation. Each output begins with its prefix, if prefixes are given. A model of the
        other direction, if there is one, helps to choose among what the beam found. On a processor with compiled
        steps, `workers` batches are translated at a time, by a thread each; 0 = as many as torch has, or would have.
        """
        config = config or self.search
        config.check()
        if self.reverse and config.found == 1:
            raise HeedfulError(
                "a model of the other direction has one output to choose from: widen the beam, wait for more with "
                "patience, or draw more with n_best"
            )
        remaining = iter(lines)
        forced = chain(prefixes, repeat("")) if prefixes is not None else None
        start = 0
        while taken := list(islice(remaining, max(1, window))):
            begun = list(islice(forced, len(taken))) if forced is not None else None
            yield from self._window(taken, begun, config, start, batch, workers, align, progress)
            start += len(taken)

    def translate_document(
        self, text: str, config: SearchConfig | None = None, *, markup: bool = False, batch: int = 64
    ) -> str:
        """Return a text of any length translated sentence by sentence, all that stands between them as it was.

        Lines, blank lines, bullets, placeholders ({name}, %s, addresses, `code`) and, with `markup`, tags are kept.
        """
        config = config or self.search
        if not (config.sample and self.reverse):  # which chooses among what is drawn
            config = replace(config, n_best=1)
        with_care = replace(config, no_repeat_ngram=careful(config.no_repeat_ngram))
        steps = translating(text, *self.languages[:1], markup=markup, fits=self.has_room_for)
        answers: list[list[Output]] | None = None
        while True:
            try:
                sentences = steps.send(answers)  # type: ignore[arg-type]
            except StopIteration as finished:
                return cast(list[str], finished.value)[0]
            wanted = [(s.text, with_care if s.careful else config, s.align) for s in sentences]
            answers = self.translate_each(wanted, batch=batch)

    def has_room_for(self, text: str) -> bool:
        """Return whether the model knows positions enough for a text, and for names in place of its placeholders."""
        return self.longest is None or len(self.reader.encode([text])[0][0]) <= self.longest * 3 // 4

    def translate_each(
        self, wanted: Sequence[tuple[str, SearchConfig, bool]], *, batch: int = 64
    ) -> list[list[Output]]:
        """Translate each text by a search of its own, with alignments or without; those of a kind go together."""
        kinds = [(config, align) for _, config, align in wanted]
        found: dict[int, list[Output]] = {}
        for config, align in dict.fromkeys(kinds):
            rows = [i for i, kind in enumerate(kinds) if kind == (config, align)]
            outputs = self.translate([wanted[i][0] for i in rows], config, batch=batch, align=align)
            found.update(zip(rows, outputs, strict=True))
        return [found[i] for i in range(len(wanted))]

    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, batch: int = 64, align: bool = False, start: int = 0
    ) -> list[Output]:
        """Return the score of each given translation: the one that `translate` would report for these tokens.

        Not so for a text in capitals, where the model reads those in lower case: `translate` knew its cased tokens. And
        text that is given is read with the weights in float32, whichever the search has.

        Raises:
            HeedfulError: sources and targets differ in number, or the model has no positions for one; with `start`
                lines before these, its number says which.
        """
        if len(sources) != len(targets):
            raise HeedfulError(f"{len(sources)} sources and {len(targets)} targets; each source needs its target")
        source_ids, target_ids, shouted = self.reader.encode_pairs(sources, targets)
        if self.longest is not None:
            self._check_lengths("source", source_ids, self.longest, start)
            self._check_lengths("target", target_ids, self.longest, start)
        found = self.score_ids(source_ids, target_ids, batch=batch, align=align)
        return [
            replace(output, text=output.text.upper()) if loud and in_capitals(target) else output
            for output, loud, target in zip(found, shouted, targets, strict=True)
        ]

    def score_ids(
        self,
        sources: Sequence[list[int]],
        targets: Sequence[list[int]],
        *,
        batch: int = 64,
        align: bool = False,
    ) -> list[Output]:
        """Score tokens as they are: the same text can be spelt in more than one way."""
        from heedful.decoding.forced import log_probabilities, read

        results: dict[int, Output] = {}
        for chosen in pairs_by_length(sources, targets, batch):
            pairs = [(sources[i], targets[i]) for i in chosen]
            reading = read(self.model, self.vocabulary, pairs, self.aligner if align else None)
            totals = log_probabilities(self.model, reading)
            for i, total, links in zip(chosen, totals, reading.links, strict=True):
                score = total / length_penalty(len(targets[i]), self.search.length_penalty)
                text = self.vocabulary.decode_target(targets[i])
                results[i] = Output(text, score, total, list(targets[i]), links)
        return [results[i] for i in range(len(sources))]

    def explain(self, text: str, config: SearchConfig | None = None, *, rank: int = 1) -> "Explanation":
        """Translate one text, and return all that can be seen of how: attention, probabilities, the beam's tree.

        With `rank` it is not the best output that is looked into, but the second, third, ... of the beam.

        Raises:
            HeedfulError: there is nothing in the text to translate, or the search does not find so many outputs.
        """
        from heedful.decoding.alignment import words_of_pieces
        from heedful.decoding.explanation import Explanation, Tree
        from heedful.decoding.forced import look_into

        config = config or self.search
        config = replace(config, n_best=max(config.n_best, rank))
        if not 1 <= rank <= config.width:
            raise HeedfulError(f"no output of rank {rank}: the beam is {config.width} wide; choose from 1, or widen it")
        [source], [shouted] = self.reader.encode([text])
        if len(source) < 2:
            raise HeedfulError("nothing to explain: the text is empty; give a sentence")
        tree = Tree()
        [found] = self._search([source], config, [0], None, tree.watch)
        if rank > len(found):
            raise HeedfulError(f"no output of rank {rank}: the search found {len(found)}; choose one of them")
        outputs = [self._output(hypothesis, shouted) for hypothesis in found]
        chosen = outputs[rank - 1]
        seen = look_into(self.model, self.vocabulary, source, chosen.ids, self.aligner)
        return Explanation(
            source=clean(text),
            text=chosen.text,
            languages=self.languages,
            score=chosen.score,
            source_pieces=seen.source_pieces,
            target_pieces=seen.target_pieces,
            source_words=words_of_pieces(seen.source_pieces),
            target_words=words_of_pieces(seen.target_pieces),
            log_probabilities=seen.log_probabilities,
            alignment=seen.links,
            alternatives=[(output.text, output.score) for output in outputs],
            rank=rank,
            tree=tree.finish(chosen.ids, lambda ids: self.vocabulary.pieces(ids, "target")),
            aligner=seen.aligner,
            attention=seen.attention,
        )

    def without(self, *heads: str) -> "Translator":
        """Return a translator of the same model with some heads switched off: "cross.1.0" is one, "cross.1" a layer's.

        Raises:
            HeedfulError: there is no such head.
        """
        from heedful.model.ablation import without

        return replace(self, trained=without(self.model, heads))

    def _window(
        self,
        lines: list[str],
        prefixes: list[str] | None,
        config: SearchConfig,
        start: int,
        batch: int,
        workers: int,
        align: bool,
        progress: Callable[[int], None],
    ) -> list[list[Output]]:
        wanted = config.n_best
        if self.reverse:  # it chooses among all that there are
            config = replace(config, n_best=config.found)
        sources, shouted = self.reader.encode(lines)
        forced = self.reader.encode_prefixes(prefixes, shouted) if prefixes else None
        for number, tokens in enumerate(forced or [], start=start + 1):
            if UNKNOWN in tokens:  # which no output has
                raise HeedfulError(f"prefix {number}: the model's vocabulary lacks a part of it; leave that out")
        if self.longest is not None:
            self._check_lengths("line", sources, self.longest, start)
            self._check_lengths("prefix", forced or [], self.longest - 1, start)
        results: dict[int, list[Output]] = {}
        full = [i for i, source in enumerate(sources) if len(source) > 1]

        def one_batch(chosen: list[int]) -> list[list[Hypothesis]]:
            begun = [forced[i] for i in chosen] if forced else None
            return self._search([sources[i] for i in chosen], config, [start + i for i in chosen], begun)

        whole = self.compiled is not None and is_whole(config) and not forced
        workers = (workers or threads()) if whole or self.inference.one_thread else 1
        batches = shared(full, sources, batch, workers)
        for chosen, found in zip(batches, self._each(one_batch, batches, workers), strict=True):
            for i, hypotheses in zip(chosen, found, strict=True):
                results[i] = [self._output(hypothesis) for hypothesis in hypotheses]
            progress(len(chosen))
        progress(len(lines) - len(full))
        if self.reverse and full:
            untagged = {i: split_tag(lines[i])[1] for i in full}  # which direction to take is nothing to be guessed
            texts = [untagged[i].lower() if shouted[i] else untagged[i] for i in full]
            ordered = _ordered_with(self.reverse, texts, [results[i] for i in full], config.reverse_weight, batch)
            results = {i: found[:wanted] for i, found in zip(full, ordered, strict=True)}
        for i in (i for i in full if shouted[i]):
            results[i] = [replace(output, text=output.text.upper()) for output in results[i]]
        outputs = [results.get(i) or [Output("", 0.0, 0.0, [])] for i in range(len(lines))]
        return self._aligned(sources, outputs, batch) if align else outputs

    def _check_lengths(self, what: str, texts: list[list[int]], most: int, start: int) -> None:
        """Refuse a line that the model has no positions for, by its number."""
        for number, tokens in enumerate(texts, start=start + 1):
            if len(tokens) > most:
                raise HeedfulError(
                    f"{what} {number}: {len(tokens):,} tokens, but the model learned {self.longest:,} positions; "
                    f"make it shorter"
                )

    def _each(self, search: Callable[[list[int]], T], batches: list[list[int]], workers: int) -> Iterator[T]:
        """Yield the results of all batches, in order, `workers` of them being worked on at a time."""
        if min(workers, len(batches)) < 2:
            yield from map(search, batches)
            return
        # compiled steps let other threads run; the same ones serve again, so that what each holds does not pile up
        ours = os.getpid(), workers
        if ours not in self._pools:
            self._pools[ours] = ThreadPoolExecutor(workers)
        yield from self._pools[ours].map(search, batches)

    def _search(
        self,
        sources: list[list[int]],
        config: SearchConfig,
        keys: list[int],
        prefixes: list[list[int]] | None,
        observe: "Callable[[Beams], None] | None" = None,
    ) -> list[list[Hypothesis]]:
        if self.compiled and is_whole(config) and not (prefixes or observe):
            found = whole_search(self.compiled, sources, config, self.longest)
        else:
            from heedful.decoding.search import search_by_steps

            found = search_by_steps(
                self.inference,
                sources,
                config,
                device="cpu" if self.compiled else self.device,
                prefixes=prefixes,
                keys=keys,
                longest=self.longest,
                observe=observe,
            )
        if not all(found):  # an end always has its price, unless that is no number
            raise HeedfulError("the model computes no numbers: its weights are damaged; train or copy it anew")
        return found

    def _output(self, hypothesis: Hypothesis, shouted: bool = False) -> Output:
        text = self.vocabulary.decode_target(hypothesis.ids)
        return Output(text.upper() if shouted else text, hypothesis.score, hypothesis.log_probability, hypothesis.ids)

    def _aligned(self, sources: list[list[int]], outputs: list[list[Output]], batch: int) -> list[list[Output]]:
        from heedful.decoding.forced import read

        known = [
            (ids, output.ids) for ids, found in zip(sources, outputs, strict=True) for output in found if output.ids
        ]
        links: dict[int, list[tuple[int, int]]] = {}
        for chosen in pairs_by_length([source for source, _ in known], [target for _, target in known], batch):
            reading = read(self.model, self.vocabulary, [known[i] for i in chosen], self.aligner)
            links.update(zip(chosen, reading.links, strict=True))
        rows = iter(range(len(known)))
        return [
            [replace(output, alignment=links[next(rows)]) if output.ids else output for output in found]
            for found in outputs
        ]


def _ordered_with(
    reverse: Translator, lines: Sequence[str], outputs: Sequence[list[Output]], weight: float, batch: int
) -> Iterator[list[Output]]:
    """Order outputs by their own score and, by its weight, that of the line given them  (Yee et al. 2019).

    Each is a log-probability over the length penalty of its own text, by its own model. Outputs of a line that the
    other model has no positions for stay as they are.
    """
    pairs = [(output.text, line) for line, found in zip(lines, outputs, strict=True) for output in found]
    sources, targets, _ = reverse.reader.encode_pairs(*map(list, zip(*pairs, strict=True)))
    lengths = [max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
    fitting = [row for row, length in enumerate(lengths) if length <= (reverse.longest or length)]
    scored = reverse.score_ids([sources[row] for row in fitting], [targets[row] for row in fitting], batch=batch)
    theirs = {row: output.score for row, output in zip(fitting, scored, strict=True)}
    rows = iter(range(len(pairs)))
    for found in outputs:
        own = list(zip(found, islice(rows, len(found)), strict=True))
        if all(row in theirs for _, row in own):
            both = [replace(output, score=output.score + weight * theirs[row]) for output, row in own]
            yield sorted(both, key=lambda output: -output.score)
        else:
            yield found
