"""The Transformer for translating on a processor, with the compiled functions of native/: inference.py's twin.

`B` sentences, `N` rows: hypotheses, those of a sentence side by side; `X` source tokens of all sentences together;
`T` steps so far; `D` d_model; `I` -> `O` any product.
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from heedful.model.engine import SearchRules
from heedful.model.inference import Weights, keys_values_weight, query_weight
from heedful.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Residual, Transformer
from heedful.native import F32, F64, I64, PTR, library

STEPS = 64  # to begin with


class _Kind(NamedTuple):
    number: int  # as search.cpp knows it
    dtype: torch.dtype


KINDS: dict[Weights, _Kind] = {
    "float32": _Kind(0, torch.float32),
    "bfloat16": _Kind(1, torch.bfloat16),
    "int8": _Kind(2, torch.int8),
}


class _Norm(ctypes.Structure):
    _fields_ = (("weight", PTR), ("bias", PTR))


class _Product(ctypes.Structure):
    _fields_ = (*((name, PTR) for name in ("panels", "bias", "scales", "offsets")), ("inputs", I64), ("outputs", I64))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("norms", _Norm * 3),
        *((name, _Product) for name in ("query", "keys_values", "output")),
        *((name, _Product) for name in ("cross_query", "memory", "cross_output")),
        *((name, _Product) for name in ("inner", "outer")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("encoder", ctypes.POINTER(_Layer)),
        ("decoder", ctypes.POINTER(_Layer)),
        ("encoder_norm", _Norm),
        ("decoder_norm", _Norm),
        ("logits", _Product),
        ("source_table", PTR),
        ("target_table", PTR),
        *((name, I64) for name in ("encoder_layers", "decoder_layers", "d_model", "heads", "d_k", "d_v", "d_ff")),
        *((name, I64) for name in ("pre", "rotary", "kind")),
        ("source_scale", F32),
        ("target_scale", F32),
        ("epsilon", F32),
    )


class _Rules(ctypes.Structure):  # what is forbidden, and SearchRules in their order
    _fields_ = (
        ("forbidden", PTR),
        *((name, I64) for name in ("forbidden_count", "beam", "n_best", "min_length", "begin", "end")),
        *((name, F64) for name in ("length_penalty", "patience")),
        ("never", F32),
    )


class Encoded(NamedTuple):
    """Encoder states of all sentences, one after another, [X, D]; sentence b begins at `offset_B[b]`, [B + 1]."""

    states_XD: Tensor
    offset_B: np.ndarray


class State:
    """All that a step needs of the steps before it, and of the memory; nothing that is attended to is ever moved.

    A step's keys and values stay where it wrote them. `came_NT` tells which row each hypothesis was at those steps.
    """

    def __init__(self, memory: Tensor, offset_B: np.ndarray, rows: int) -> None:
        self.memory, self.offset_B = memory, offset_B  # [layers, X, heads x (d_k + d_v)], [B + 1]
        self.past: list[Tensor] = []
        self._address_T: np.ndarray = np.zeros(STEPS, dtype=np.uint64)
        self._rows_T: np.ndarray = np.zeros(STEPS, dtype=np.int64)
        self._came_NT = np.zeros((rows, STEPS), dtype=np.int32)
        self._sentence_N = np.repeat(np.arange(len(offset_B) - 1, dtype=np.int32), rows // (len(offset_B) - 1))
        self._know_rows()

    @property
    def rows(self) -> int:
        """How many hypotheses there are."""
        return len(self._own_N)

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "State":  # noqa: ARG002 - no need to know
        """Let hypothesis n go on from where row `rows_N[n]` was; sentences without hypotheses are simply not asked."""
        rows = rows_N.numpy()
        self._came_NT, self._sentence_N = self._came_NT[rows], self._sentence_N[rows]
        self._know_rows()
        return self

    def write(self, numbers: int) -> tuple[Any, ...]:
        """Make room for the next step, so many numbers a row; return what the kernel wants to know of the past."""
        position, rows = len(self.past), self.rows
        if position == len(self._address_T):
            self._address_T, self._rows_T = np.tile(self._address_T, 2), np.tile(self._rows_T, 2)
            self._came_NT = np.tile(self._came_NT, (1, 2))
            self._know_rows()
        self.past.append(torch.empty(rows * numbers))
        self._address_T[position], self._rows_T[position] = self.past[-1].data_ptr(), rows
        self._came_NT[:, position] = self._own_N
        return self._known

    def _know_rows(self) -> None:
        self._own_N = np.arange(len(self._came_NT), dtype=np.int32)
        arrays = self._address_T, self._rows_T, self._came_NT
        addresses = [array.ctypes.data for array in arrays]
        last = self._sentence_N.ctypes.data, self.offset_B.ctypes.data, self.memory.data_ptr(), int(self.offset_B[-1])
        self._known = (*addresses, self._came_NT.shape[1], *last)


class CompiledInference:
    """A trained Transformer, ready to translate on a processor. Its matrices are those of the moment when it was made.

    It computes in the thread that asks, and several may ask at the same time.
    """

    one_thread = True

    @torch.inference_mode()
    def __init__(self, model: Transformer, weights: Weights = "float32") -> None:
        found = library("search")
        assert found is not None, "ask `can_compile` first"
        self._library, self._kept = found, []  # type: tuple[ctypes.CDLL, list[Any]]
        self._weights, self._panel = weights, found.panel()
        self._embeddings = model.source_embedding, model.target_embedding
        self._rotation = cast(EncoderLayer, model.encoder[0]).self_attention.rotation
        self._positions = 0, 0  # how many of the target's are known, and their address
        config = model.config
        attention = cast(EncoderLayer, model.encoder[0]).self_attention
        d_k, d_v = (each.out_features // config.heads for each in (attention.query, attention.value))
        encoder = [self._layer(cast(EncoderLayer, layer)) for layer in model.encoder]
        decoder = [self._decoder_layer(cast(DecoderLayer, layer)) for layer in model.decoder]
        self._model = _Model(
            encoder=(_Layer * len(encoder))(*encoder),
            decoder=(_Layer * len(decoder))(*decoder),
            encoder_norm=self._norm(model.encoder_norm),
            decoder_norm=self._norm(model.decoder_norm),
            logits=self._product(model.output.weight),
            source_table=self._address(model.source_embedding.token.weight),
            target_table=self._address(model.target_embedding.token.weight),
            encoder_layers=len(encoder),
            decoder_layers=len(decoder),
            d_model=config.d_model,
            heads=config.heads,
            d_k=d_k,
            d_v=d_v,
            d_ff=config.d_ff,
            pre=config.normalization == "pre",
            rotary=config.rotary,
            kind=KINDS[weights].number,
            source_scale=model.source_embedding.scale,
            target_scale=model.target_embedding.scale,
            epsilon=cast(Residual, cast(EncoderLayer, model.encoder[0]).residuals[0]).norm.eps,
        )
        self._self = ctypes.byref(self._model)
        self._numbers = len(decoder) * config.heads * (d_k + d_v)
        self._d_model, self._vocabulary = config.d_model, model.output.out_features

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Encoded:
        """Encode source sentences, padded on the right."""
        position_S = torch.arange(source_BS.size(1), dtype=torch.int32)
        here_BS = position_S < source_lengths_B[:, None]
        token_X, position_X = source_BS[here_BS], position_S.expand_as(source_BS)[here_BS]
        offset_B = np.zeros(len(source_BS) + 1, dtype=np.int32)
        np.cumsum(source_lengths_B.numpy(), out=offset_B[1:])
        states_XD = torch.empty(len(token_X), self._d_model)
        positions = self._position_rows(0, source_BS.size(1))
        enough = self._library.encode(
            self._self,
            token_X.data_ptr(),
            position_X.data_ptr(),
            offset_B.ctypes.data,
            len(source_BS),
            positions.data_ptr(),
            states_XD.data_ptr(),
        )
        _check_memory(enough, f"{len(source_BS)} texts of {len(token_X):,} tokens")
        return Encoded(states_XD, offset_B)

    def start(self, encoded: Encoded) -> State:
        """Return the state before the first step: the memory is projected here, once per sentence."""
        states_XD, offset_B = encoded
        memory = torch.empty(len(states_XD) * self._numbers)
        self._library.remember(self._self, states_XD.data_ptr(), len(states_XD), memory.data_ptr())
        return State(memory, offset_B, len(offset_B) - 1)

    def step(self, token_N: Int[Tensor, " N"], state: State) -> tuple[Float[Tensor, "N D"], State]:
        """Return the hidden state after one more token of each hypothesis: equal to `Transformer.decode`'s, by test."""
        rows, position = token_N.size(0), len(state.past)
        if not position and rows != state.rows:  # several hypotheses of each sentence begin together
            state = State(state.memory, state.offset_B, rows)
        known = state.write(self._numbers)
        hidden_ND = torch.empty(rows, self._d_model)
        addresses = self._target_positions(position + 1), hidden_ND.data_ptr()
        enough = self._library.step(self._self, token_N.data_ptr(), rows, position, *known, *addresses)
        _check_memory(enough, f"{rows:,} hypotheses")
        return hidden_ND, state

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Map hidden states to unnormalised log-probabilities."""
        logits_NV = torch.empty(len(hidden_ND), self._vocabulary)
        self._library.logits(self._self, hidden_ND.data_ptr(), len(hidden_ND), logits_NV.data_ptr())
        return logits_NV

    def whole_search(
        self, state: State, limits: Sequence[int], forbidden: Sequence[int], rules: SearchRules
    ) -> list[list[tuple[list[int], float]]]:
        """Return the outputs of each sentence, best first, as tokens and log-probability: `WholeSearch`.

        It is the search of decoding/search.py, which calls this; equal by test. No limit is more than there are learned
        positions.

        Raises:
            MemoryError: for so many hypotheses of so many sentences.
        """
        longest, sentences = max(limits, default=0), len(limits)
        forbidden_F, limit_B = np.array(forbidden, dtype=np.int64), np.array(limits, dtype=np.int64)
        ids_BWT = np.empty((sentences, rules.beam, longest), dtype=np.int64)
        length_BW = np.empty((sentences, rules.beam), dtype=np.int64)
        total_BW = np.empty((sentences, rules.beam), dtype=np.float32)
        asked = _Rules(forbidden_F.ctypes.data, len(forbidden_F), *rules)
        enough = self._library.search(
            self._self,
            ctypes.byref(asked),
            state.memory.data_ptr(),
            state.offset_B.ctypes.data,
            sentences,
            limit_B.ctypes.data,
            longest,
            self._target_positions(longest),
            ids_BWT.ctypes.data,
            length_BW.ctypes.data,
            total_BW.ctypes.data,
        )
        _check_memory(enough, f"beams of {rules.beam} for {sentences} sentences")
        found = zip(ids_BWT, length_BW.tolist(), total_BW.tolist(), strict=True)
        return [
            [(ids_WT[w, :length].tolist(), totals[w]) for w, length in enumerate(lengths) if length]
            for ids_WT, lengths, totals in found
        ]

    def _target_positions(self, length: int) -> int:
        """Return the address of the first `length` positions, or of more: asked for at every step, made seldom."""
        known, address = self._positions
        if length > known:
            learned, first = self._embeddings[1].learned, self._embeddings[1].first
            most = learned.num_embeddings - first if learned is not None else 2 * length
            positions = self._position_rows(1, max(length, min(2 * length, most)))
            known, address = self._positions = len(positions), self._address(positions)
        return address

    def _position_rows(self, side: int, length: int) -> Tensor:
        """Return what search.cpp wants to know of each of the first `length` positions of the source or target."""
        positions_LD = self._embeddings[side].positions(0, length)
        if self._rotation is None:
            return positions_LD
        return torch.cat([positions_LD, self._rotation.turns(length).flatten(1)], dim=1)

    def _address(self, tensor: Tensor) -> int:
        """Keep a tensor for as long as the model lives, and return where its numbers are."""
        kept = tensor.detach().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _norm(self, norm: nn.Module) -> _Norm:
        if not isinstance(norm, nn.LayerNorm):
            return _Norm(None, None)
        return _Norm(self._address(norm.weight), self._address(norm.bias))

    def _product(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> _Product:
        """Lay weights out in panels, as search.cpp wants them."""
        (outputs, inputs), (number, dtype) = weight_OI.shape, KINDS[self._weights]
        together = self._library.together(number)
        padding = (0, -inputs % together, 0, -outputs % self._panel)
        padded_OI = functional.pad(weight_OI, padding)
        scales = offsets = None
        if dtype == torch.int8:
            scale_O = (padded_OI.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            padded_OI = (padded_OI / scale_O[:, None]).round()
            scales, offsets = self._address(scale_O), self._address((-128 * padded_OI.sum(1)).int())
        panels = padded_OI.to(dtype).view(-1, self._panel, padded_OI.size(1) // together, together).transpose(1, 2)
        bias = None if bias_O is None else self._address(bias_O)
        return _Product(self._address(panels), bias, scales, offsets, inputs, outputs)

    def _norms(self, residuals: Iterable[nn.Module]) -> Any:
        return (_Norm * 3)(*(self._norm(cast(Residual, residual).norm) for residual in residuals))

    def _layer(self, layer: EncoderLayer | DecoderLayer) -> _Layer:
        return _Layer(
            norms=self._norms(layer.residuals),
            query=self._product(query_weight(layer.self_attention)),
            keys_values=self._product(keys_values_weight(layer.self_attention)),
            output=self._product(layer.self_attention.output.weight),
            **self._feed_forward(layer.feed_forward),
        )

    def _decoder_layer(self, layer: DecoderLayer) -> _Layer:
        made = self._layer(layer)
        made.cross_query = self._product(query_weight(layer.cross_attention))
        made.memory = self._product(keys_values_weight(layer.cross_attention))
        made.cross_output = self._product(layer.cross_attention.output.weight)
        return made

    def _feed_forward(self, feed_forward: FeedForward) -> dict[str, _Product]:
        inner, outer = feed_forward.inner, feed_forward.outer
        return {"inner": self._product(inner.weight, inner.bias), "outer": self._product(outer.weight, outer.bias)}


def can_compile(model: Transformer, weights: Weights) -> bool:
    """Return whether `CompiledInference` can serve here."""
    token = model.source_embedding.token.weight
    if token.device.type != "cpu" or token.dtype != torch.float32:
        return False
    found = library("search")
    return found is not None and bool(found.together(KINDS[weights].number))


def _check_memory(enough: int, what: str) -> None:
    if not enough:
        raise MemoryError(f"no room for {what}")
