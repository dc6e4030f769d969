"""The Transformer for translating alone: transformer.py's function in fewer, larger operations, one position a step.

Arithmetic is not what a step waits for, but the number of operations and the bytes that they move; so
- queries, keys and values of a layer are one product, and W^Q carries 1/sqrt(d_k);
- rows are [N, D], and heads are split so that both products of attention are plain batched ones;
- a sentence's memory is projected once, and stands there once for all its hypotheses;
- the pasts of a sentence's hypotheses share one room, and each attends to the whole room through a mask that hides
  what is not its own: when search reorders hypotheses, masks move, and keys and values stay where they are;
- what is attended to has a multiple of 16 places: torch's softmax of 15 numbers takes ten times as long as one of 16.
Tests hold it against `Transformer.decode`. On a processor with a C++ compiler, compiled.py takes its place.

`B` sentences, `W` hypotheses of each, `N` = B x W rows; `S` source length, `L` positions that attend, `R` places of the
past, `M` places attended to; `D` d_model, `H` heads, `G` = B x H, `K` d_k, `C` d_k + d_v: a head's key and value
side by side; `V` vocabulary; `I` -> `O` any product.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from heedful.model.settings import Weights
from heedful.model.transformer import DecoderLayer, EncoderLayer, FeedForward, MultiHeadAttention, Residual, Transformer

ALIGNED = 16  # numbers in the widest registers
ROOM = 64  # places for the past to begin with


class Product:
    """A product with a matrix of weights, in float32 or bfloat16; what comes and goes keeps its own type."""

    def __init__(self, weight_OI: Float[Tensor, "O I"], weights: Weights) -> None:
        weight_IO = weight_OI.T.contiguous()
        self.weight_IO = weight_IO.bfloat16() if weights == "bfloat16" else weight_IO

    def __call__(self, x_NI: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return x W, or `onto` + x W."""
        if self.weight_IO.dtype != x_NI.dtype:
            result_NO = torch.mm(x_NI.to(self.weight_IO.dtype), self.weight_IO).to(x_NI.dtype)
            return result_NO if onto is None else result_NO.add_(onto)
        return torch.mm(x_NI, self.weight_IO) if onto is None else torch.addmm(onto, x_NI, self.weight_IO)


class Encoded(NamedTuple):
    """Encoder states by rows, [B x S, D], and what hides padding from scores, [B x H, 1, M]."""

    states_ND: Tensor
    mask_G1M: Tensor
    sentences: int


@dataclass
class State:
    """All that a step needs of the steps before it, and of the memory. Steps and selections change it.

    `past` holds for each layer keys and values [B x H, R, C]. The first `taken` places of each sentence are in use; in
    `own_NR` stands 0 for a place that hypothesis n came by, and the least number for all others.
    """

    sentences: int
    memory: list[Tensor]
    memory_mask_G1M: Tensor
    past: list[Tensor]
    own_NR: Tensor
    position: int = 0
    taken: int = 0

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "State":
        """Let hypothesis n go on from where row `rows_N[n]`, of the same sentence, was; keep only some sentences.

        What is attended to does not move for it, but for sentences that change their number.
        """
        self.own_NR = self.own_NR.index_select(0, rows_N)
        if sentences_B is not None:
            moved_B = (sentences_B != torch.arange(len(sentences_B), device=sentences_B.device)).nonzero()[:, 0]
            keep = partial(_keep_sentences, sentences_B=sentences_B, moved_B=moved_B, before=self.sentences)
            self.past, self.memory = list(map(keep, self.past)), list(map(keep, self.memory))
            self.memory_mask_G1M = keep(self.memory_mask_G1M)
            self.sentences = len(sentences_B)
        return self

    def take_places(self, width: int) -> slice:
        """Take a place for the new position of each of `width` hypotheses of each sentence."""
        hidden = torch.finfo(self.own_NR.dtype).min
        if self.position == 0:
            self.own_NR = self.own_NR.new_full((self.sentences * width, ROOM), hidden)
            self.past = [memory.new_zeros(len(memory), ROOM, memory.size(2)) for memory in self.memory]
        if width > 1 and self.taken >= ROOM // 2:
            self._forget_the_lost(width)
        if self.taken + width > self.own_NR.size(1):
            more = -(-max(width, self.own_NR.size(1)) // ALIGNED) * ALIGNED
            self.own_NR = functional.pad(self.own_NR, (0, more), value=hidden)
            self.past = [functional.pad(past, (0, 0, 0, more)) for past in self.past]
        places = slice(self.taken, self.taken + width)
        itself_WW = torch.eye(width, dtype=torch.bool, device=self.own_NR.device)
        self.own_NR.view(self.sentences, width, -1)[:, :, places].masked_fill_(itself_WW, 0.0)
        self.taken += width
        return places

    def _forget_the_lost(self, width: int) -> None:
        """Move together the places that some hypothesis came by, once others are many: nobody will ask for those."""
        own_BWR = self.own_NR.view(self.sentences, width, -1)
        used_BR = (own_BWR == 0).any(1)
        most = int(used_BR.sum(1).max())
        if self.taken - most < ROOM // 4:
            return
        place_BM = used_BR.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        own_BWM = own_BWR.gather(2, place_BM[:, None].expand(-1, width, -1))
        own_BWR.fill_(torch.finfo(own_BWR.dtype).min)[:, :, :most] = own_BWM
        for past_GRC in self.past:
            heads = len(past_GRC) // self.sentences
            place_GM1 = place_BM[:, None, :, None].expand(-1, heads, -1, past_GRC.size(2)).flatten(0, 1)
            past_GRC[:, :most] = past_GRC.gather(1, place_GM1)
        self.taken = most


class Inference:
    """A trained Transformer, ready to translate; a model whose weights change afterwards needs a new one.

    `weights` "bfloat16" holds all matrices in bfloat16: faster where the processor multiplies it, a little less exact.
    """

    one_thread = False

    @torch.inference_mode()
    def __init__(self, model: Transformer, weights: Weights = "float32") -> None:
        self.source_embedding, self.target_embedding = model.source_embedding, model.target_embedding
        # tied layers are one, as they are in the model
        encoder = {layer: _EncoderLayer(cast(EncoderLayer, layer), weights) for layer in dict.fromkeys(model.encoder)}
        decoder = {layer: _DecoderLayer(cast(DecoderLayer, layer), weights) for layer in dict.fromkeys(model.decoder)}
        self.encoder = [encoder[layer] for layer in model.encoder]
        self.decoder = [decoder[layer] for layer in model.decoder]
        self.encoder_norm, self.decoder_norm = _Norm(model.encoder_norm), _Norm(model.decoder_norm)
        self.output = Product(model.output.weight, weights)
        self.heads = model.config.heads

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Encoded:
        """Encode source sentences, padded on the right."""
        sentences, length = source_BS.shape
        x_ND = self.source_embedding(source_BS).flatten(0, 1)
        absent_BM = torch.arange(_aligned(length), device=source_BS.device) >= source_lengths_B[:, None]
        mask_BM = x_ND.new_zeros(absent_BM.shape).masked_fill_(absent_BM, torch.finfo(x_ND.dtype).min)
        mask_G1M = mask_BM.repeat_interleave(self.heads, 0)[:, None]
        for layer in self.encoder:
            x_ND = layer(x_ND, mask_G1M, sentences)
        return Encoded(self.encoder_norm(x_ND), mask_G1M, sentences)

    def start(self, encoded: Encoded) -> State:
        """Return the state before the first step: the memory is projected here, once per sentence."""
        states_ND, mask_G1M, sentences = encoded
        memory = [layer.cross_attention.keys_values(states_ND, sentences) for layer in self.decoder]
        return State(sentences, memory, mask_G1M.clone(), [], states_ND)  # a state changes its mask: see `select`

    def step(self, token_N: Int[Tensor, " N"], state: State) -> tuple[Float[Tensor, "N D"], State]:
        """Return the hidden state after one more token of each hypothesis: equal to `Transformer.decode`'s, by test.

        Hypotheses of a sentence are neighbours: row n belongs to sentence n // W.
        """
        width = len(token_N) // state.sentences
        places = state.take_places(width)
        x_ND = self.target_embedding(token_N[:, None], state.position)[:, 0]
        own_B1WM = state.own_NR[:, : _aligned(state.taken)].view(state.sentences, 1, width, -1)
        own_GWM = own_B1WM.expand(-1, self.heads, -1, -1).flatten(0, 1)
        for layer, past_GRC, memory_GMC in zip(self.decoder, state.past, state.memory, strict=True):
            x_ND = layer(x_ND, state.position, past_GRC, places, own_GWM, memory_GMC, state.memory_mask_G1M)
        state.position += 1
        return self.decoder_norm(x_ND), state

    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Map hidden states to unnormalised log-probabilities."""
        return self.output(hidden_ND, None)


class _EncoderLayer:
    def __init__(self, layer: EncoderLayer, weights: Weights) -> None:
        self.connect = _Residuals(layer.residuals)
        self.self_attention = _SelfAttention(layer.self_attention, weights)
        self.feed_forward = _FeedForward(layer.feed_forward, weights)

    def __call__(self, x_ND: Tensor, mask_G1M: Tensor, sentences: int) -> Tensor:
        def to_itself(x_ND: Tensor, onto_ND: Tensor) -> Tensor:
            query_GSK, keys_values_BHSC = self.self_attention.project(x_ND, sentences)
            keys_values_GMC = _with_aligned_length(keys_values_BHSC)
            return self.self_attention.attend(query_GSK, keys_values_GMC, mask_G1M, onto_ND)

        return self.connect(1, self.connect(0, x_ND, to_itself), self.feed_forward)


class _DecoderLayer:
    def __init__(self, layer: DecoderLayer, weights: Weights) -> None:
        self.connect = _Residuals(layer.residuals)
        self.self_attention = _SelfAttention(layer.self_attention, weights)
        self.cross_attention = _CrossAttention(layer.cross_attention, weights)
        self.feed_forward = _FeedForward(layer.feed_forward, weights)

    def __call__(
        self,
        x_ND: Tensor,
        position: int,
        past_GRC: Tensor,
        places: slice,
        own_GWM: Tensor,
        memory_GMC: Tensor,
        memory_mask_G1M: Tensor,
    ) -> Tensor:
        def to_itself(x_ND: Tensor, onto_ND: Tensor) -> Tensor:
            sentences = len(past_GRC) // self.self_attention.heads
            query_GWK, keys_values_BHWC = self.self_attention.project(x_ND, sentences, position)
            past_GRC.view(*keys_values_BHWC.shape[:2], *past_GRC.shape[1:])[:, :, places] = keys_values_BHWC
            return self.self_attention.attend(query_GWK, past_GRC[:, : own_GWM.size(2)], own_GWM, onto_ND)

        def to_memory(x_ND: Tensor, onto_ND: Tensor) -> Tensor:
            query_GWK = self.cross_attention.queries(x_ND, len(memory_GMC) // self.cross_attention.heads)
            return self.cross_attention.attend(query_GWK, memory_GMC, memory_mask_G1M, onto_ND)

        return self.connect(2, self.connect(1, self.connect(0, x_ND, to_itself), to_memory), self.feed_forward)


class _Residuals:
    """The residual connections of a layer: its norms, and whether they stand before or after the sublayers."""

    def __init__(self, residuals: Iterable[nn.Module]) -> None:
        given = [cast(Residual, residual) for residual in residuals]
        self.pre = given[0].pre
        self.norms = [_Norm(residual.norm) for residual in given]

    def __call__(self, number: int, x_ND: Tensor, sublayer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply `sublayer` (its input, what to add its output to) within residual connection `number`."""
        norm = self.norms[number]
        return sublayer(norm(x_ND), x_ND) if self.pre else norm(sublayer(x_ND, x_ND))


class _Norm:
    """A layer norm, or the identity that stands in its place; without what a call of a module costs."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm if isinstance(norm, nn.LayerNorm) else None

    def __call__(self, x_ND: Tensor) -> Tensor:
        norm = self.norm
        return x_ND if norm is None else torch.layer_norm(x_ND, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class _Attention:
    """Multi-head attention to keys and values that lie ready, [B x H, M, C]."""

    def __init__(self, attention: MultiHeadAttention, weights: Weights) -> None:
        self.heads = attention.heads
        self.d_k = attention.query.out_features // self.heads
        self.output = Product(attention.output.weight, weights)

    def attend(self, query_GLK: Tensor, keys_values_GMC: Tensor, mask_GLM: Tensor, onto_ND: Tensor) -> Tensor:
        """Return `onto` + the output; the mask is added to the scores."""
        scores_GLM = torch.baddbmm(mask_GLM, query_GLK, keys_values_GMC[:, :, : self.d_k].mT)
        heads_GLV = torch.bmm(scores_GLM.softmax(-1), keys_values_GMC[:, :, self.d_k :])
        heads_BLHV = heads_GLV.view(-1, self.heads, *heads_GLV.shape[1:]).transpose(1, 2)
        return self.output(heads_BLHV.reshape(len(onto_ND), -1), onto_ND)

    def split(self, x_NO: Tensor, sentences: int) -> Tensor:
        """Return rows as [B, H, L, O / H]."""
        return x_NO.view(sentences, -1, self.heads, x_NO.size(1) // self.heads).transpose(1, 2)


class _SelfAttention(_Attention):
    def __init__(self, attention: MultiHeadAttention, weights: Weights) -> None:
        super().__init__(attention, weights)
        self.all_three = Product(torch.cat([_query_weight(attention), _keys_values_weight(attention)]), weights)
        self.rotation = attention.rotation

    def project(self, x_ND: Tensor, sentences: int, position: int | None = None) -> tuple[Tensor, Tensor]:
        """Return queries [B x H, L, K], and keys and values [B, H, L, C]; all stand at `position`, if it is given."""
        projected_NO, queries = self.all_three(x_ND, None), self.heads * self.d_k
        query_NO, keys_values_NO = projected_NO[:, :queries], projected_NO[:, queries:]
        if self.rotation is not None:
            lines = sentences if position is None else len(x_ND)
            for each_NO in (query_NO, keys_values_NO):
                turned_BHLK = self.split(each_NO, lines)[..., : self.d_k]
                turned_BHLK.copy_(self.rotation(turned_BHLK, position or 0))
        return self.split(query_NO, sentences).flatten(0, 1), self.split(keys_values_NO, sentences)


class _CrossAttention(_Attention):
    def __init__(self, attention: MultiHeadAttention, weights: Weights) -> None:
        super().__init__(attention, weights)
        self.query = Product(_query_weight(attention), weights)
        self.memory = Product(_keys_values_weight(attention), weights)

    def queries(self, x_ND: Tensor, sentences: int) -> Tensor:
        """Return queries [B x H, L, K]."""
        return self.split(self.query(x_ND, None), sentences).flatten(0, 1)

    def keys_values(self, states_ND: Tensor, sentences: int) -> Tensor:
        """Return keys and values of the memory, [B x H, M, C]."""
        return _with_aligned_length(self.split(self.memory(states_ND, None), sentences))


class _FeedForward:
    """max(0, x W_1 + b_1) W_2 + b_2."""

    def __init__(self, feed_forward: FeedForward, weights: Weights) -> None:
        inner, outer = feed_forward.inner, feed_forward.outer
        self.inner, self.inner_bias = Product(inner.weight, weights), inner.bias
        self.outer, self.outer_bias = Product(outer.weight, weights), outer.bias

    def __call__(self, x_ND: Tensor, onto_ND: Tensor) -> Tensor:
        return self.outer(self.inner(x_ND, self.inner_bias).relu_(), onto_ND + self.outer_bias)


def _query_weight(attention: MultiHeadAttention) -> Tensor:
    """Return W^Q times 1/sqrt(d_k), so that scores need no scaling."""
    weight: Tensor = attention.query.weight * (attention.query.out_features // attention.heads) ** -0.5
    return weight


def _keys_values_weight(attention: MultiHeadAttention) -> Tensor:
    """Return W^K and W^V in one, head by head: its key, then its value."""
    halves = [each.weight.reshape(attention.heads, -1, each.in_features) for each in (attention.key, attention.value)]
    return torch.cat(halves, dim=1).flatten(0, 1)


def _aligned(length: int) -> int:
    return -(-length // ALIGNED) * ALIGNED


def _with_aligned_length(x_BHSC: Tensor) -> Tensor:
    """Return [B x H, M, C], with zeros at the places that were not there."""
    length = x_BHSC.size(2)
    return functional.pad(x_BHSC, (0, 0, 0, _aligned(length) - length)).flatten(0, 1)


def _keep_sentences(x_GMC: Tensor, sentences_B: Tensor, moved_B: Tensor, before: int) -> Tensor:
    x_BHMC = x_GMC.view(before, -1, *x_GMC.shape[1:])
    kept_BHMC = x_BHMC[: len(sentences_B)]
    if len(moved_B):
        kept_BHMC[moved_B] = x_BHMC[sentences_B[moved_B]]
    return kept_BHMC.flatten(0, 1)
