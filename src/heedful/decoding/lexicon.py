"""Which source token each target token translates, learned from pairs alone: IBM model 1  (Brown et al. 1993).

It knows nothing of order and nothing of our models, so that it can judge which of their attentions aligns words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from heedful.text.vocabulary import END

ROUNDS = 6
MOST_LINKS = 10_000_000  # that are looked at, so that long texts do not fill the memory
SURE = 0.5  # a link counts if it is more probable than all others together
Tokens = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Lexicon:
    """p(target token | source token), by the two numbers together."""

    probabilities: dict[tuple[int, int], float]

    def links(self, source: list[int], target: list[int]) -> list[tuple[int, int]]:
        """Return the (source position, target position) that are more probable than not."""
        found = []
        for t, token in enumerate(target):
            each = [0.0 if s == END else self.probabilities.get((s, token), 0.0) for s in source]
            best = int(np.argmax(each))
            if each[best] > SURE * sum(each):
                found.append((best, t))
        return found


def learn(pairs: Iterable[tuple[Tokens, Tokens]]) -> Lexicon:
    """Learn from pairs of tokens, END last or not there: a few rounds of expectation and maximisation.

    Pairs are read until they could have `MOST_LINKS` links.
    """
    sources, targets, slots = [], [], []  # one entry for each source token that a target token might translate
    slot, links = 0, 0
    for source, target in pairs:
        if links > MOST_LINKS:
            break
        s, t = (tokens[tokens != END] for tokens in (np.asarray(source), np.asarray(target)))
        sources.append(np.tile(s, len(t)))
        targets.append(np.repeat(t, len(s)))
        slots.append(np.repeat(np.arange(slot, slot + len(t)), len(s)))
        slot, links = slot + len(t), links + len(s) * len(t)
    together = np.stack([np.concatenate(sources), np.concatenate(targets)])
    known, which = np.unique(together, axis=1, return_inverse=True)
    which, of_slot, source_of = which.ravel(), np.concatenate(slots), known[0]
    probability = np.ones(known.shape[1])
    for _ in range(ROUNDS):
        share = probability[which]
        share /= np.bincount(of_slot, share)[of_slot]
        count = np.bincount(which, share)
        probability = count / np.bincount(source_of, count)[source_of]
    return Lexicon({(int(s), int(t)): float(p) for (s, t), p in zip(known.T, probability, strict=True)})
