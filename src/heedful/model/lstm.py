"""LSTM encoder-decoders: what the paper set out to replace (sections 1 and 2).

- `lstm`: Sutskever et al. 2014. The source is read backwards, and its last state is all that the decoder sees. Residual
  connections join the layers unless `residuals` is off; theirs had none.
- `lstm-attention`: Luong et al. 2015 (global attention, "general" score), its encoder as in Wu et al. 2016 (GNMT): the
  first layer reads both ways, and residual connections join the layers, from the second on (there from the third).

Shapes as in transformer.py; `N` = sentences x hypotheses of each, in steps; `E` ways in which a layer reads, 1 or 2.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from heedful.config import check_ranges
from heedful.errors import HeedfulError
from heedful.model.dot_product import DotProductAttention
from heedful.model.dropout import Dropout
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.linear import Linear
from heedful.model.settings import ModelConfig
from heedful.model.token_embedding import TokenEmbedding
from heedful.model.transformer import lengths_to_mask

HiddenCell = tuple[Tensor, Tensor]  # of one layer, [1, B, D] each


class LSTMMemory(NamedTuple):
    """What the encoder hands to the decoder: its states, which are not padding (None: all), each layer's last state."""

    states_BSD: Tensor
    allowed_B11S: Tensor | None
    last: list[HiddenCell]


@dataclass
class LSTMState:
    """What a step needs of those before it: each layer's state of each hypothesis, and each sentence's memory."""

    memory: LSTMMemory
    last: list[HiddenCell]

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> "LSTMState":
        """Let hypothesis n go on from where row `rows_N[n]` was; keep only some sentences."""
        self.last = [(hidden[:, rows_N], cell[:, rows_N]) for hidden, cell in self.last]
        if sentences_B is not None:
            states_BSD, allowed_B11S, last = self.memory
            allowed_B11S = None if allowed_B11S is None else allowed_B11S[sentences_B]
            self.memory = LSTMMemory(states_BSD[sentences_B], allowed_B11S, last)
        return self


class Stack(nn.Module):
    """LSTM layers, one above the other, with dropout between them and, from the second on, residual connections.

    Dropout stands on what goes up, never on what goes on in time (Zaremba et al. 2014).
    """

    def __init__(self, layers: int, config: ModelConfig, *, bidirectional: bool) -> None:
        super().__init__()
        d = config.d_model
        self.layers = nn.ModuleList(
            nn.LSTM(d, d // 2, batch_first=True, bidirectional=True)
            if bidirectional and number == 0
            else nn.LSTM(d, d, batch_first=True)
            for number in range(layers)
        )
        self.dropout = Dropout(config.dropout)
        self.residuals = config.residuals

    def forward(
        self, x_BLD: Tensor, first: list[HiddenCell] | None = None, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, list[HiddenCell]]:
        """Return the top layer's outputs, zero at padding, and each layer's state after the last position.

        `lengths_B` is for whoever needs that state, or reads both ways: padding then is not read at all.
        """
        last, lengths_B = [], None if lengths_B is None else lengths_B.cpu()  # where packing wants them
        for number, layer in enumerate(self.layers):
            given = first[number] if first else None
            if lengths_B is None:
                out_BLD, (hidden, cell) = layer(x_BLD, given)
            else:
                packed = pack_padded_sequence(x_BLD, lengths_B, batch_first=True, enforce_sorted=False)
                packed, (hidden, cell) = layer(packed, given)
                out_BLD, _ = pad_packed_sequence(packed, batch_first=True, total_length=x_BLD.size(1))
            last.append((_side_by_side(hidden), _side_by_side(cell)))
            x_BLD = self.dropout(out_BLD, onto=x_BLD if self.residuals and number else None)
        return x_BLD, last


class LSTM(EncoderDecoder):
    """The whole model, of either kind.

    Raises:
        HeedfulError: sizes that do not fit together.
    """

    one_thread = False  # torch's own threads compute a step

    def __init__(self, config: ModelConfig, source_size: int, target_size: int) -> None:
        super().__init__()
        _check(config, source_size, target_size)
        self.config = config
        d, attends = config.d_model, config.family == "lstm-attention"
        self.source_embedding = TokenEmbedding(source_size, d)
        shared = config.share == "all"
        self.target_embedding = self.source_embedding if shared else TokenEmbedding(target_size, d)
        self.dropout = Dropout(config.dropout)
        self.encoder = Stack(config.encoder_layers, config, bidirectional=attends and config.bidirectional)
        self.decoder = Stack(config.decoder_layers, config, bidirectional=False)
        self.query = Linear(d, d, bias=False) if attends else None
        self.cross_attention = DotProductAttention() if attends else None
        self.join = Linear(2 * d, d, bias=False) if attends else None
        self.output = Linear(d, target_size, bias=False)
        self._initialise()
        if config.share != "none":
            self.output.weight = self.target_embedding.weight

    def encode(self, source_BS: Int[Tensor, "B S"], source_lengths_B: Int[Tensor, " B"]) -> LSTMMemory:
        """Encode source sentences, padded on the right."""
        if self.cross_attention is None:
            source_BS = _backwards(source_BS, source_lengths_B)
        states_BSD, last = self.encoder(self._embed(self.source_embedding, source_BS), None, source_lengths_B)
        return LSTMMemory(states_BSD, lengths_to_mask(source_lengths_B, source_BS.size(1)), last)

    def decode(self, target_in_BT: Int[Tensor, "B T"], memory: LSTMMemory) -> Float[Tensor, "B T D"]:
        """Return the hidden state after each given token; position t sees none after t."""
        out_BTD, _ = self.decoder(self._embed(self.target_embedding, target_in_BT), memory.last)
        return self._attend(out_BTD, memory)

    def start(self, memory: LSTMMemory) -> LSTMState:
        """Return the state before the first step."""
        return LSTMState(memory, memory.last)

    def step(self, token_N: Int[Tensor, " N"], state: LSTMState) -> tuple[Float[Tensor, "N D"], LSTMState]:
        """Return the hidden state after one more token of each hypothesis: equal to `decode`'s, by test.

        Hypotheses of a sentence are neighbours: row n belongs to sentence n // W.
        """
        width = len(token_N) // state.last[0][0].size(1)
        if width > 1:  # the first step of several draws from one sentence
            state.last = [
                (hidden.repeat_interleave(width, 1), cell.repeat_interleave(width, 1)) for hidden, cell in state.last
            ]
        embedded_N1D = self._embed(self.target_embedding, token_N[:, None])
        out_N1D, state.last = self.decoder(embedded_N1D, state.last)
        # all hypotheses of a sentence attend to its memory, which stands there once
        out_BWD = out_N1D.view(len(state.memory.states_BSD), -1, out_N1D.size(2))
        return self._attend(out_BWD, state.memory).flatten(0, 1), state

    def logits(self, hidden: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
        """Map hidden states to unnormalised log-probabilities."""
        return cast(Tensor, self.output(hidden))

    def _embed(self, embedding: nn.Module, token_BL: Tensor) -> Tensor:
        return cast(Tensor, self.dropout(embedding(token_BL) * self.config.d_model**0.5))

    def _attend(self, out_BTD: Tensor, memory: LSTMMemory) -> Tensor:
        """tanh(W [context; state])  (Luong et al. 2015, equation 5); without attention the state alone."""
        if self.cross_attention is None or self.query is None or self.join is None:
            return out_BTD
        states_BSD = memory.states_BSD
        context_BTD = self.cross_attention(self.query(out_BTD), states_BSD, states_BSD, memory.allowed_B11S)
        return cast(Tensor, self.dropout(self.join(torch.cat([context_BTD, out_BTD], dim=-1)).tanh()))

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.LSTM):
                _initialise_lstm(module)


def _initialise_lstm(layer: nn.LSTM) -> None:
    """Orthogonal recurrences, and forget gates that begin by remembering (Jozefowicz et al. 2015)."""
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            if "bias_ih" in name:
                parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0
            continue
        for gate in parameter.chunk(4):
            (nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_)(gate)


def _side_by_side(x_EBD: Tensor) -> Tensor:
    """Return the last states of both directions, if there are two, as one [1, B, D]."""
    return x_EBD.transpose(0, 1).reshape(1, x_EBD.size(1), -1)


def _backwards(source_BS: Tensor, lengths_B: Tensor) -> Tensor:
    """Reverse each sentence; padding stays on the right."""
    place_S = torch.arange(source_BS.size(1), device=source_BS.device)
    place_BS = torch.where(place_S < lengths_B[:, None], lengths_B[:, None] - 1 - place_S, place_S)
    return source_BS.gather(1, place_BS)


def _check(config: ModelConfig, source_size: int, target_size: int) -> None:
    check_ranges(config, "model")
    if config.encoder_layers != config.decoder_layers:
        raise HeedfulError(
            f"model: an LSTM's decoder begins with its encoder's states, layer by layer, but there are "
            f"{config.encoder_layers} and {config.decoder_layers}; set both to the same number"
        )
    if config.d_model % 2 and config.family == "lstm-attention" and config.bidirectional:
        raise HeedfulError(f"model: d_model {config.d_model} must be even, or set model.bidirectional = false")
    config.check_sharing(source_size, target_size)
