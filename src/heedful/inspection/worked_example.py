"""The worked example: one sentence through one attention head, every number on the way. (section 3.2)"""

from typing import cast

import torch
from torch import Tensor, nn

from heedful.config import Table
from heedful.errors import HeedfulError
from heedful.model.recorder import recording
from heedful.model.transformer import EncoderLayer, Transformer
from heedful.translator import Translator

STEPS = {  # name -> what is computed
    "embedding": "the pieces' embeddings, times sqrt(d_model)  (3.4)",
    "position": "PE(pos, i)  (3.5), or what was learned, or nothing",
    "sum": "embedding + position",
    "input": "what the head reads: the sum, or what the layer below wrote; normalised where the model is pre-norm",
    "Q": "input W^Q",
    "K": "input W^K",
    "V": "input W^V",
    "scores": "Q K^T",
    "scaled": "scores / sqrt(d_k)",
    "weights": "softmax of the scaled scores: each row adds up to 1  (equation 1)",
    "head": "weights V",
    "joined": "all heads side by side",
    "output": "joined W^O",
}


@torch.no_grad()
def steps_of(translator: Translator, text: str, layer: int, head: int) -> Table:
    """Return pieces, ids, each step's numbers and shape, and the largest difference from the model's own.

    Raises:
        HeedfulError: the model is no Transformer, or has no such layer or head.
    """
    model = translator.model
    if not isinstance(model, Transformer):
        raise HeedfulError("the steps are those of a Transformer's encoder; this model is none")
    if not 0 <= layer < len(model.encoder):
        raise HeedfulError(f"encoder layer {layer}: there are {len(model.encoder)}, from 0")
    if not 0 <= head < cast(EncoderLayer, model.encoder[0]).self_attention.heads:
        raise HeedfulError(
            f"head {head}: a layer has {cast(EncoderLayer, model.encoder[0]).self_attention.heads}, from 0"
        )
    [ids], _ = translator.reader.encode([text])
    source_1S, lengths_1 = (torch.tensor(each, device=translator.device) for each in ([ids], [len(ids)]))
    began: list[Tensor] = []
    entered: list[Tensor] = []
    left: list[Tensor] = []
    chosen = cast(EncoderLayer, model.encoder[layer])
    use = layer - list(model.encoder).index(chosen)  # layers that share their weights are one module, run again
    attention, residual = chosen.self_attention, chosen.residuals[0]
    turned = ", turned by its position  (Su et al. 2021)" if attention.rotation is not None else ""
    hooks = [
        model.encoder[0].register_forward_hook(lambda _m, inputs, _o: began.append(inputs[0][0])),
        chosen.register_forward_hook(lambda _m, inputs, _o: entered.append(inputs[0][0])),
        attention.output.register_forward_hook(lambda _m, _i, out: left.append(out[0])),
    ]
    with recording(model) as maps:
        model.encode(source_1S, lengths_1)
    for hook in hooks:
        hook.remove()
    x: dict[str, Tensor] = {}
    x["embedding"] = model.source_embedding.token.weight[ids] * model.source_embedding.scale
    x["position"] = model.source_embedding.positions(0, len(ids))
    x["sum"] = x["embedding"] + x["position"]
    below = x["sum"] if layer == 0 else entered[use]
    x["input"] = cast(Tensor, residual.norm(below)) if residual.pre else below  # type: ignore[operator]

    def by_head(projection: nn.Linear) -> Tensor:  # [H, S, K]
        return (x["input"] @ projection.weight.T).view(len(ids), attention.heads, -1).transpose(0, 1)

    query_HSK, key_HSK, value_HSK = map(by_head, (attention.query, attention.key, attention.value))
    if attention.rotation is not None:
        query_HSK, key_HSK = map(attention.rotation, (query_HSK, key_HSK))
    scores_HSS = query_HSK @ key_HSK.mT
    scaled_HSS = scores_HSS / query_HSK.size(-1) ** 0.5
    weights_HSS = scaled_HSS.softmax(-1)
    heads_HSK = weights_HSS @ value_HSK
    every = (query_HSK, key_HSK, value_HSK, scores_HSS, scaled_HSS, weights_HSS, heads_HSK)
    names = ("Q", "K", "V", "scores", "scaled", "weights", "head")
    x |= {name: each[head] for name, each in zip(names, every, strict=True)}
    x["joined"] = heads_HSK.transpose(0, 1).flatten(1)
    x["output"] = x["joined"] @ attention.output.weight.T
    return {
        "text": text,
        "pieces": translator.vocabulary.pieces(ids, "source"),
        "ids": list(map(int, ids)),
        "layer": layer,
        "number": head,
        "d_k": query_HSK.size(-1),
        "steps": {
            name: {
                "is": what + (turned if name in ("Q", "K") else ""),
                "shape": list(x[name].shape),
                "numbers": x[name].tolist(),
            }
            for name, what in STEPS.items()
        },
        "differences": {
            "sum": float((x["sum"] - began[0]).abs().max()),
            "weights": float((x["weights"] - maps[f"encoder.{layer}"][0][0, head]).abs().max()),
            "output": float((x["output"] - left[use]).abs().max()),
        },
    }
