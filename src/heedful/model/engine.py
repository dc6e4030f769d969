"""What search asks of a model: steps with a cache, one position at a time, equal to `decode` by test.

The engine of an LSTM or a convolution is the model itself; a Transformer's is made from its weights (inference.py,
compiled.py), and an ensemble's from its members' (ensemble.py): family.py chooses.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


class SearchRules(NamedTuple):
    """What a whole search goes by: of decoding/settings.py, the first and last tokens, and what cannot be."""

    beam: int
    n_best: int
    min_length: int
    begin: int
    end: int
    length_penalty: float
    patience: float
    never: float  # the log-probability of what cannot be


@runtime_checkable
class WholeSearch(Protocol):
    """A beam search in one call: for each sentence its outputs, best first, as tokens and log-probability.

    `state` is that before the first step, `limits` the longest output of each sentence, `forbidden` tokens that never
    stand in one.
    """

    def __call__(
        self, state: Any, limits: Sequence[int], forbidden: Sequence[int], rules: SearchRules
    ) -> list[list[tuple[list[int], float]]]:
        """Search."""
        ...


@runtime_checkable  # for the tests, which check types as they run
class Engine(Protocol):
    """Steps of a model. What `encode`, `start` and `step` return beside logits goes back in as it is.

    A state has `select(rows_N, sentences_B)`, by which search reorders hypotheses and lets finished sentences go.
    """

    @property
    def one_thread(self) -> bool:
        """Whether it computes in the thread that asks, so that several may ask at the same time."""
        ...

    @property
    def whole_search(self) -> WholeSearch | None:
        """A whole beam search in one call, by the rules of decoding/search.py; compiled steps alone have it."""
        ...

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Any:
        """Encode source sentences, padded on the right."""
        ...

    def start(self, encoded: Any) -> Any:
        """Return the state before the first step."""
        ...

    def step(self, token_N: Int[Tensor, " N"], state: Any) -> tuple[Any, Any]:
        """Return what `logits` takes after one more token of each hypothesis, and the state after it."""
        ...

    def logits(self, hidden: Any) -> Float[Tensor, "N V"]:
        """Return unnormalised log-probabilities of the next token."""
        ...
