"""What a model costs: parameters by part, and FLOPs per token by formula."""

from heedful.model.transformer import TransformerConfig


def parameters(config: TransformerConfig, source_size: int, target_size: int) -> dict[str, int]:
    """Return the number of parameters of each part, counted on paper; a test holds it against the model.

    An attention has W^Q, W^K (d_model x h d_k), W^V, W^O (d_model x h d_v); a feed-forward network two matrices
    and two biases; a layer norm 2 d_model. What is shared counts once.
    """
    d, norm = config.d_model, 2 * config.d_model
    d_k, d_v = config.d_k or d // config.heads, config.d_v or d // config.heads
    attention = 2 * d * config.heads * (d_k + d_v)
    feed_forward = 2 * d * config.d_ff + config.d_ff + d
    stacks = 2 * norm if config.normalization == "pre" else 0
    embeddings = {
        "all": target_size,
        "target": source_size + target_size,
        "none": source_size + 2 * target_size,
    }
    learned = 2 * config.max_positions * d if config.positions == "learned" else 0

    def own(layers: int) -> int:
        return -(-layers // config.tied_layers)

    return {
        "embeddings": embeddings[config.share] * d + learned,
        "encoder": own(config.encoder_layers) * (attention + feed_forward + 2 * norm) + stacks // 2,
        "decoder": own(config.decoder_layers) * (2 * attention + feed_forward + 3 * norm) + stacks // 2,
    }


def forward_flops(
    config: TransformerConfig, target_size: int, source_length: int, target_length: int
) -> dict[str, int]:
    """Return the floating-point operations of one sentence pair's forward pass, by part; training takes thrice that.

    A product of an a x b and a b x c matrix counts 2abc; softmax, norms and sums are left out (under 2 %).
    """
    d = config.d_model
    d_k, d_v = config.d_k or d // config.heads, config.d_v or d // config.heads

    def attention(queries: int, keys: int) -> int:
        project = 2 * d * config.heads * (queries * (d_k + d_v) + keys * (d_k + d_v))
        return project + 2 * queries * keys * config.heads * (d_k + d_v)

    def feed_forward(length: int) -> int:
        return 4 * length * d * config.d_ff

    s, t = source_length, target_length
    return {
        "encoder": config.encoder_layers * (attention(s, s) + feed_forward(s)),
        "decoder": config.decoder_layers * (attention(t, t) + attention(t, s) + feed_forward(t)),
        "output": 2 * t * d * target_size,
    }


def search_flops(
    config: TransformerConfig, target_size: int, source_length: int, target_length: int, width: int
) -> dict[str, int]:
    """Return the floating-point operations of finding one output, `width` hypotheses at each step, by part.

    The source is encoded, and projected to keys and values, once; each symbol of each hypothesis attends to those
    before it.
    """
    d, s, t = config.d_model, source_length, target_length
    heads = config.heads * ((config.d_k or d // config.heads) + (config.d_v or d // config.heads))
    itself = 4 * t * d * heads + t * (t + 1) * heads
    to_memory = 2 * t * d * heads + 2 * t * s * heads
    feed_forward = 4 * t * d * config.d_ff
    encoder = forward_flops(config, target_size, s, 0)["encoder"]
    return {
        "encoder": encoder + config.decoder_layers * 2 * s * d * heads,
        "decoder": width * config.decoder_layers * (itself + to_memory + feed_forward),
        "output": width * 2 * t * d * target_size,
    }
