"""torch.nn.Transformer, with what it leaves to the user: embeddings, positions, masks, the output projection."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from heedful.data.batches import Batch
from heedful.model.settings import ModelConfig
from heedful.model.transformer import sinusoids
from heedful.text.vocabulary import PAD

NAME = f"torch.nn.Transformer {torch.__version__}"


class Peer(nn.Module):
    """What a reader of PyTorch's tutorial writes."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("positions", sinusoids(256, config.d_model))
        self.scale = math.sqrt(config.d_model)
        self.transformer = nn.Transformer(
            config.d_model,
            config.heads,
            config.encoder_layers,
            config.decoder_layers,
            config.d_ff,
            config.dropout,
            batch_first=True,
            norm_first=config.normalization == "pre",
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean label-smoothed loss."""
        source_pad, target_pad = batch.source_BS == PAD, batch.target_in_BT == PAD
        length = batch.target_in_BT.size(1)
        hidden = self.transformer(
            self.embed(batch.source_BS),
            self.embed(batch.target_in_BT),
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=source_pad,
            tgt_key_padding_mask=target_pad,
            memory_key_padding_mask=source_pad,
        )
        logits = functional.linear(hidden, self.embedding.weight).flatten(0, 1)
        return functional.cross_entropy(logits, batch.target_out_BT.flatten(), ignore_index=PAD, label_smoothing=0.1)

    def embed(self, token_BL: Tensor) -> Tensor:
        """Embed tokens with positions."""
        positions = cast(Tensor, self.positions)[: token_BL.size(1)]
        return cast(Tensor, self.dropout(self.embedding(token_BL) * self.scale + positions))
