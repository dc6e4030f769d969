"""Hugging Face's Marian, the encoder-decoder that its translation models use."""

from typing import Any

import transformers
from torch import Tensor, nn
from torch.nn import functional

from heedful.data.batches import Batch
from heedful.model.settings import ModelConfig
from heedful.text.vocabulary import BEGIN, END, PAD

NAME = f"Hugging Face Marian {transformers.__version__}"


def settings(config: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """Return the same sizes in the words of Hugging Face's encoder-decoders."""
    return {
        "vocab_size": vocabulary,
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": "relu",
        "dropout": config.dropout,
        "scale_embedding": True,
        "max_position_embeddings": 256,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "decoder_start_token_id": BEGIN,
    }


class Peer(nn.Module):
    """Marian with label smoothing, which its users add."""

    def __init__(self, config: ModelConfig, vocabulary: int, attention: str | None = None) -> None:
        super().__init__()
        sizes = settings(config, vocabulary) | ({"attn_implementation": attention} if attention else {})
        self.model = transformers.MarianMTModel(
            transformers.MarianConfig(**sizes, share_encoder_decoder_embeddings=True, forced_eos_token_id=None)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean label-smoothed loss."""
        logits = self.model(
            input_ids=batch.source_BS,
            attention_mask=(batch.source_BS != PAD).long(),
            decoder_input_ids=batch.target_in_BT,
            use_cache=False,
        ).logits
        return functional.cross_entropy(
            logits.flatten(0, 1), batch.target_out_BT.flatten(), ignore_index=PAD, label_smoothing=0.1
        )
