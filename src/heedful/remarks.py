"""What `train` remarks on: text, settings and outputs that promise no good."""

import math
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from heedful import native
from heedful.data.tokens import TokenStore
from heedful.model.linear import has_native_bfloat16
from heedful.recipe import Recipe, build
from heedful.text.corpus import Report
from heedful.text.vocabulary import Vocabulary

FEW_PAIRS = 100_000  # for the preset small
BYTES_BEARABLE = 0.1  # of the tokens of a text that a model begins to learn; a text in its languages has next to none


def remarks(
    recipe: Recipe, report: Report, vocabulary: Vocabulary, store: TokenStore, device: torch.device, too_long: int
) -> Iterator[str]:
    """Yield what the user should know before training begins; `too_long` development pairs were left out."""
    training, start = recipe.training, recipe.start_from
    tokens, size = int(store.target_lengths_N.sum()), vocabulary.sizes[1]
    if start is None and recipe.vocabulary.kind in ("bpe", "unigram") and tokens < 20 * size:
        fitting = max(tokens // 60, math.ceil(vocabulary.least_size / 100) * 100)
        advice = f"try --vocabulary.size {fitting}" if fitting < size else "more text helps"
        yield (
            f"a vocabulary of {size:,}, but the target text is only {tokens:,} tokens long: most is too rare "
            f"to learn; {advice}"
        )
    if start and (share := _share_in_bytes(vocabulary, store)) > BYTES_BEARABLE:
        yield (
            f"{100 * share:.0f} % of this text is spelt in bytes, lacking in the vocabulary of {start}: lines are long "
            f"and little that it knows helps; leave --start-from out"
        )
    if recipe.model.family == "transformer" and recipe.model.positions == "none" and not recipe.model.rotary:
        yield "the encoder is told no positions, so that the order of words is nothing to it: set model.rotary = true"
    if start and (spelt := vocabulary.lacking(recipe.data.tags)):
        yield (
            f"the vocabulary of {start} has no tokens for {', '.join(spelt)}, and spells them in pieces: write tags "
            f"that it was trained with, or leave --start-from out"
        )
    if start is None and report.kept < FEW_PAIRS and recipe.model == build().model:
        yield (
            f"{report.kept:,} pairs are few for the preset small: --preset fast learns from them in minutes, "
            f"--preset best in an hour; or begin with a model that knows the languages (--start-from)"
        )
    known = device.type == "cuda" or sys.platform == "linux"  # elsewhere a processor does not say
    if training.precision == "bfloat16" and known and not has_native_bfloat16(device):
        yield f"{device.type} here has no fast bfloat16: leave training.precision out, float32 is faster"
    if (why := native.lacking("training") or native.lacking("search")) and device.type == "cpu":
        yield f"training without compiled parts takes longer: {why}"
    if too_long:
        most = recipe.data.max_length
        yield f"{too_long:,} development pairs have more than {most} tokens (data.max_length); left out"
    if training.patience and not report.development:
        yield "there are no development pairs, so training.patience has nothing to wait for: all steps are done"
    if report.leaked > report.kept // 100:
        yield (
            f"{report.leaked:,} training pairs share a sentence with the development data: its scores will "
            f"be too good; remove them, or leave development out to have disjoint pairs held out"
        )


def collapse(outputs: list[str]) -> Iterator[str]:
    """Warn when a model says the same whatever it is given: the commonest failure that a falling loss hides."""
    text, count = Counter(outputs).most_common(1)[0]
    if len(outputs) >= 10 and count > len(outputs) / 2:
        yield (
            f"{count} of {len(outputs)} development outputs are the same ({text[:40]!r}): the model ignores its input. "
            f"If this lasts: lower training.rate, train longer, or check that line n of both sides belong together"
        )


def _share_in_bytes(vocabulary: Vocabulary, store: TokenStore) -> float:
    """Return the larger share of tokens that spell bytes, of both sides, in a sample of the training pairs."""
    rows = np.linspace(0, len(store) - 1, min(len(store), 1000)).astype(np.int64)
    source, target = (store.take(side, rows)[0].tolist() for side in ("source", "target"))
    return max(vocabulary.share_in_bytes(source, "source"), vocabulary.share_in_bytes(target, "target"))
