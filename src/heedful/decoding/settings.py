"""How to search: settings, without the search."""

import math
from dataclasses import dataclass, replace

from heedful.config import check_ranges, setting
from heedful.errors import HeedfulError

_DRAWN = {"sample": [True]}
# temperatures: below the one logits divided by it overflow, above the other rounding lets what is forbidden be drawn
COLDEST, HOTTEST = 1e-3, 1000


@dataclass(frozen=True)
class SearchConfig:
    """How to look for the best output; the defaults are the paper's (section 6.1)."""

    beam: int = setting(4, "Hypotheses kept at each step; 1 = greedy", least=1, most=10_000)
    length_penalty: float = setting(
        0.6, "Alpha of Wu et al. 2016: scores are divided by ((5 + length) / 6)^alpha", least=0, most=100
    )
    n_best: int = setting(1, "Outputs to return for each input, at most the beam", least=1)
    patience: float = setting(
        1.0,
        "Stop when so many times the beam have ended (Kasai et al. 2022); 0 = when no other can become the best",
        least=0,
    )
    max_extra: int = setting(
        50, "Longest output, its end counted: the source's length plus this, in tokens", least=-10_000, most=10_000
    )
    min_length: int = setting(0, "Shortest output, its end not counted, in tokens", least=0)
    no_repeat_ngram: int = setting(0, "Forbid an output to repeat any sequence of so many tokens; 0 = allow", least=0)
    sample: bool = setting(False, "Draw outputs at random instead of searching for the best")
    temperature: float = setting(1.0, "Divide logits by this", only=_DRAWN)
    top_k: int = setting(0, "Draw from the k most probable tokens; 0 = from all", least=0, only=_DRAWN)
    top_p: float = setting(1.0, "Draw from the most probable tokens that make up this probability", only=_DRAWN)
    seed: int = setting(1, "Seed of the draws", least=0, most=2**63 - 1, only=_DRAWN)
    reverse_weight: float = setting(
        0.2, "What the score of a model of the other direction counts, where there is one", least=0
    )

    @property
    def width(self) -> int:
        """Hypotheses of a sentence at each step: the beam, or as many independent draws as outputs are wanted."""
        return self.n_best if self.sample else self.beam

    @property
    def found(self) -> int:
        """Outputs that there are when the search ends: those wanted, or more where patience waits for more."""
        if self.sample:
            return self.n_best
        ended = self.patience * self.beam if self.patience else self.beam
        return min(self.beam, max(self.n_best, math.ceil(min(self.beam, ended))))  # patience may be endless

    def with_all_outputs(self) -> "SearchConfig":
        """Return this search, not drawing, with all outputs that it has found by its end: the same one is the best."""
        searching = replace(self, sample=False)
        return replace(searching, n_best=searching.found)

    def check(self) -> None:
        """Refuse settings that cannot be.

        Raises:
            HeedfulError: with the setting and its range.
        """
        check_ranges(self, "search")
        if self.n_best > self.width:
            raise HeedfulError(f"search: n_best {self.n_best} must be between 1 and the beam, {self.beam}")
        if not COLDEST <= self.temperature <= HOTTEST or not 0 < self.top_p <= 1:
            raise HeedfulError(f"search: temperature must be in [{COLDEST}, {HOTTEST}], top_p in (0, 1]")
