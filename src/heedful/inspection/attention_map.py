"""A small map of attention for the terminal: rows look at columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from rich.text import Text

SHADES = " ░▒▓█"


def draw_map(weights_TS: Float[np.ndarray, "T S"], source: Sequence[str], target: Sequence[str]) -> Text:
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
