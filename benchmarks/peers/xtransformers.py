"""x-transformers: an encoder and a decoder of its own blocks: pre-norm, ReLU, dropout where heedful has it."""

from importlib.metadata import version

from torch import Tensor, nn
from torch.nn import functional
from x_transformers import Decoder, Encoder, TransformerWrapper

from heedful.data.batches import Batch
from heedful.model.settings import ModelConfig
from heedful.text.vocabulary import PAD

NAME = f"x-transformers {version('x-transformers')}"


class Peer(nn.Module):
    """Two of its wrappers with one table of embeddings."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        layers = {
            "dim": config.d_model,
            "heads": config.heads,
            "attn_dim_head": config.d_model // config.heads,
            "ff_mult": config.d_ff // config.d_model,
            "layer_dropout": 0.0,
            "attn_dropout": 0.0,
            "ff_dropout": 0.0,
            "ff_custom_activation": nn.ReLU(),
            "attn_sublayer_dropout": config.dropout,
            "ff_sublayer_dropout": config.dropout,
        }
        embeddings = {"num_tokens": vocabulary, "max_seq_len": 256, "emb_dropout": config.dropout}
        self.encoder = TransformerWrapper(
            attn_layers=Encoder(depth=config.encoder_layers, **layers), return_only_embed=True, **embeddings
        )
        self.decoder = TransformerWrapper(
            attn_layers=Decoder(depth=config.decoder_layers, cross_attend=True, **layers),
            tie_embedding=True,
            **embeddings,
        )
        self.encoder.token_emb = self.decoder.token_emb

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss."""
        real_BS = batch.source_BS != PAD
        memory = self.encoder(batch.source_BS, mask=real_BS, return_embeddings=True)
        logits = self.decoder(batch.target_in_BT, context=memory, context_mask=real_BS)
        return functional.cross_entropy(
            logits.flatten(0, 1), batch.target_out_BT.flatten(), ignore_index=PAD, label_smoothing=0.1
        )
