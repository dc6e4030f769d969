"""A small map of attention for the terminal: rows look at columns."""

from collections.abc import Sequence

from jaxtyping import Float
from rich.text import Text
from torch import Tensor

from heedful.data.batches import batch_of
from heedful.model.recorder import recording
from heedful.translator import Translator, alignment_weights

SHADES = " ░▒▓█"


def cross_attention(translator: Translator, source: str, target_ids: list[int]) -> Float[Tensor, "T S"]:
    """Return how much each target piece attends to each source piece: the mean over heads of the last layer but one."""
    import torch

    ids = translator.vocabulary.encode_source([source])[0]
    batch = batch_of([ids], [target_ids]).to(translator.device)
    with torch.inference_mode(), recording(translator.model) as maps:
        translator.model.decode(batch.target_in_BT, translator.model.encode(batch.source_BS, batch.source_lengths_B))
    weights_TS = alignment_weights(maps, 0)
    assert weights_TS is not None, "the demo trains a Transformer"
    return weights_TS


def draw_map(weights_TS: Float[Tensor, "T S"], source: Sequence[str], target: Sequence[str]) -> Text:
    """Draw weights as shaded cells, source along the top, target down the side, each row scaled to its largest.

    Cells are shades of characters, so that the map reads without colours too.
    """
    width = max(3, *(len(piece) + 1 for piece in source))
    side = max((len(piece) for piece in target), default=1)
    text = Text(" " * (side + 2) + "".join(piece.center(width) for piece in source) + "\n", style="bold")
    for piece, weights in zip(target, weights_TS.tolist(), strict=True):
        text.append(piece.rjust(side) + "  ", style="bold")
        highest = max(weights)
        for weight in weights:
            shade = SHADES[round(weight / highest * (len(SHADES) - 1))] if highest > 0 else SHADES[0]
            text.append(shade * (width - 1) + " ", style="cyan")
        text.append("\n")
    return text
