"""A small map of attention for the terminal: rows look at columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from rich.cells import cell_len
from rich.text import Text

SHADES = " ░▒▓█"


def draw_map(weights_TS: Float[np.ndarray, "T S"], source: Sequence[str], target: Sequence[str]) -> Text:
    """Draw weights as shaded cells, source along the top, target down the side, each row scaled to its largest.

    Cells are shades of characters, so that the map reads without colours too.
    """
    width = max(3, *(cell_len(piece) + 1 for piece in source))
    side = max(map(cell_len, target), default=1)
    text = Text(" " * (side + 2) + "".join(_centred(piece, width) for piece in source) + "\n", style="bold")
    for piece, weights in zip(target, weights_TS.tolist(), strict=True):
        text.append(" " * (side - cell_len(piece)) + piece + "  ", style="bold")
        highest = max(weights)
        for weight in weights:
            shade = SHADES[round(weight / highest * (len(SHADES) - 1))] if highest > 0 else SHADES[0]
            text.append(shade * (width - 1) + " ", style="cyan")
        text.append("\n")
    return text


def _centred(piece: str, width: int) -> str:
    """Return a piece in the middle of so many cells; a Chinese character takes two."""
    return piece.center(width - cell_len(piece) + len(piece))
