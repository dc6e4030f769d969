"""The worked example: one sentence through one attention head, every number on the way. (section 3.2)"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.model.recorder import recording
from heedful.model.transformer import EncoderLayer, Transformer
from heedful.translator import Translator

QUESTION = "What does attention compute, step by step, for one sentence of one trained model?"
PAPER = "section 3.2"
MINUTES = (0.1, 0.1)
STEPS = {  # name -> what is computed
    "embedding": "the pieces' embeddings, times sqrt(d_model)  (3.4)",
    "position": "PE(pos, i)  (3.5)",
    "sum": "embedding + position",
    "input": "what the head reads: the sum, normalised where the model is pre-norm",
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


@dataclass(frozen=True)
class Settings:
    """The model folder, the sentence, and the encoder's layer and head that are followed."""

    bundle: str = "en-de"
    text: str = "The cat sleeps on the sofa."
    layer: int = 0
    head: int = 0


QUICK = Settings()


def run(settings: Settings) -> Running:
    """Compute every intermediate from the weights alone, and compare with what the model itself computes."""
    yield f"{settings.text!r} through {settings.bundle}"
    translator = Translator.load(settings.bundle)
    return steps_of(translator, settings.text, settings.layer, settings.head)


@torch.no_grad()
def steps_of(translator: Translator, text: str, layer: int, head: int) -> Table:
    """Return pieces, ids, each step's numbers and shape, and the largest difference from the model's own."""
    model = cast(Transformer, translator.model)
    [ids] = translator.vocabulary.encode_source([text])
    source_1S, lengths_1 = torch.tensor([ids]), torch.tensor([len(ids)])
    own: dict[str, Tensor] = {}
    chosen = cast(EncoderLayer, model.encoder[layer])
    attention, residual = chosen.self_attention, chosen.residuals[0]
    hooks = [
        chosen.register_forward_hook(lambda _m, inputs, _o: own.update(entering=inputs[0][0])),
        attention.output.register_forward_hook(lambda _m, _i, out: own.update(output=out[0])),
    ]
    with recording(model) as maps:
        model.encode(source_1S, lengths_1)
    for hook in hooks:
        hook.remove()
    x: dict[str, Tensor] = {}
    x["embedding"] = model.source_embedding.token.weight[ids] * model.source_embedding.scale
    x["position"] = model.source_embedding.positions(0, len(ids))
    x["sum"] = x["embedding"] + x["position"]
    below = x["sum"] if layer == 0 else own["entering"]
    x["input"] = cast(Tensor, residual.norm(below)) if residual.pre else below  # type: ignore[operator]
    heads, d_k = attention.heads, attention.key.out_features // attention.heads
    d_v = attention.value.out_features // heads
    found = []
    for number in range(heads):
        keys, values = slice(number * d_k, (number + 1) * d_k), slice(number * d_v, (number + 1) * d_v)
        query, key = x["input"] @ attention.query.weight[keys].T, x["input"] @ attention.key.weight[keys].T
        value = x["input"] @ attention.value.weight[values].T
        scaled = query @ key.T / d_k**0.5
        weights = scaled.softmax(-1)
        found.append(weights @ value)
        if number == head:
            x |= {"Q": query, "K": key, "V": value, "scores": query @ key.T, "scaled": scaled, "weights": weights}
            x["head"] = found[-1]
    x["joined"] = torch.cat(found, dim=-1)
    x["output"] = x["joined"] @ attention.output.weight.T
    return {
        "text": text,
        "pieces": translator.vocabulary.pieces(ids, "source"),
        "ids": list(map(int, ids)),
        "layer": layer,
        "number": head,
        "d_k": d_k,
        "steps": {name: {"shape": list(x[name].shape), "numbers": x[name].tolist()} for name in STEPS},
        "differences": {
            "sum": float((below - own["entering"]).abs().max()),
            "weights": float((x["weights"] - maps[f"encoder.{layer}"][0][0, head]).abs().max()),
            "output": float((x["output"] - own["output"]).abs().max()),
        },
    }


def verdict(data: Table) -> Verdict:
    """The numbers are the model's own."""
    worst, weights = max(data["differences"].values()), data["steps"]["weights"]["numbers"]
    row = max(range(len(weights)), key=lambda i: max(weights[i]))
    column = max(range(len(weights)), key=lambda j: weights[row][j])
    return Verdict(
        worst < 1e-4,
        f"computed from the weights alone, every step agrees with the model's own to within {worst:.0e}. In layer "
        f"{data['layer']}, head {data['number']}, '{data['pieces'][row]}' looks at '{data['pieces'][column]}' most: "
        f"{100 * weights[row][column]:.0f} % of its weight.",
    )


def table(data: Table) -> Rows:
    """One row for each step: what, its shape, the first numbers of the first piece."""
    rows = [["step", "is", "shape", f"first numbers, '{data['pieces'][0]}'"]]
    for name, step in data["steps"].items():
        first = ", ".join(f"{value:.3f}" for value in step["numbers"][0][:4])
        rows.append([name, STEPS[name], " x ".join(map(str, step["shape"])), f"{first}, ..."])
    return rows


def draw(data: Table, figure: Any) -> None:
    """The scores, scaled, and what softmax makes of them."""
    pieces = [piece.replace("\u2581", "") for piece in data["pieces"]]
    titles = {"scores": "Q Kᵀ", "scaled": f"Q Kᵀ / √{data['d_k']}", "weights": "softmax"}
    for panel, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        numbers = np.array(data["steps"][name]["numbers"])
        most = 1.0 if name == "weights" else float(np.abs(numbers).max())
        colours = {"cmap": "Blues", "vmin": 0} if name == "weights" else {"cmap": "RdBu_r", "vmin": -most}
        shown = panel.imshow(numbers, vmax=most, **colours)
        panel.set_xticks(range(len(pieces)), pieces, rotation=90)
        panel.set_yticks(range(len(pieces)), pieces)
        panel.set_title(title)
        figure.colorbar(shown, ax=panel, shrink=0.7)
