"""ConvS2S: the convolutional sequence-to-sequence model (Gehring et al. 2017), which the paper compares itself with.

Gated linear units, learned positions, an attention in every decoder layer, variance kept by scaling sums with
sqrt(0.5). Section numbers are those of Gehring et al. Shapes as in transformer.py; `N` = sentences x hypotheses of
each, in steps; `P` = kernel - 1, the past positions that a kernel sees.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from heedful.config import check_ranges
from heedful.errors import HeedfulError
from heedful.model.dot_product import DotProductAttention
from heedful.model.dropout import Dropout
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.linear import Linear
from heedful.model.settings import ModelConfig
from heedful.model.token_embedding import TokenEmbedding
from heedful.model.transformer import Embedding, lengths_to_mask

HALF = 0.5**0.5  # keeps the variance of a sum of two
EMBEDDING = 0.1  # section 3.5; larger ones would sharpen the attention, whose products nothing scales, from the start


class ConvolutionMemory(NamedTuple):
    """What the encoder hands to the decoder: keys, values (with the embeddings: 3.3), which are not padding."""

    states_BSD: Tensor
    values_BSD: Tensor
    allowed_B11S: Tensor | None


@dataclass
class ConvolutionState:
    """What a step needs of those before it: each layer's last inputs of each hypothesis, and each sentence's memory."""

    memory: ConvolutionMemory
    windows: list[Tensor]
    position: int = 0

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "ConvolutionState":
        """Let hypothesis n go on from where row `rows_N[n]` was; keep only some sentences."""
        self.windows = [window_NPD[rows_N] for window_NPD in self.windows]
        if sentences_B is not None:
            states_BSD, values_BSD, allowed_B11S = self.memory
            allowed_B11S = None if allowed_B11S is None else allowed_B11S[sentences_B]
            self.memory = ConvolutionMemory(states_BSD[sentences_B], values_BSD[sentences_B], allowed_B11S)
        return self


class GatedConvolution(nn.Module):
    """GLU(convolution): half of the outputs gate the other half  (section 3.2; Dauphin et al. 2016)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        convolution = nn.Conv1d(config.d_model, 2 * config.d_model, config.kernel)
        # Sections 3.5 and A: four times the variance, because a gate halves what passes.
        nn.init.normal_(convolution.weight, std=(4 * (1 - config.dropout) / (config.kernel * config.d_model)) ** 0.5)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        self.convolution = weight_norm(convolution)

    def forward(self, x_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B M D"]:
        """Return an output for each position that has a whole kernel: there are kernel - 1 fewer."""
        gates_BML = self.convolution(self.dropout(x_BLD).mT)
        return functional.glu(gates_BML, dim=1).mT


class DecoderLayer(nn.Module):
    """A convolution over the past, attention to the source, and a residual connection around both  (section 3.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = GatedConvolution(config)
        self.query = _linear(config.d_model, config.d_model)
        self.cross_attention = DotProductAttention()
        self.output = _linear(config.d_model, config.d_model)

    def forward(self, window_BLD: Tensor, x_BTD: Tensor, embedded_BTD: Tensor, memory: ConvolutionMemory) -> Tensor:
        """Transform target states; the window is `x_BTD` with the past positions that its kernels need before it.

        There may be more rows than sentences: several hypotheses of a sentence attend as further positions of it.
        """
        seen_BTD = self.convolution(window_BLD)
        query_BTD = (self.query(seen_BTD) + embedded_BTD) * HALF
        states_BSD, values_BSD, allowed_B11S = memory
        query_BWD = query_BTD.view(len(states_BSD), -1, query_BTD.size(2))
        found_BWD = self.cross_attention(query_BWD, states_BSD, values_BSD, allowed_B11S)
        # Section 3.4: a mean of m values has 1/m of their variance if all weigh the same.
        length = states_BSD.size(1) if allowed_B11S is None else allowed_B11S.sum(-1).to(found_BWD.dtype)
        found_BTD = (found_BWD * length**0.5).view(query_BTD.shape)
        return cast(Tensor, ((seen_BTD + self.output(found_BTD)) * HALF + x_BTD) * HALF)


class Convolution(EncoderDecoder):
    """The whole model.

    Raises:
        HeedfulError: sizes that do not fit together.
    """

    one_thread = False  # torch's own threads compute a step

    def __init__(self, config: ModelConfig, source_size: int, target_size: int) -> None:
        super().__init__()
        _check(config, source_size, target_size)
        self.config = config
        d = config.d_model
        source = TokenEmbedding(source_size, d)
        target = source if config.share == "all" else TokenEmbedding(target_size, d)
        for embedding in dict.fromkeys((source, target)):  # one, where they share
            nn.init.normal_(embedding.weight, std=EMBEDDING)
        learned = replace(config, positions="learned")
        self.source_embedding, self.target_embedding = Embedding(source, learned), Embedding(target, learned)
        for embedded in (self.source_embedding, self.target_embedding):
            embedded.scale = 1.0
            nn.init.normal_(cast(nn.Embedding, embedded.learned).weight, std=EMBEDDING)
        self.encoder_in, self.encoder_out = _linear(d, d), _linear(d, d)
        self.encoder = nn.ModuleList(GatedConvolution(config) for _ in range(config.encoder_layers))
        self.decoder_in, self.decoder_out = _linear(d, d), _linear(d, d)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.dropout = Dropout(config.dropout)
        self.output = Linear(d, target_size, bias=False)
        if config.share == "none":
            nn.init.normal_(self.output.weight, std=EMBEDDING)
        else:
            self.output.weight = target.weight

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> ConvolutionMemory:
        """Encode source sentences, padded on the right."""
        kernel, allowed_B11S = self.config.kernel, lengths_to_mask(source_lengths_B, source_BS.size(1))
        embedded_BSD = self.source_embedding(source_BS)
        real_BS1 = None if allowed_B11S is None else allowed_B11S[:, 0, 0, :, None].to(embedded_BSD.dtype)
        x_BSD = self.encoder_in(embedded_BSD)
        for layer in self.encoder:
            if real_BS1 is not None:
                x_BSD = x_BSD * real_BS1  # a kernel beyond the end sees zeros, whatever the batch is padded with
            around_BLD = functional.pad(x_BSD, (0, 0, (kernel - 1) // 2, kernel // 2))
            x_BSD = (layer(around_BLD) + x_BSD) * HALF
        states_BSD = self.encoder_out(x_BSD)
        # section 3.4: each decoder layer adds its share to the encoder's gradient; 2 L as in fairseq, the paper says L
        if states_BSD.requires_grad:
            states_BSD.register_hook(lambda gradient: gradient / (2 * len(self.decoder)))
        return ConvolutionMemory(states_BSD, (states_BSD + embedded_BSD) * HALF, allowed_B11S)

    def decode(self, target_in_BT: Int[Tensor, "B T"], memory: ConvolutionMemory) -> Float[Tensor, "B T D"]:
        """Return the hidden state after each given token, all positions at once; position t sees none after t."""
        embedded_BTD = self.target_embedding(target_in_BT)
        x_BTD = self.decoder_in(embedded_BTD)
        for layer in self.decoder:
            window_BLD = functional.pad(x_BTD, (0, 0, self.config.kernel - 1, 0))
            x_BTD = layer(window_BLD, x_BTD, embedded_BTD, memory)
        return cast(Tensor, self.dropout(self.decoder_out(x_BTD)))

    def start(self, memory: ConvolutionMemory) -> ConvolutionState:
        """Return the state before the first step."""
        sentences, _, d = memory.states_BSD.shape
        past = memory.states_BSD.new_zeros(sentences, self.config.kernel - 1, d)
        return ConvolutionState(memory, [past] * len(self.decoder))

    def step(
        self, token_N: Int[Tensor, " N"], state: ConvolutionState
    ) -> tuple[Float[Tensor, "N D"], ConvolutionState]:
        """Return the hidden state after one more token of each hypothesis: equal to `decode`'s, by test.

        Hypotheses of a sentence are neighbours: row n belongs to sentence n // W.
        """
        width = len(token_N) // len(state.windows[0])
        if width > 1:  # the first step of several draws from one sentence
            state.windows = [window_NPD.repeat_interleave(width, 0) for window_NPD in state.windows]
        embedded_N1D = self.target_embedding(token_N[:, None], state.position)
        x_N1D, windows = self.decoder_in(embedded_N1D), []
        for layer, past_NPD in zip(self.decoder, state.windows, strict=True):
            window_NLD = torch.cat([past_NPD, x_N1D], dim=1)
            windows.append(window_NLD[:, 1:])
            x_N1D = layer(window_NLD, x_N1D, embedded_N1D, state.memory)
        state.windows, state.position = windows, state.position + 1
        return self.decoder_out(x_N1D)[:, 0], state

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Map hidden states to unnormalised log-probabilities."""
        return cast(Tensor, self.output(hidden))


def _linear(inner: int, outer: int) -> nn.Module:
    # section 3.5, but for its factor sqrt(1 - dropout), which fairseq has where the input was dropped out
    linear = Linear(inner, outer)
    nn.init.normal_(linear.weight, std=inner**-0.5)
    nn.init.zeros_(linear.bias)
    return cast(nn.Module, weight_norm(linear))


def _check(config: ModelConfig, source_size: int, target_size: int) -> None:
    check_ranges(config, "model")
    if config.kernel < 2:
        raise HeedfulError(f"model: kernel {config.kernel} sees no neighbour; it must be at least 2")
    config.check_sharing(source_size, target_size)
