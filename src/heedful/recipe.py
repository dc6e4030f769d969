"""A recipe: data + vocabulary + model + training + search, as one settings class with presets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heedful import bundle
from heedful.config import Table, from_table, merge, read_toml, refuse_unread, setting, to_table, without_unread
from heedful.data.batches import BatchConfig
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.model.settings import ModelConfig
from heedful.text.corpus import DataConfig, check_languages, check_tags
from heedful.text.vocabulary import VocabularyConfig
from heedful.training.settings import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run needs to know."""

    preset: str = setting("small", "Sizes and settings to start from: paper-base, paper-big, small, tiny, fast, best")
    start_from: Path | None = setting(None, "Model folder to begin with: its sizes, vocabulary and weights")
    data: DataConfig = DataConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    model: ModelConfig = ModelConfig()
    batches: BatchConfig = BatchConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()


_FILES, _PAIRS = ("source", "target"), ("pairs",)
_DEVELOPMENT_FILES, _DEVELOPMENT_PAIRS = ("development_source", "development_target"), ("development_pairs",)
_INSTEAD = (  # settings that name text, and those that name it in the other form
    (_FILES, _PAIRS),
    (_PAIRS, _FILES),
    (_DEVELOPMENT_FILES, _DEVELOPMENT_PAIRS),
    (_DEVELOPMENT_PAIRS, _DEVELOPMENT_FILES),
)
_LAPTOP = {  # what small models on small data are trained with, instead of the paper's week of eight GPUs
    "batches": {"tokens": 4096},
    "training": {
        "schedule": "stable-decay",
        "warmup": 400,
        "steps": 10_000,
        "clip": 1.0,
        "checkpoint_every": 500,
        "evaluate_every": 500,
    },
}
_TINY = {
    "encoder_layers": 4,
    "decoder_layers": 4,
    "d_model": 128,
    "d_ff": 256,
    "heads": 4,
    "dropout": 0.3,
    "normalization": "pre",  # at these rates post-norm is far behind: docs/decisions/0013-fast-and-best.md
}
_TO_THE_END = {  # judged when it is done, with the mean of its last weights
    "vocabulary": {"size": 6000},
    "training": {"warmup": 300, "decay": 0.9, "average": 10, "evaluate_every": 0},
    "search": {"length_penalty": 1.2},
}
PRESETS: dict[str, Table] = {
    "paper-base": {  # a checkpoint every ten minutes, where a step took 0.4 s, and 1.0 s of the big model (5.2, 6.1)
        "vocabulary": {"size": 37_000},
        "batches": {"tokens": 25_000},
        "training": {"checkpoint_every": 1500, "evaluate_every": 1500},
    },
    "paper-big": {
        "vocabulary": {"size": 37_000},
        "model": {"d_model": 1024, "d_ff": 4096, "heads": 16, "dropout": 0.3},
        "batches": {"tokens": 25_000},
        "training": {"steps": 300_000, "average": 20, "checkpoint_every": 600, "evaluate_every": 3000},
    },
    "small": merge(
        _LAPTOP,
        {
            "model": {"d_model": 256, "d_ff": 1024, "heads": 4, "dropout": 0.2, "normalization": "pre"},
            "training": {"rate": 1e-3},
        },
    ),
    # The sizes with published Multi30k scores (Wu et al. 2021); pre-norm is ours.
    "tiny": merge(_LAPTOP, {"model": _TINY, "training": {"rate": 3e-3}}),
    # The most that was learned in minutes: docs/decisions/0013-fast-and-best.md.
    "fast": merge(
        _LAPTOP,
        _TO_THE_END,
        {
            "model": merge(_TINY, {"dropout": 0.2, "rotary": True}),
            "training": {
                "optimizer": "muon",
                "steps": 1850,
                "rate": 8e-3,
                "matrix_rate": 1.0,
                "warmup": 150,
                "checkpoint_every": 40,
            },
        },
    ),
    # The most that a model learned in 40 minutes of one core, from 29,000 pairs.
    "best": merge(
        _LAPTOP,
        _TO_THE_END,
        {
            "model": merge(_TINY, {"d_model": 192, "d_ff": 768, "dropout": 0.2, "rotary": True}),
            "batches": {"tokens": 2048},
            "training": {
                "optimizer": "muon",
                "steps": 5000,
                "rate": 8e-3,
                "matrix_rate": 1.0,
                "weight_decay": 0.1,
                "checkpoint_every": 100,
            },
        },
    ),
}


def build(*tables: Mapping[str, Any], where: str = "settings") -> Recipe:
    """Build a recipe from tables laid over each other; at the bottom lie their preset and the model to start from.

    Raises:
        HeedfulError: an unknown preset or setting, a wrong value, or a model to start from that does not fit.
    """
    table = _laid_over(tables)
    preset = table.get("preset", Recipe.preset)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise HeedfulError(f"{where}: unknown preset '{preset}'; known are {', '.join(PRESETS)}")
    from_table(Recipe, table, where)  # what is wrong in it by itself is said first
    begun = _begun(bundle.locate(table["start_from"]), table, where) if table.get("start_from") else {}
    usual = merge(PRESETS[preset], begun)
    recipe = from_table(Recipe, merge(usual, table, {"preset": preset}), where)
    recipe = _drop_unread(recipe, tables, from_table(Recipe, usual, where), where)
    check_rate(recipe.training, tables, where)
    if recipe.start_from is None:  # else as it was trained
        _check_sharing(recipe, where)
        check_tags(recipe.data.tags)
    if recipe.model.family == "transformer" and recipe.model.positions == "none" and recipe.model.first_position:
        raise HeedfulError(f'{where}: model.positions = "none" has no model.first_position; leave it out')
    if recipe.training.optimizer == "muon" and recipe.model.family != "transformer":
        raise HeedfulError(
            f'{where}: training.optimizer = "muon" is for a Transformer\'s matrices, of which model.family = '
            f'"{recipe.model.family}" has none or few; set training.optimizer = "adam", at a lower rate'
        )
    check_changeable(recipe, where)
    return recipe


def check_changeable(recipe: Recipe, where: str) -> None:
    """Refuse what cannot be, of the settings that may be edited before a resume, too.

    Raises:
        HeedfulError: with the settings and what to change; `where` names the place.
    """
    recipe.search.check()
    if recipe.data.languages:
        check_languages(recipe.data.languages)
    _check_length(recipe, where)
    if recipe.training.patience and not recipe.training.evaluate_every:
        raise HeedfulError(f"{where}: training.patience counts evaluations: set training.evaluate_every above 0")


def _drop_unread(recipe: Recipe, tables: Sequence[Mapping[str, Any]], usual: Recipe, where: str) -> Recipe:
    """Refuse what was asked for and would not be read; another preset, too, is another choice."""
    since = max((number for number, table in enumerate(tables) if "preset" in table), default=0)

    def read(part: str) -> Any:
        layers = [merge(table).get(part, {}) for table in tables]
        settings, ordinary = getattr(recipe, part), getattr(usual, part)
        refuse_unread(settings, layers, ordinary, f"{where}: {part}", since)
        return without_unread(settings, ordinary)

    return replace(recipe, vocabulary=read("vocabulary"), model=read("model"), training=read("training"))


def _check_sharing(recipe: Recipe, where: str) -> None:
    """Refuse one embedding for two vocabularies: number 480 is another word in each, even where both are as large."""
    if recipe.model.share == "all" and not recipe.vocabulary.joint:
        raise HeedfulError(
            f'{where}: model.share = "all" needs one vocabulary for both sides, but vocabulary.joint is false; set '
            f'model.share = "target", or vocabulary.joint = true'
        )


def check_rate(training: TrainingConfig, tables: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuse a rate that was meant for another kind of schedule: equation 3 takes a factor, the others a peak.

    The last of `tables` that has a rate, with those under it, tells which schedule that rate was meant for.

    Raises:
        HeedfulError: with the kind of rate that the schedule takes; `where` names the place.
    """
    rated = [number for number, table in enumerate(tables) if "rate" in table.get("training", {})]
    known = merge(*tables[: rated[-1] + 1]) if rated else {"preset": merge(*tables).get("preset", Recipe.preset)}
    known = merge(PRESETS[known.get("preset", Recipe.preset)], known)
    meant = known.get("training", {}).get("schedule", TrainingConfig.schedule)
    if (training.schedule == "paper") != (meant == "paper"):
        fitting = "a factor, as 1" if training.schedule == "paper" else "the highest, as 0.001"
        raise HeedfulError(
            f'{where}: training.rate {training.rate:g} is for training.schedule = "{meant}"; give training.rate for '
            f'"{training.schedule}" too, which is {fitting}'
        )


def _check_length(recipe: Recipe, where: str) -> None:
    """Refuse sentences longer than the positions that are learned, as training would meet one."""
    longest = recipe.model.longest
    if longest is not None and recipe.data.max_length > longest - 1:  # END has a position too
        raise HeedfulError(
            f"{where}: data.max_length {recipe.data.max_length} is more than model.max_positions "
            f"{recipe.model.max_positions} can hold; set it to {longest - 1}, or more positions"
        )


def _laid_over(tables: Sequence[Mapping[str, Any]]) -> Table:
    """Lay tables over each other; text that a later one names in one form takes the place of that in the other form."""
    merged: Table = {}
    for table in map(merge, tables):
        below, data = merged.get("data"), table.get("data")
        if isinstance(below, dict) and isinstance(data, dict):
            for form, other in _INSTEAD:
                if any(data.get(name) for name in form) and data.keys().isdisjoint(other):
                    for name in other:
                        below.pop(name, None)
        merged = merge(merged, table)
    return merged


def other_state(before: Table, now: Table, *, saved: bool = True) -> list[str]:
    """Return the settings in which two recipes differ that make one's model, or its saved state, none of the other's.

    They are the sizes, which pairs are a batch, and what is kept beside the weights; the rest may change on the way.
    """
    kept = [(part, name) for part in ("vocabulary", "model") for name in now[part] if "dropout" not in name]
    kept += [("data", "tags")]  # which are tokens of the vocabulary
    if saved:
        kept += [("data", "weights"), ("batches", "tokens"), ("batches", "seed")]
        # the best score so far is of this metric; minutes were made steps of when it began
        kept += [("training", name) for name in ("optimizer", "exponential_average", "metric", "minutes")]
    start = [] if before.get("start_from") == now.get("start_from") else ["start_from"]
    return [*start, *(f"{part}.{name}" for part, name in kept if before[part][name] != now[part][name])]


def _begun(folder: Path, table: Table, where: str) -> Table:
    """Return the sizes and the vocabulary of the model in `folder`; settings of `table` must agree with them."""
    manifest = bundle.read_manifest(folder)
    if manifest["format"] == bundle.ENSEMBLE:
        raise HeedfulError(f"{where}: {folder} is an ensemble, which cannot be trained; start from one of its members")
    written = read_toml(folder / "recipe.toml") if (folder / "recipe.toml").is_file() else {}
    begun: Table = {
        # whole: a preset shall not add what was not there yet when the model was trained, such as rotary positions
        "model": to_table(from_table(ModelConfig, manifest["model"], str(folder / "model.toml"))),
        "vocabulary": {**written.get("vocabulary", {}), "dropout": 0.0},
        "search": manifest.get("search", {}),
        "data": {key: manifest[key] for key in ("languages", "capitals") if manifest.get(key)},
    }
    preset = PRESETS[table.get("preset", Recipe.preset)]
    usual = merge(to_table(VocabularyConfig()), preset.get("vocabulary", {}))  # what a recipe has that says nothing
    for part in ("model", "vocabulary"):
        for key, value in table.get(part, {}).items():
            theirs = begun[part].get(key, value)
            if part == "vocabulary" and not written and key != "dropout" and value != usual[key]:
                raise HeedfulError(f"{where}: {part}.{key} is not to be chosen, as {folder}'s is kept; leave it out")
            if value != theirs and "dropout" not in key:
                raise HeedfulError(
                    f"{where}: {part}.{key} is {value}, but {folder} was trained with {theirs}; "
                    f"leave it out, or train without --start-from"
                )
    return begun
