"""CTranslate2, with the weights of a heedful model: what users run today for fast decoding on a CPU."""

from pathlib import Path
from typing import Any, cast

import ctranslate2
from ctranslate2.converters import utils
from ctranslate2.specs import TransformerSpec, common_spec, transformer_spec
from torch import nn

from heedful.bundle import Bundle
from heedful.model.transformer import MultiHeadAttention, Transformer, sinusoids
from heedful.text.vocabulary import BEGIN, END, UNKNOWN

NAME = f"CTranslate2 {ctranslate2.__version__}"
SPECIAL = {BEGIN: "<s>", END: "</s>", UNKNOWN: "<unk>"}


def token(number: int) -> str:
    """Return the name of a token in the converted model: its number, but for the special ones."""
    return SPECIAL.get(number, str(number))


def convert(bundle: Bundle, folder: Path, quantization: str | None = None) -> None:
    """Write the model as one of CTranslate2's, which must not exist yet."""
    model, config = cast(Transformer, bundle.model), bundle.model.config
    settings = {
        "num_heads": config.heads,
        "pre_norm": config.normalization == "pre",
        "activation": common_spec.Activation.RELU,
        # of all a head's numbers, the first half of them with the second
        **({"rotary_dim": 0, "rotary_interleave": False} if config.rotary else {}),
    }
    spec = TransformerSpec(
        transformer_spec.TransformerEncoderSpec(config.encoder_layers, **settings),
        transformer_spec.TransformerDecoderSpec(config.decoder_layers, **settings),
    )
    spec.config.decoder_start_token = SPECIAL[BEGIN]
    spec.config.layer_norm_epsilon = 1e-5
    for stack, embedding in ((spec.encoder, model.source_embedding), (spec.decoder, model.target_embedding)):
        table = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
        table.weight = _numpy(embedding.token.weight)
        if not config.rotary:
            stack.position_encodings.encodings = sinusoids(512, config.d_model, config.first_position).numpy()
    spec.decoder.projection.weight = _numpy(model.output.weight)
    if config.normalization == "pre":
        _norm(spec.encoder.layer_norm, model.encoder_norm)
        _norm(spec.decoder.layer_norm, model.decoder_norm)
    _layers(spec, model)
    source_size, target_size = bundle.vocabulary.sizes
    spec.register_source_vocabulary([token(number) for number in range(source_size)])
    spec.register_target_vocabulary([token(number) for number in range(target_size)])
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True)
    spec.save(str(folder))


def _layers(spec: Any, model: Any) -> None:
    for ours, theirs in zip(model.encoder, spec.encoder.layer, strict=True):
        _attention(theirs.self_attention, ours.self_attention, ours.residuals[0].norm, itself=True)
        _feed_forward(theirs.ffn, ours.feed_forward, ours.residuals[1].norm)
    for ours, theirs in zip(model.decoder, spec.decoder.layer, strict=True):
        _attention(theirs.self_attention, ours.self_attention, ours.residuals[0].norm, itself=True)
        _attention(theirs.attention, ours.cross_attention, ours.residuals[1].norm, itself=False)
        _feed_forward(theirs.ffn, ours.feed_forward, ours.residuals[2].norm)


def _attention(spec: Any, ours: MultiHeadAttention, norm: nn.LayerNorm, *, itself: bool) -> None:
    query, key, value = (_linear(common_spec.LinearSpec(), each) for each in (ours.query, ours.key, ours.value))
    if itself:
        utils.fuse_linear(spec.linear[0], [query, key, value])
    else:
        spec.linear[0].weight = query.weight
        utils.fuse_linear(spec.linear[1], [key, value])
    _linear(spec.linear[-1], ours.output)
    _norm(spec.layer_norm, norm)


def _feed_forward(spec: Any, ours: Any, norm: nn.LayerNorm) -> None:
    _linear(spec.linear_0, ours.inner)
    _linear(spec.linear_1, ours.outer)
    _norm(spec.layer_norm, norm)


def _linear(spec: Any, ours: nn.Linear) -> Any:
    spec.weight = _numpy(ours.weight)
    if ours.bias is not None:
        spec.bias = _numpy(ours.bias)
    return spec


def _norm(spec: Any, ours: Any) -> None:
    spec.gamma, spec.beta = _numpy(ours.weight), _numpy(ours.bias)


def _numpy(tensor: Any) -> Any:
    return tensor.detach().float().contiguous().numpy()


def load(folder: Path, compute_type: str, workers: int) -> Any:
    """Return a translator of `workers` workers of one thread each."""
    return ctranslate2.Translator(
        str(folder), device="cpu", compute_type=compute_type, inter_threads=workers, intra_threads=1
    )


def translate(
    translator: Any, sources: list[list[int]], *, beam: int, batch: int, length_penalty: float, length: int
) -> list[list[int]]:
    """Translate ids to ids, each output `length` long, if given; the engine sorts by length and batches by itself."""
    results = translator.translate_batch(
        [[token(number) for number in source] for source in sources],
        beam_size=beam,
        max_batch_size=batch,
        length_penalty=length_penalty if beam > 1 else 0.0,
        min_decoding_length=length or 1,
        max_decoding_length=length or 128,
    )
    back = {name: number for number, name in SPECIAL.items()}
    return [[back[name] if name in back else int(name) for name in one.hypotheses[0]] for one in results]
