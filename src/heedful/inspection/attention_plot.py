"""One translation's attention as a picture, PNG or SVG by the file's ending: a panel for each layer and head."""

from pathlib import Path

from heedful import files
from heedful.decoding.explanation import Explanation
from heedful.errors import HeedfulError

ENDINGS = (".png", ".svg", ".pdf")
MOST_PIXELS = 50_000_000  # a long sentence and many heads would be gigabytes at full sharpness


def plot_attention(explanation: Explanation, kind: str, path: Path) -> None:
    """Draw all layers (rows) and heads (columns) of "encoder", "decoder" or "cross" into `path`.

    Raises:
        HeedfulError: matplotlib is not installed, the ending is unknown, or the model has no such attention.
    """
    layers = [weights for name, weights in explanation.attention.items() if name.startswith(f"{kind}.")]
    if not layers:
        raise HeedfulError(f"this model has no {kind} attention to draw")
    if path.suffix not in ENDINGS:
        raise HeedfulError(f"{path}: unknown kind of picture; end the name with one of {', '.join(ENDINGS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise HeedfulError("pictures need matplotlib: pip install 'heedful[plots]'") from None
    rows, columns = explanation.axes(kind)
    heads = layers[0].shape[0]
    side = 0.9 + 0.17 * max(len(rows), len(columns))
    figure = Figure(figsize=(heads * side, len(layers) * side + 0.4), layout="constrained")
    panels = figure.subplots(len(layers), heads, squeeze=False)
    for layer, weights_HLM in enumerate(layers):
        for head, weights_LM in enumerate(weights_HLM):
            panel = panels[layer][head]
            panel.imshow(weights_LM, vmin=0, vmax=1, cmap="Blues")
            panel.set_title(f"layer {layer}, head {head}", fontsize=8)
            panel.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6, parse_math=False)
            panel.set_yticks(range(len(rows)), rows, fontsize=6, parse_math=False)
            panel.tick_params(length=0)
    figure.suptitle(f"{kind} attention: what each row looks at, from 0 (white) to 1 (blue)", fontsize=9)
    width, height = figure.get_size_inches()
    sharp = min(150.0, (MOST_PIXELS / (width * height)) ** 0.5)
    with files.replacing(path) as aside:
        figure.savefig(aside, dpi=sharp, format=path.suffix[1:])
