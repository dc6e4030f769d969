"""The steps of compiled.py for a search by torch: its arrays as tensors, which share their memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from heedful.model.compiled import Compiled, Encoded, Remembered, State, multiplies
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.settings import Weights
from heedful.model.transformer import Transformer
from heedful.model.weights import weights_of


def compiled(model: EncoderDecoder, weights: Weights = "float32") -> Compiled | None:
    """Return a model with its weights of this moment, ready to translate with.

    None where it cannot be: it is no Transformer in float32, or not on a processor that multiplies such weights.
    """
    if not isinstance(model, Transformer) or not multiplies(weights):
        return None
    arrays = weights_of(model)
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in arrays.values()):
        return None
    sizes = model.source_embedding.token.num_embeddings, model.output.out_features
    return Compiled(model.config, sizes, {name: tensor.numpy() for name, tensor in arrays.items()}, weights)


class CompiledInference:
    """A compiled Transformer as search asks for it: engine.py."""

    one_thread = True

    def __init__(self, model: Compiled) -> None:
        self._model = model

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Encoded:
        """Encode source sentences, padded on the right."""
        here_BS = torch.arange(source_BS.size(1)) < source_lengths_B[:, None]
        return self._model.encode(source_BS[here_BS].numpy(), source_lengths_B.numpy())

    def start(self, encoded: Encoded) -> "TensorState":
        """Return the state before the first step: the memory is projected here, once per sentence."""
        return TensorState(self._model.remember(encoded))

    def step(self, token_N: Int[Tensor, " N"], state: "TensorState") -> tuple[Float[Tensor, "N D"], "TensorState"]:
        """Return the hidden state after one more token of each hypothesis: equal to `Transformer.decode`'s, by test."""
        return torch.from_numpy(self._model.step(token_N.numpy(), state.of(len(token_N)))), state

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Map hidden states to unnormalised log-probabilities."""
        return torch.from_numpy(self._model.logits(hidden_ND.numpy()))


class TensorState:
    """A compiled model's state, reordered by tensors; how many hypotheses begin together the first step tells."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered
        self._state: State | None = None

    def of(self, rows: int) -> State:
        """Return the state of so many hypotheses."""
        if self._state is None:
            self._state = State(self._remembered, rows)
        return self._state

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "TensorState":  # noqa: ARG002 - no need to know
        """Let hypothesis n go on from where row `rows_N[n]` was."""
        assert self._state is not None, "there is nothing to reorder before the first step"
        self._state.select(rows_N.numpy())
        return self
