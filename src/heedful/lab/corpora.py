"""Real text for experiments: where it lies, and learning from it by the very code that `heedful train` runs."""

import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from heedful import files, pipeline
from heedful.config import Table
from heedful.errors import HeedfulError
from heedful.evaluation.scores import bleu_and_chrf
from heedful.inspection.cost import forward_flops
from heedful.model.settings import ModelConfig
from heedful.pipeline import Finished, Prepared
from heedful.recipe import build
from heedful.text.pairs import Corpus, read_whole_pairs
from heedful.text.vocabulary import Vocabulary
from heedful.training.loop import Evaluation, Step, mean_loss
from heedful.translator import Translator

Pairs = list[tuple[str, str]]
VARIABLE = "HEEDFUL_DATA"  # the environment variable that names the folder of the corpora
LANGUAGES = ("en", "de")  # source and target: the ends of the files' names
SPLITS = {
    "multi30k-en-de": ("train", "val", "test_2016_flickr"),
    "tatoeba-en-de": ("train", "val", "test"),
}
FAMILIES: dict[str, Table] = {  # about equally many parameters with two layers and 2,000 symbols
    # post-norm, as the paper has it, learns badly at this rate (decision 13)
    "transformer": {"d_model": 96, "d_ff": 192, "heads": 4, "normalization": "pre"},
    "convolution": {"d_model": 98, "max_positions": 256},
    "lstm-attention": {"d_model": 104},
    "lstm": {"d_model": 104},
}
SAMPLE = 1_000  # pairs that the loss on training text and the mean cost of a pair are measured on


def look_in(folder: Path) -> None:
    """Take corpora from this folder, in this process and in those that it starts."""
    os.environ[VARIABLE] = str(folder)


def place(name: str) -> Path | None:
    """Return where a file or folder of this name lies in the folder of corpora, or None if it is not there."""
    folder = os.environ.get(VARIABLE)
    path = Path(folder or "", name)
    return path if folder and path.exists() else None


def missing(names: Iterable[str]) -> list[str]:
    """Return those of the corpora that are not there, or not whole."""
    return [name for name in names if not all(place(file) for split in SPLITS[name] for file in _files(name, split))]


def require(names: Iterable[str]) -> None:
    """Refuse to go on without these corpora.

    Raises:
        HeedfulError: one is missing; with what to give.
    """
    if absent := missing(names):
        held = " ".join(f"{split}.{language}" for split in SPLITS[absent[0]] for language in LANGUAGES)
        raise HeedfulError(
            f"no {' and no '.join(absent)}: give --data FOLDER, or set {VARIABLE}; FOLDER/{absent[0]} holds {held}"
        )


def read(name: str, split: str) -> Pairs:
    """Return a split of a corpus, pairs with an empty side left out. The splits: train, val, and the last of SPLITS.

    Raises:
        HeedfulError: the corpus is missing or broken.
    """
    require([name])
    [source, target] = [cast(Path, place(file)) for file in _files(name, split)]
    return list(read_whole_pairs(Corpus(source, target)))


@dataclass(frozen=True)
class Learned:
    """What came of one training. Losses are nats a target symbol, without dropout and label smoothing."""

    parameters: int
    epochs: float
    seconds: float  # of the training steps alone: evaluations left out
    flops: float  # of the training, by formula: three forward passes for each pair seen
    curve: list[Table]  # at each evaluation on the development pairs: step, seconds, flops, and the scores
    training_loss: float  # of the final weights, on up to SAMPLE of the training pairs
    development: dict[str, float]  # scores of the final weights: loss, perplexity, bleu, chrf, exact
    test: dict[str, float]  # bleu, chrf
    outputs: list[str]  # what the final weights make of the test's sources


def short_run(model: Table, *, vocabulary: int, tokens: int, steps: int, seed: int) -> Table:
    """Return the tables of a recipe: the preset tiny with this model, trained in so many steps; greedy search."""
    return {
        "preset": "tiny",
        "vocabulary": {"size": vocabulary},
        "model": model,
        "batches": {"tokens": tokens, "seed": seed},
        "training": {
            "precision": "float32",  # the same arithmetic for every family, on every processor
            "seed": seed,
            "steps": steps,
            "warmup": -(-steps // 5),
            "evaluate_every": 0,
            "checkpoint_every": -(-steps // 50),
        },
        "search": {"beam": 1},
    }


@dataclass(frozen=True)
class FamilySettings:
    """Vocabulary, layers of each stack, and training, the same for every one of FAMILIES."""

    vocabulary: int = 2_000
    layers: int = 2
    steps: int = 3_000
    tokens: int = 1_024


def family_run(family: str, settings: FamilySettings, seed: int) -> Table:
    """Return the tables of a short run of one of FAMILIES."""
    layers = {"encoder_layers": settings.layers, "decoder_layers": settings.layers}
    return short_run(
        {"family": family, "dropout": 0.1, **layers, **FAMILIES[family]},
        vocabulary=settings.vocabulary,
        tokens=settings.tokens,
        steps=settings.steps,
        seed=seed,
    )


def learn_text(
    name: str, settings: Table, training: Pairs, development: Pairs, test: Pairs
) -> Generator[str, None, Learned]:
    """Train by a recipe, score the final weights on the test; yield `name` with how far it is.

    `settings` are a recipe's tables without its data: preset, vocabulary, model, batches, training, search.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = _write(folder, {"train": training, "development": development})
        recipe = build({"data": data}, settings)
        seconds, tokens, curve = 0.0, 0, list[Table]()
        for event in pipeline.run(recipe, folder / "model"):
            match event:
                case Prepared():
                    prepared = event
                    flops, length = _cost_of_a_pair(recipe.model, Vocabulary.load(folder / "model"), training)
                    yield f"{name}: {event.steps:,} steps, about {event.seconds:.0f} seconds"
                case Step():
                    seconds, tokens = seconds + event.tokens / event.tokens_per_second, tokens + event.tokens
                case Evaluation():
                    curve.append(
                        {"step": event.step, "seconds": seconds, "flops": flops * tokens / length, **event.scores}
                    )
                    yield f"{name}: step {event.step:,}, BLEU {event.scores['bleu']:.1f}"
                case Finished():
                    final = event.scores
                case _:
                    pass
        translator = Translator.load(folder / "model")
        outputs = [found[0].text for found in translator.translate([source for source, _ in test])]
        sample = zip(*training[:SAMPLE], strict=True)
        return Learned(
            parameters=prepared.parameters,
            epochs=tokens / length / prepared.report.kept,
            seconds=seconds,
            flops=flops * tokens / length,
            curve=curve,
            training_loss=mean_loss(translator.model, *translator.reader.encode_pairs(*sample)[:2]),
            development=final,
            test=bleu_and_chrf(outputs, [target for _, target in test]),
            outputs=outputs,
        )


def _files(name: str, split: str) -> list[str]:
    return [f"{name}/{split}.{language}" for language in LANGUAGES]


def _write(folder: Path, splits: dict[str, Pairs]) -> Table:
    """Write the pairs as files, and return the table of a recipe that names them."""
    for split, pairs in splits.items():
        for side, number in (("source", 0), ("target", 1)):
            files.write_text(folder / f"{split}.{side}", "".join(f"{pair[number]}\n" for pair in pairs))
    return {
        "folder": str(folder),
        "source": ["train.source"],
        "target": ["train.target"],
        "development_source": "development.source",
        "development_target": "development.target",
    }


def _cost_of_a_pair(model: ModelConfig, vocabulary: Vocabulary, pairs: Pairs) -> tuple[float, float]:
    """Return the FLOPs that training on a pair takes, and its target symbols: means over some of the pairs."""
    sources = vocabulary.encode_source([source for source, _ in pairs[:SAMPLE]])
    targets = vocabulary.encode_target([target for _, target in pairs[:SAMPLE]])
    forward = [
        sum(forward_flops(model, vocabulary.sizes[1], len(source), len(target)).values())
        for source, target in zip(sources, targets, strict=True)
    ]
    return 3 * sum(forward) / len(forward), sum(map(len, targets)) / len(targets)
