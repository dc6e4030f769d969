"""The README of a model folder: what the model learned from, how long, and how well."""

from collections.abc import Mapping

from heedful.evaluation.scores import signature_of
from heedful.recipe import Recipe
from heedful.text.corpus import Report


def model_card(
    recipe: Recipe,
    report: Report,
    parameters: int,
    steps: int,
    scores: Mapping[str, float],
    seconds: float,
    device: str,
) -> str:
    """Return the card, in Markdown; `steps` were taken, and `scores` are those on the development data."""
    data = recipe.data
    _, language = data.languages or ("", "")
    files = ", ".join(str(path) for path in (*data.source, *data.target, *data.pairs))
    rows = "\n".join(f"| {metric} | {value:.2f} |" for metric, value in scores.items())
    judged = f"""| development score | value |
|---|---|
{rows}

BLEU and chrF are sacreBLEU's (`{signature_of(language)}`), beam {recipe.search.beam}."""
    return f"""# A heedful model

Made by `heedful train` from {files}.

- pairs: {report.kept:,} for training, {report.development:,} for development
- model: {recipe.model.family}, {parameters:,} parameters
- training: preset {recipe.preset}, {steps:,} steps, seed {recipe.training.seed}, {seconds / 60:.1f} minutes
- on: {device}, {recipe.training.precision}

{judged if scores else "No development text was given or short enough: it was not scored."}

Translate with it, in this folder: `heedful translate . -i input.txt`
"""
