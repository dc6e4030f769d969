"""What search asks of a model: steps with a cache, one position at a time, equal to `decode` by test.

The engine of an LSTM or a convolution is the model itself; a Transformer's is made from its weights (inference.py,
compiled_inference.py), and an ensemble's from its members' (ensemble.py): family.py chooses.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable  # for the tests, which check types as they run
class Engine(Protocol):
    """Steps of a model. What `encode`, `start` and `step` return beside logits goes back in as it is.

    A state has `select(rows_N, sentences_B)`, by which search reorders hypotheses and lets finished sentences go.
    """

    @property
    def one_thread(self) -> bool:
        """Whether it computes in the thread that asks, so that several may ask at the same time."""
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
