"""What a model of each family costs: parameters by part, and FLOPs by formula.

A product of an a x b and a b x c matrix counts 2abc; softmax, norms, gates and sums are left out (under 2 %). Tests
hold parameters against the models, and FLOPs against what torch counts.
"""

from heedful.model.settings import ModelConfig

Parts = dict[str, int]


def parameters(config: ModelConfig, source_size: int, target_size: int) -> Parts:
    """Return the number of parameters of each part, counted on paper. What is shared counts once."""
    d, vocabularies = config.d_model, {"all": target_size, "target": source_size + target_size}
    embeddings = vocabularies.get(config.share, source_size + 2 * target_size) * d
    if config.family == "transformer":
        found = _transformer_parameters(config)
    elif config.family == "convolution":
        found = _convolution_parameters(config)
    else:
        found = _lstm_parameters(config)
    learned = config.family == "convolution" or (config.family == "transformer" and config.positions == "learned")
    return {"embeddings": embeddings + (2 * config.max_positions * d if learned else 0), **found}


def forward_flops(config: ModelConfig, target_size: int, source_length: int, target_length: int) -> Parts:
    """Return the floating-point operations of one sentence pair's forward pass, by part; training takes thrice that."""
    s, t = source_length, target_length
    if config.family == "transformer":
        encoder, decoder = _transformer_flops(config, s, t)
    elif config.family == "convolution":
        encoder, decoder = _convolution_flops(config, s, t)
    else:
        encoder, decoder = _lstm_flops(config, s, t)
    return {"encoder": encoder, "decoder": decoder, "output": 2 * t * config.d_model * target_size}


def search_flops(config: ModelConfig, target_size: int, source_length: int, target_length: int, width: int) -> Parts:
    """Return the floating-point operations of finding one output, `width` hypotheses at each step, by part.

    The source is encoded once. A Transformer also projects it to keys and values once, and each token of each
    hypothesis attends to those before it; the others do at each step what they do in training.
    """
    d, s, t = config.d_model, source_length, target_length
    whole = forward_flops(config, target_size, s, t)
    if config.family != "transformer":
        return {"encoder": whole["encoder"], "decoder": width * whole["decoder"], "output": width * whole["output"]}
    heads = _head_widths(config)
    itself = 4 * t * d * heads + t * (t + 1) * heads
    to_memory = 2 * t * d * heads + 2 * t * s * heads
    feed_forward = 4 * t * d * config.d_ff
    return {
        "encoder": whole["encoder"] + config.decoder_layers * 2 * s * d * heads,
        "decoder": width * config.decoder_layers * (itself + to_memory + feed_forward),
        "output": width * whole["output"],
    }


def _head_widths(config: ModelConfig) -> int:
    """Return h (d_k + d_v)."""
    d_head = config.d_model // config.heads
    return config.heads * ((config.d_k or d_head) + (config.d_v or d_head))


def _transformer_parameters(config: ModelConfig) -> Parts:
    """Count W^Q, W^K (d_model x h d_k), W^V, W^O (d_model x h d_v); two matrices and two biases; norms of 2 d_model."""
    d, norm = config.d_model, 2 * config.d_model
    attention = 2 * d * _head_widths(config)
    feed_forward = 2 * d * config.d_ff + config.d_ff + d
    last_norm = norm if config.normalization == "pre" else 0
    own_encoder, own_decoder = (-(-n // config.tied_layers) for n in (config.encoder_layers, config.decoder_layers))
    return {
        "encoder": own_encoder * (attention + feed_forward + 2 * norm) + last_norm,
        "decoder": own_decoder * (2 * attention + feed_forward + 3 * norm) + last_norm,
    }


def _transformer_flops(config: ModelConfig, s: int, t: int) -> tuple[int, int]:
    d, heads = config.d_model, _head_widths(config)

    def attention(queries: int, keys: int) -> int:
        return 2 * d * heads * (queries + keys) + 2 * queries * keys * heads

    def feed_forward(length: int) -> int:
        return 4 * length * d * config.d_ff

    encoder = config.encoder_layers * (attention(s, s) + feed_forward(s))
    return encoder, config.decoder_layers * (attention(t, t) + attention(t, s) + feed_forward(t))


def _lstm_widths(config: ModelConfig) -> tuple[int, int]:
    """Return the weights that multiply a token in the encoder, in the decoder: four gates, input and state."""
    each, attends = 8 * config.d_model**2, config.family == "lstm-attention"
    saved = each - 6 * config.d_model**2 if attends and config.bidirectional else 0  # both ways, each half as wide
    return config.encoder_layers * each - saved, config.decoder_layers * each


def _lstm_parameters(config: ModelConfig) -> Parts:
    encoder, decoder = _lstm_widths(config)
    joined = 3 * config.d_model**2 if config.family == "lstm-attention" else 0  # the query, and what joins the context
    biases = 8 * config.d_model  # torch has two for each gate
    return {
        "encoder": encoder + config.encoder_layers * biases,
        "decoder": decoder + config.decoder_layers * biases + joined,
    }


def _lstm_flops(config: ModelConfig, s: int, t: int) -> tuple[int, int]:
    encoder, decoder = _lstm_widths(config)
    attention = 6 * t * config.d_model**2 + 4 * t * s * config.d_model if config.family == "lstm-attention" else 0
    return 2 * s * encoder, 2 * t * decoder + attention


def _convolution_parameters(config: ModelConfig) -> Parts:
    """Count matrices, biases, and the length that weight normalisation keeps for each output."""
    d = config.d_model
    linear, gated = d * d + 2 * d, 2 * d * d * config.kernel + 4 * d
    return {
        "encoder": config.encoder_layers * gated + 2 * linear,
        "decoder": config.decoder_layers * (gated + 2 * linear) + 2 * linear,
    }


def _convolution_flops(config: ModelConfig, s: int, t: int) -> tuple[int, int]:
    d = config.d_model
    linear, gated = 2 * d * d, 4 * d * d * config.kernel
    attention = 4 * s * d
    encoder = s * (config.encoder_layers * gated + 2 * linear)
    return encoder, t * (config.decoder_layers * (gated + 2 * linear + attention) + 2 * linear)
