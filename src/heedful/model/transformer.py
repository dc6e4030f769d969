"""The Transformer: section 3 of "Attention Is All You Need" (Vaswani et al. 2017) in the paper's names.

Attention (3.2) comes first, the stacks (3.1) last.

Shape suffixes: `B` batch, `S` source length, `T` target length, `L`/`M` query/key length inside attention,
`D` d_model, `H` heads, `K` d_k (or d_v), `F` d_ff, `V` vocabulary. Masks are boolean, True = may attend.
This file is for training, scoring and reading; inference.py computes the same for search, one position at a time.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from heedful.errors import HeedfulError
from heedful.model.dropout import Dropout
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.fused_attention import fused_attention
from heedful.model.kernels import can_compute
from heedful.model.layer_norm import LayerNorm
from heedful.model.linear import Linear
from heedful.model.rotation import Rotation
from heedful.model.settings import ModelConfig
from heedful.model.token_embedding import TokenEmbedding

# Above this many scores per head, scaled_dot_product_attention wins on a CPU: it never holds the whole matrix.
SHORT = 256 * 256


# 3.2 Attention ----------------------------------------------------------------------------------------------------


def attention(
    query_BHLK: Float[Tensor, "B H L K"],
    key_BHMK: Float[Tensor, "#B H M K"],
    value_BHMK: Float[Tensor, "#B H M Kv"],
    allowed_B1LM: Bool[Tensor, "*mask"] | None,
    dropout: Callable[[Tensor], Tensor] = lambda weights: weights,
) -> tuple[Float[Tensor, "B H L Kv"], Float[Tensor, "B H L M"]]:
    """Scaled dot-product attention, softmax(Q K^T / sqrt(d_k)) V  (section 3.2.1, equation 1).

    Returns the weighted values and the weights. A row that may attend to nothing gets uniform weights, never NaN.
    """
    scores_BHLM = (query_BHLK * query_BHLK.size(-1) ** -0.5) @ key_BHMK.mT
    if allowed_B1LM is not None:
        # Added, not filled in: that is one pass over the scores, and they are far larger than the mask.
        hidden_B1LM = torch.zeros_like(allowed_B1LM, dtype=scores_BHLM.dtype)
        scores_BHLM += hidden_B1LM.masked_fill_(~allowed_B1LM, torch.finfo(scores_BHLM.dtype).min)
    weights_BHLM = scores_BHLM.softmax(dim=-1)
    return dropout(weights_BHLM) @ value_BHMK, weights_BHLM


class KeysValues(NamedTuple):
    """Keys and values, projected and split into heads, keys not yet turned: what a query attends to."""

    key_BHMK: Tensor
    value_BHMK: Tensor


class MultiHeadAttention(nn.Module):
    """Concat(head_1, ..., head_h) W^O, each head attending in its own projection  (section 3.2.2).

    `observer`, if set, is called with the weights [B, H, L, M] of every use: see model/recorder.py.
    """

    def __init__(self, d_model: int, heads: int, d_k: int, d_v: int, dropout: float, rotary: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(d_model, heads * d_k, bias=False)
        self.key = Linear(d_model, heads * d_k, bias=False)
        self.value = Linear(d_model, heads * d_v, bias=False)
        self.output = Linear(heads * d_v, d_model, bias=False)
        self.rotation = Rotation(d_k) if rotary else None
        self.dropout = Dropout(dropout)
        self.observer: Callable[[Tensor], None] | None = None

    def keys_values(self, x_BMD: Float[Tensor, "B M D"]) -> KeysValues:
        """Project what will be attended to, and split it into heads."""
        return KeysValues(self._split(self.key(x_BMD)), self._split(self.value(x_BMD)))

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], attended: KeysValues, allowed_B1LM: Bool[Tensor, "*mask"] | None
    ) -> Float[Tensor, "B L D"]:
        """Attend from each position of `x_BLD` to `attended`."""
        query_BHLK = self._split(self.query(x_BLD))
        if self._short(query_BHLK, attended) and not self._needs_weights() and can_compute(query_BHLK):
            length = max(query_BHLK.size(2), attended.key_BHMK.size(2))
            turns_L2K = None if self.rotation is None else self.rotation.turns(length)
            heads_BHLK = fused_attention(query_BHLK, *attended, allowed_B1LM, turns_L2K)
        else:
            heads_BHLK = self._attend(query_BHLK, attended, allowed_B1LM)
        return cast(Tensor, self.output(heads_BHLK.transpose(1, 2).flatten(2)))

    def _attend(self, query_BHLK: Tensor, attended: KeysValues, allowed_B1LM: Tensor | None) -> Tensor:
        key_BHMK, value_BHMK = attended
        if self.rotation is not None:
            query_BHLK, key_BHMK = self.rotation(query_BHLK), self.rotation(key_BHMK)
        if self._short(query_BHLK, attended) or self.observer:
            heads_BHLK, weights_BHLM = attention(query_BHLK, key_BHMK, value_BHMK, allowed_B1LM, self.dropout)
            if self.observer:
                self.observer(weights_BHLM.detach())
            return heads_BHLK
        p = self.dropout.p if self.training else 0.0
        return functional.scaled_dot_product_attention(query_BHLK, key_BHMK, value_BHMK, allowed_B1LM, p)

    def _split(self, x_BLO: Tensor) -> Tensor:
        return x_BLO.view(*x_BLO.shape[:2], self.heads, -1).transpose(1, 2)

    def _short(self, query_BHLK: Tensor, attended: KeysValues) -> bool:
        # On a CPU torch's own kernel pays for long sequences only; a test ties all ways of attending. On mps it gave
        # short queries the first sentence's mask until torch 2.12 (pytorch pull request 184180).
        return query_BHLK.device.type in ("cpu", "mps") and query_BHLK.size(2) * attended.key_BHMK.size(2) <= SHORT

    def _needs_weights(self) -> bool:
        return self.observer is not None or (self.training and self.dropout.p > 0)


# 3.3 Position-wise feed-forward networks --------------------------------------------------------------------------


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2  (section 3.3, equation 2)."""

    def __init__(self, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.inner = Linear(d_model, d_ff)
        self.outer = Linear(d_ff, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Apply the same two linear maps to each position."""
        return cast(Tensor, self.outer(self.dropout(functional.relu(self.inner(x_BLD)))))


# 3.4 Embeddings, 3.5 positional encoding --------------------------------------------------------------------------


def sinusoids(length: int, d_model: int, first: int = 0) -> Float[Tensor, "L D"]:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos of the same  (section 3.5)."""
    position_L1 = torch.arange(first, first + length, dtype=torch.float64)[:, None]
    angle_LD = position_L1 / 10000 ** (torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.stack([angle_LD.sin(), angle_LD.cos()], dim=-1).flatten(1)[:, :d_model].float()


class Embedding(nn.Module):
    """Embed tokens, scale by sqrt(d_model) (section 3.4), add positions (3.5), drop out (5.4)."""

    def __init__(self, token: nn.Embedding, config: ModelConfig) -> None:
        super().__init__()
        self.token = token
        self.scale = math.sqrt(config.d_model)
        self.first = config.first_position
        self.dropout = Dropout(config.dropout)
        self.learned = nn.Embedding(config.max_positions, config.d_model) if config.positions == "learned" else None
        self.table_LD: Tensor
        self.sinusoidal = config.positions == "sinusoidal"
        self.register_buffer("table_LD", self._table(256, config.d_model), persistent=False)

    def forward(self, token_BL: Int[Tensor, "B L"], start: int = 0) -> Float[Tensor, "B L D"]:
        """Embed tokens that stand at positions `start` onwards."""
        embedded_BLD = self.token(token_BL) * self.scale
        return cast(Tensor, self.dropout(embedded_BLD + self.positions(start, start + token_BL.size(1))))

    @property
    def has_positions(self) -> bool:
        """Whether anything is added that tells where a token stands."""
        return self.sinusoidal or self.learned is not None

    def positions(self, start: int, end: int) -> Tensor:
        """Return the encoding of positions `start` to `end`, the last not counted  [L, D]."""
        if self.learned is not None:
            most = self.learned.num_embeddings
            if end + self.first > most:
                raise HeedfulError(f"{end} tokens, but the model learned {most - self.first} positions; split the text")
            return self.learned.weight[start + self.first : end + self.first]
        table = self.table_LD
        if end > len(table):  # longer than any text so far: extend the table, at least twofold
            table = self._table(max(end, 2 * len(table)), table.size(1)).to(table)
            self.table_LD = table
        return table[start:end]

    def _table(self, length: int, d_model: int) -> Tensor:
        return sinusoids(length, d_model, self.first) if self.sinusoidal else torch.zeros(length, d_model)


# 3.1 Encoder and decoder stacks -----------------------------------------------------------------------------------


class Residual(nn.Module):
    """LayerNorm(x + Sublayer(x)), with dropout on the sublayer's output  (sections 3.1 and 5.4).

    With pre-norm, x + Sublayer(LayerNorm(x)): the form of tensor2tensor's later versions.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.pre = config.normalization == "pre"

    def forward(self, x_BLD: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Wrap `sublayer` around `x_BLD`."""
        if self.pre:
            return cast(Tensor, self.dropout(sublayer(self.norm(x_BLD)), onto=x_BLD))
        return cast(Tensor, self.norm(self.dropout(sublayer(x_BLD), onto=x_BLD)))


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network: two residual connections  (section 3.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = _multi_head(config, config.rotary)
        self.feed_forward = FeedForward(config.d_model, config.d_ff, config.activation_dropout)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(2))

    def forward(self, x_BSD: Tensor, allowed_B11S: Tensor | None) -> Tensor:
        """Transform source states; `allowed_B11S` hides padding."""
        attend, feed = self.residuals
        x_BSD = attend(x_BSD, lambda x: self.self_attention(x, self.self_attention.keys_values(x), allowed_B11S))
        return cast(Tensor, feed(x_BSD, self.feed_forward))


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder, feed-forward: three residual connections  (section 3.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = _multi_head(config, config.rotary)
        self.cross_attention = _multi_head(config)
        self.feed_forward = FeedForward(config.d_model, config.d_ff, config.activation_dropout)
        self.residuals = nn.ModuleList(Residual(config) for _ in range(3))

    def forward(
        self, x_BTD: Tensor, causal_TT: Tensor, memory_BSD: Tensor, memory_allowed_B11S: Tensor | None
    ) -> Tensor:
        """Transform target states; `causal_TT` hides later positions."""

        def to_itself(x: Tensor) -> Tensor:
            return cast(Tensor, self.self_attention(x, self.self_attention.keys_values(x), causal_TT))

        def to_memory(x: Tensor) -> Tensor:
            memory = self.cross_attention.keys_values(memory_BSD)
            return cast(Tensor, self.cross_attention(x, memory, memory_allowed_B11S))

        attend, cross, feed = self.residuals
        return cast(Tensor, feed(cross(attend(x_BTD, to_itself), to_memory), self.feed_forward))


def _multi_head(config: ModelConfig, rotary: bool = False) -> MultiHeadAttention:
    d_head = config.d_model // config.heads
    d_k, d_v = config.d_k or d_head, config.d_v or d_head
    return MultiHeadAttention(config.d_model, config.heads, d_k, d_v, config.attention_dropout, rotary)


class Memory(NamedTuple):
    """What the encoder hands to the decoder: its states, and which of them are not padding (None: all)."""

    states_BSD: Tensor
    allowed_B11S: Tensor | None


class Transformer(EncoderDecoder):
    """The whole model: figure 1, and section 3.4's shared weights.

    Raises:
        HeedfulError: sizes that do not fit together.
    """

    def __init__(self, config: ModelConfig, source_size: int, target_size: int) -> None:
        super().__init__()
        config.check_transformer(source_size, target_size)
        self.config = config
        source = TokenEmbedding(source_size, config.d_model)
        target = source if config.share == "all" else TokenEmbedding(target_size, config.d_model)
        self.source_embedding = Embedding(source, config)
        self.target_embedding = Embedding(target, config)
        self.encoder = _stack(lambda: EncoderLayer(config), config.encoder_layers, config.tied_layers)
        self.decoder = _stack(lambda: DecoderLayer(config), config.decoder_layers, config.tied_layers)
        pre = config.normalization == "pre"  # the residual stream of pre-norm leaves each stack unnormalised
        self.encoder_norm = LayerNorm(config.d_model) if pre else nn.Identity()
        self.decoder_norm = LayerNorm(config.d_model) if pre else nn.Identity()
        self.output = Linear(config.d_model, target_size, bias=False)
        self._initialise()
        if config.share != "none":
            self.output.weight = target.weight

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> Memory:
        """Encode source sentences, padded on the right."""
        allowed_B11S = lengths_to_mask(source_lengths_B, source_BS.size(1))
        x_BSD = self.source_embedding(source_BS)
        for layer in self._present(self.encoder):
            x_BSD = layer(x_BSD, allowed_B11S)
        return Memory(self.encoder_norm(x_BSD), allowed_B11S)

    def decode(self, target_in_BT: Int[Tensor, "B T"], memory: Memory) -> Float[Tensor, "B T D"]:
        """Return the hidden state after each given token, all positions at once; position t sees none after t."""
        length = target_in_BT.size(1)
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=target_in_BT.device).tril()
        x_BTD = self.target_embedding(target_in_BT)
        for layer in self._present(self.decoder):
            x_BTD = layer(x_BTD, causal_TT, memory.states_BSD, memory.allowed_B11S)
        return cast(Tensor, self.decoder_norm(x_BTD))

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Map hidden states to unnormalised log-probabilities  (section 3.4)."""
        return cast(Tensor, self.output(hidden))

    def _present(self, stack: nn.ModuleList) -> list[nn.Module]:
        """Return the layers to compute: all of them, but for layer dropout in training."""
        if not self.training or not self.config.layer_dropout:
            return list(stack)
        present = torch.rand(len(stack)) >= self.config.layer_dropout
        return [layer for layer, kept in zip(stack, present.tolist(), strict=True) if kept]

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, nn.Embedding):  # times sqrt(d_model) it has variance 1; positions have a half
                nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def _stack(make: Callable[[], nn.Module], layers: int, tied: int) -> nn.ModuleList:
    """Return `layers` layers; each runs `tied` times, one after the other, before the next begins."""
    made = [make() for _ in range(-(-layers // tied))]
    return nn.ModuleList(made[number // tied] for number in range(layers))


def lengths_to_mask(lengths_B: Tensor, width: int) -> Tensor | None:
    """Return [B, 1, 1, width], True where a position holds a token; None where all do, which costs nothing."""
    if bool((lengths_B == width).all()):
        return None
    return (torch.arange(width, device=lengths_B.device) < lengths_B[:, None])[:, None, None, :]
