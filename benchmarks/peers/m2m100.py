"""Hugging Face's M2M100, Marian's pre-norm sibling: trained anew, or with the weights of a heedful model."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from heedful.bundle import Bundle
from heedful.model.settings import ModelConfig
from heedful.model.transformer import sinusoids
from heedful.text.vocabulary import PAD
from peers import marian

NAME = f"Hugging Face M2M100 {transformers.__version__}"


NAMES = {  # of what a layer is made of, here and there: theirs are fairseq's
    "self_attention.query": "self_attn.q_proj",
    "self_attention.key": "self_attn.k_proj",
    "self_attention.value": "self_attn.v_proj",
    "self_attention.output": "self_attn.out_proj",
    "cross_attention.query": "encoder_attn.q_proj",
    "cross_attention.key": "encoder_attn.k_proj",
    "cross_attention.value": "encoder_attn.v_proj",
    "cross_attention.output": "encoder_attn.out_proj",
    "feed_forward.inner": "fc1",
    "feed_forward.outer": "fc2",
    "residuals.0.norm": "self_attn_layer_norm",
}
NORMS = {
    "encoder": {"residuals.1.norm": "final_layer_norm"},
    "decoder": {"residuals.1.norm": "encoder_attn_layer_norm", "residuals.2.norm": "final_layer_norm"},
}


def renamed(ours: nn.Module) -> dict[str, Tensor]:
    """Return the weights of both stacks by the names that fairseq and, after it, Hugging Face give them."""
    weights = {}
    for name, tensor in ours.state_dict().items():
        stack, _, rest = name.partition(".")
        if stack in NORMS:
            layer, _, part = rest.partition(".")
            module, _, kind = part.rpartition(".")
            weights[f"{stack}.layers.{layer}.{(NAMES | NORMS[stack])[module]}.{kind}"] = tensor
        elif stack in ("encoder_norm", "decoder_norm"):
            weights[f"{stack.removesuffix('_norm')}.layer_norm.{rest}"] = tensor
    return weights


def take(theirs: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model weights; the biases that it has and ours has not become zero."""
    names = {name for name in theirs.state_dict() if name.endswith("bias")} - set(weights)
    zero = {name: torch.zeros_like(theirs.state_dict()[name]) for name in names}
    missing, unexpected = theirs.load_state_dict(weights | zero, strict=False)
    if unexpected or [name for name in missing if "embed_positions" not in name]:
        raise SystemExit(f"{type(theirs).__name__} has other weights than expected: {missing} {unexpected}")


def make(config: ModelConfig, vocabulary: int, attention: str | None = None) -> Any:
    """Return a new model of the same sizes, with Hugging Face's own choice of attention unless told otherwise."""
    sizes = marian.settings(config, vocabulary) | ({"attn_implementation": attention} if attention else {})
    return transformers.M2M100ForConditionalGeneration(
        transformers.M2M100Config(**sizes, attention_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0)
    )


class Peer(marian.Peer):
    """M2M100 with label smoothing, which its users add."""

    def __init__(self, config: ModelConfig, vocabulary: int, attention: str | None = None) -> None:
        nn.Module.__init__(self)
        self.model = make(config, vocabulary, attention)


def convert(bundle: Bundle) -> Any:
    """Return the same model as one of Hugging Face's."""
    ours, config = bundle.model, bundle.model.config
    theirs = make(config, bundle.vocabulary.sizes[1]).eval()
    weights = {f"model.{name}": tensor for name, tensor in renamed(ours).items()}
    for name in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = ours.output.weight.detach()
    take(theirs, weights)
    for stack in (theirs.model.encoder, theirs.model.decoder):  # its first position stands after the padding's
        places = stack.embed_positions
        places.weights[PAD + 1 :] = sinusoids(len(places.weights) - PAD - 1, config.d_model, config.first_position)
    return theirs


def translate(
    model: Any, sources: list[list[int]], *, beam: int, batch: int, length_penalty: float, length: int
) -> list[list[int]]:
    """Translate ids to ids, sentences of similar length together, as a careful user does."""
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    found: list[list[int]] = [[] for _ in sources]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(sources[row]) for row in rows], batch_first=True, padding_value=PAD
        )
        with torch.inference_mode():
            output = model.generate(
                padded,
                attention_mask=(padded != PAD).long(),
                num_beams=beam,
                do_sample=False,
                length_penalty=length_penalty,
                early_stopping=True,
                min_new_tokens=length or 1,
                max_new_tokens=length or 128,
            )
        for row, ids in zip(rows, output[:, 1:].tolist(), strict=True):
            found[row] = [number for number in ids if number != PAD]
    return found
