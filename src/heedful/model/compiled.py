"""The Transformer for translating on a processor, with the compiled functions of native/: inference.py's twin.

Without torch, which takes longer to import than many a text to translate: weights come as numpy's arrays.

`B` sentences, `N` rows: hypotheses, those of a sentence side by side; `X` source tokens of all sentences together;
`T` steps so far; `L` positions; `D` d_model, `K` d_k; `V` vocabulary; `I` -> `O` any product.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heedful.model.arrays import unfit
from heedful.model.positions import Positions
from heedful.model.settings import ModelConfig, Weights
from heedful.native import F32, F64, I64, PTR, library

STEPS = 64  # to begin with
KINDS: dict[Weights, int] = {"float32": 0, "bfloat16": 1, "int8": 2}  # as search.cpp numbers them
EPSILON = 1e-5  # torch.nn.LayerNorm's


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


class Encoded(NamedTuple):
    """Encoder states of all sentences, one after another, [X, D]; sentence b begins at `offset_B[b]`, [B + 1]."""

    states_XD: np.ndarray
    offset_B: np.ndarray


class Remembered(NamedTuple):
    """The keys and values of all that was read, [layers, X, heads x (d_k + d_v)], and where each sentence begins."""

    memory: np.ndarray
    offset_B: np.ndarray


class State:
    """All that a step needs of the steps before it, and of the memory; nothing that is attended to is ever moved.

    A step's keys and values stay where it wrote them. `came_NT` tells which row each hypothesis was at those steps.
    """

    def __init__(self, remembered: Remembered, rows: int) -> None:
        self.remembered = remembered
        self.past: list[np.ndarray] = []
        sentences = len(remembered.offset_B) - 1
        self._address_T: np.ndarray = np.zeros(STEPS, dtype=np.uint64)
        self._rows_T: np.ndarray = np.zeros(STEPS, dtype=np.int64)
        self._came_NT = np.zeros((rows, STEPS), dtype=np.int32)
        self._sentence_N = np.repeat(np.arange(sentences, dtype=np.int32), rows // sentences)
        self._know_rows()

    @property
    def rows(self) -> int:
        """How many hypotheses there are."""
        return len(self._own_N)

    def select(self, rows_N: np.ndarray) -> None:
        """Let hypothesis n go on from where row `rows_N[n]` was; sentences without hypotheses are simply not asked."""
        self._came_NT, self._sentence_N = self._came_NT[rows_N], self._sentence_N[rows_N]
        self._know_rows()

    def write(self, numbers: int) -> tuple[Any, ...]:
        """Make room for the next step, so many numbers a row; return what the kernel wants to know of the past."""
        position, rows = len(self.past), self.rows
        if position == len(self._address_T):
            self._address_T, self._rows_T = np.tile(self._address_T, 2), np.tile(self._rows_T, 2)
            self._came_NT = np.tile(self._came_NT, (1, 2))
            self._know_rows()
        self.past.append(np.empty(rows * numbers, dtype=np.float32))
        self._address_T[position], self._rows_T[position] = self.past[-1].ctypes.data, rows
        self._came_NT[:, position] = self._own_N
        return self._known

    def _know_rows(self) -> None:
        self._own_N = np.arange(len(self._came_NT), dtype=np.int32)
        memory, offset_B = self.remembered
        addresses = [array.ctypes.data for array in (self._address_T, self._rows_T, self._came_NT)]
        last = self._sentence_N.ctypes.data, offset_B.ctypes.data, memory.ctypes.data, int(offset_B[-1])
        self._known = (*addresses, self._came_NT.shape[1], *last)


class _Given:
    """A model's weights by name, each asked for with its shape."""

    def __init__(self, arrays: Mapping[str, np.ndarray], source: Path | str) -> None:
        self._arrays, self._source = dict(arrays), source
        self._asked = set[str]()

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Return the weights of this name.

        Raises:
            HeedfulError: there are none, or they have another shape.
        """
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            raise unfit(self._source, name)
        self._asked.add(name)
        return array

    def refuse_rest(self) -> None:
        """Refuse weights that nobody has asked for.

        Raises:
            HeedfulError: naming one.
        """
        if rest := sorted(self._arrays.keys() - self._asked):
            raise unfit(self._source, rest[0])


class Compiled:
    """A trained Transformer, ready to translate on a processor. Its matrices are those of the moment when it was made.

    It computes in the thread that asks, and several may ask at the same time.

    Args:
        config: the model's sizes and choices
        sizes: of the source and the target vocabulary
        arrays: its weights in float32, by the names that `Transformer` gives them
        weights: the type to multiply by, which `multiplies` must know
        source: where the weights come from, to be named

    Raises:
        HeedfulError: the weights are not those of such a model, or its sizes do not fit together.
    """

    def __init__(
        self,
        config: ModelConfig,
        sizes: tuple[int, int],
        arrays: Mapping[str, np.ndarray],
        weights: Weights = "float32",
        source: Path | str = "the model",
    ) -> None:
        config.check_transformer(*sizes)
        found = library("search")
        assert found is not None, "ask `multiplies` first"
        self._library, self._kept = found, []  # type: tuple[ctypes.CDLL, list[Any]]
        self.config, self.sizes, self.weights = config, sizes, weights
        self._panel, self._together = found.panel(), found.together(KINDS[weights])
        self._given = _Given(arrays, source)
        d_head = config.d_model // config.heads
        self._d_k, self._d_v = config.d_k or d_head, config.d_v or d_head
        tables = [self._table("source", sizes[0])]
        tables.append(tables[0] if config.share == "all" else self._table("target", sizes[1]))
        untied = config.share == "none"
        logits_VD = self._given.take("output.weight", sizes[1], config.d_model) if untied else tables[1]
        self._source_positions, self._target_positions = (
            Positions(config, self._learned(side)) for side in ("source", "target")
        )
        names = self._layers("encoder", config.encoder_layers), self._layers("decoder", config.decoder_layers)
        # tied layers have one name, and are laid out once
        encoder_layers = {name: self._layer(name) for name in dict.fromkeys(names[0])}
        decoder_layers = {name: self._decoder_layer(name) for name in dict.fromkeys(names[1])}
        encoder, decoder = [encoder_layers[name] for name in names[0]], [decoder_layers[name] for name in names[1]]
        pre = config.normalization == "pre"
        self._model = _Model(
            encoder=(_Layer * len(encoder))(*encoder),
            decoder=(_Layer * len(decoder))(*decoder),
            encoder_norm=self._norm("encoder_norm") if pre else _Norm(None, None),
            decoder_norm=self._norm("decoder_norm") if pre else _Norm(None, None),
            logits=self._product(logits_VD),
            source_table=self._address(tables[0]),
            target_table=self._address(tables[1]),
            encoder_layers=len(encoder),
            decoder_layers=len(decoder),
            d_model=config.d_model,
            heads=config.heads,
            d_k=self._d_k,
            d_v=self._d_v,
            d_ff=config.d_ff,
            pre=pre,
            rotary=config.rotary,
            kind=KINDS[weights],
            source_scale=config.d_model**0.5,
            target_scale=config.d_model**0.5,
            epsilon=EPSILON,
        )
        self._given.refuse_rest()
        del self._given
        self._self = ctypes.byref(self._model)
        self._numbers = len(decoder) * config.heads * (self._d_k + self._d_v)

    def encode(self, token_X: np.ndarray, length_B: np.ndarray) -> Encoded:
        """Encode source sentences, given one after another and by their lengths."""
        offset_B = np.zeros(len(length_B) + 1, dtype=np.int32)
        np.cumsum(length_B, out=offset_B[1:])
        position_X = np.arange(len(token_X), dtype=np.int32) - np.repeat(offset_B[:-1], length_B)
        states_XD = np.empty((len(token_X), self.config.d_model), dtype=np.float32)
        positions = self._source_positions.rows(int(length_B.max(initial=0)))
        enough = self._library.encode(
            self._self,
            token_X.ctypes.data,
            position_X.ctypes.data,
            offset_B.ctypes.data,
            len(length_B),
            positions.ctypes.data,
            states_XD.ctypes.data,
        )
        _check_memory(enough, f"{len(length_B)} texts of {len(token_X):,} tokens")
        return Encoded(states_XD, offset_B)

    def remember(self, encoded: Encoded) -> Remembered:
        """Project what the decoder will attend to, once for each sentence."""
        states_XD, offset_B = encoded
        memory = np.empty(len(states_XD) * self._numbers, dtype=np.float32)
        self._library.remember(self._self, states_XD.ctypes.data, len(states_XD), memory.ctypes.data)
        return Remembered(memory, offset_B)

    def step(self, token_N: np.ndarray, state: State) -> np.ndarray:
        """Return the hidden state after one more token of each hypothesis  [N, D]: equal to `Transformer.decode`'s."""
        rows, position = len(token_N), len(state.past)
        known = state.write(self._numbers)
        hidden_ND = np.empty((rows, self.config.d_model), dtype=np.float32)
        positions = self._target_positions.rows(position + 1)
        addresses = positions.ctypes.data, hidden_ND.ctypes.data
        enough = self._library.step(self._self, token_N.ctypes.data, rows, position, *known, *addresses)
        _check_memory(enough, f"{rows:,} hypotheses")
        return hidden_ND

    def logits(self, hidden_ND: np.ndarray) -> np.ndarray:
        """Map hidden states to unnormalised log-probabilities  [N, V]."""
        logits_NV = np.empty((len(hidden_ND), self.sizes[1]), dtype=np.float32)
        self._library.logits(self._self, hidden_ND.ctypes.data, len(hidden_ND), logits_NV.ctypes.data)
        return logits_NV

    def search(
        self, remembered: Remembered, limits: Sequence[int], forbidden: Sequence[int], rules: SearchRules
    ) -> list[list[tuple[list[int], float]]]:
        """Search by beam, in one call; return each sentence's outputs, best first, as tokens and log-probability.

        It is the search of decoding/search.py; equal by test. `limits` are the longest outputs, none of more tokens
        than there are learned positions; `forbidden` tokens never stand in one.

        Raises:
            MemoryError: for so many hypotheses of so many sentences.
        """
        memory, offset_B = remembered
        longest, sentences = max(limits, default=0), len(limits)
        forbidden_F, limit_B = np.array(forbidden, dtype=np.int64), np.array(limits, dtype=np.int64)
        ids_BWT = np.empty((sentences, rules.beam, longest), dtype=np.int64)
        length_BW = np.empty((sentences, rules.beam), dtype=np.int64)
        total_BW = np.empty((sentences, rules.beam), dtype=np.float32)
        positions = self._target_positions.rows(longest)
        asked = _Rules(forbidden_F.ctypes.data, len(forbidden_F), *rules)
        enough = self._library.search(
            self._self,
            ctypes.byref(asked),
            memory.ctypes.data,
            offset_B.ctypes.data,
            sentences,
            limit_B.ctypes.data,
            longest,
            positions.ctypes.data,
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

    def _table(self, side: str, size: int) -> np.ndarray:
        return self._given.take(f"{side}_embedding.token.weight", size, self.config.d_model)

    def _learned(self, side: str) -> np.ndarray | None:
        if self.config.positions != "learned":
            return None
        return self._given.take(f"{side}_embedding.learned.weight", self.config.max_positions, self.config.d_model)

    def _layers(self, stack: str, layers: int) -> list[str]:
        """Return the name of each layer's weights; tied ones have those of the first."""
        tied = self.config.tied_layers
        return [f"{stack}.{number // tied * tied}" for number in range(layers)]

    def _address(self, array: np.ndarray) -> int:
        """Keep an array for as long as the model lives, and return where its numbers are."""
        kept = np.ascontiguousarray(array)
        self._kept.append(kept)
        return kept.ctypes.data

    def _norm(self, name: str) -> _Norm:
        return _Norm(
            *(self._address(self._given.take(f"{name}.{part}", self.config.d_model)) for part in ("weight", "bias"))
        )

    def _product(self, weight_OI: np.ndarray, bias_O: np.ndarray | None = None) -> _Product:
        """Lay weights out in panels, as search.cpp wants them."""
        (outputs, inputs), together = weight_OI.shape, self._together
        padded_OI = np.pad(weight_OI, ((0, -outputs % self._panel), (0, -inputs % together)))
        scales = offsets = None
        if self.weights == "int8":
            scale_O = np.maximum(np.abs(padded_OI).max(1) / 127, np.finfo(np.float32).tiny)
            padded_OI = np.round(padded_OI / scale_O[:, None])
            with np.errstate(invalid="ignore"):  # what is no number is found by whoever searches with it
                offset_O = (-128 * padded_OI.sum(1)).astype(np.int32)
            scales, offsets = self._address(scale_O), self._address(offset_O)
        panels = _narrowed(padded_OI, self.weights).reshape(-1, self._panel, padded_OI.shape[1] // together, together)
        bias = None if bias_O is None else self._address(bias_O)
        return _Product(self._address(panels.swapaxes(1, 2)), bias, scales, offsets, inputs, outputs)

    def _query(self, name: str) -> _Product:
        """Return W^Q times 1/sqrt(d_k), so that scores need no scaling."""
        weight_OI = self._given.take(f"{name}.query.weight", self.config.heads * self._d_k, self.config.d_model)
        return self._product(weight_OI * self._d_k**-0.5)

    def _keys_values(self, name: str) -> _Product:
        """Return W^K and W^V in one, head by head: its key, then its value."""
        heads, d_model = self.config.heads, self.config.d_model
        halves = [
            self._given.take(f"{name}.{part}.weight", heads * width, d_model).reshape(heads, width, d_model)
            for part, width in (("key", self._d_k), ("value", self._d_v))
        ]
        return self._product(np.concatenate(halves, axis=1).reshape(-1, d_model))

    def _output(self, name: str) -> _Product:
        return self._product(
            self._given.take(f"{name}.output.weight", self.config.d_model, self.config.heads * self._d_v)
        )

    def _layer(self, name: str, residuals: int = 2) -> _Layer:
        d_model, d_ff = self.config.d_model, self.config.d_ff
        inner, outer = f"{name}.feed_forward.inner", f"{name}.feed_forward.outer"
        return _Layer(
            norms=(_Norm * 3)(*(self._norm(f"{name}.residuals.{number}.norm") for number in range(residuals))),
            query=self._query(f"{name}.self_attention"),
            keys_values=self._keys_values(f"{name}.self_attention"),
            output=self._output(f"{name}.self_attention"),
            inner=self._product(
                self._given.take(f"{inner}.weight", d_ff, d_model), self._given.take(f"{inner}.bias", d_ff)
            ),
            outer=self._product(
                self._given.take(f"{outer}.weight", d_model, d_ff), self._given.take(f"{outer}.bias", d_model)
            ),
        )

    def _decoder_layer(self, name: str) -> _Layer:
        made = self._layer(name, residuals=3)
        made.cross_query = self._query(f"{name}.cross_attention")
        made.memory = self._keys_values(f"{name}.cross_attention")
        made.cross_output = self._output(f"{name}.cross_attention")
        return made


def _narrowed(weight_OI: np.ndarray, weights: Weights) -> np.ndarray:
    """Return numbers in the type to multiply by; bfloat16, which numpy does not know, by its bits."""
    if weights == "int8":
        with np.errstate(invalid="ignore"):
            return weight_OI.astype(np.int8)
    if weights == "float32":
        return weight_OI
    bits_OI = np.ascontiguousarray(weight_OI).view(np.uint32)
    half_OI = 0x7FFF + ((bits_OI >> 16) & 1)  # to the nearest, ties to even
    return ((bits_OI + half_OI) >> 16).astype(np.uint16)


def multiplies(weights: Weights) -> bool:
    """Return whether there are compiled functions here, and among them products with such weights."""
    found = library("search")
    return found is not None and bool(found.together(KINDS[weights]))


def _check_memory(enough: int, what: str) -> None:
    if not enough:
        raise MemoryError(f"no room for {what}")
