"""`heedful average`."""

import shutil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heedful import bundle as bundles
from heedful import files
from heedful.cli.settings import POSITIVE
from heedful.errors import HeedfulError
from heedful.model.weights import read_weights, write_weights
from heedful.training.average import average_files
from heedful.training.loop import last_checkpoints


def average(
    bundle: Annotated[Path, Parameter(help="Model folder of a training run")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Model folder to write")],
    last: Annotated[
        int | None, Parameter(help="Average so many last checkpoints (default: 5)", validator=POSITIVE)
    ] = None,
    weights: Annotated[tuple[Path, ...], Parameter(help="Average these weight files instead", negative=())] = (),
) -> None:
    """Average checkpoints into a new model folder (section 6.1)."""
    bundle = bundles.locate(bundle)
    bundles.read_manifest(bundle)
    if weights and last:
        raise HeedfulError("either --weights names what to average or --last counts it: leave one of them out")
    chosen = list(weights) or last_checkpoints(bundle / "state" / "checkpoints", last or 5)
    if not chosen:
        raise HeedfulError(f"{bundle}: no checkpoints in its state folder; give weight files with --weights")
    if out.exists():
        raise HeedfulError(f"{out}: exists already; give another --out")
    mean = average_files(chosen)
    own = read_weights(bundle / bundles.WEIGHTS)
    if {name: tensor.shape for name, tensor in mean.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise HeedfulError(f"{chosen[0]}: not weights of the model in {bundle}; give that model's folder")
    with files.replacing(out) as aside:
        aside.mkdir()
        others = (bundles.WEIGHTS, "README.md", "log.jsonl")  # card and log tell scores that these weights do not have
        for file in bundle.iterdir():
            if file.is_file() and file.name not in others and not file.name.startswith("."):
                shutil.copyfile(file, aside / file.name)
        write_weights(aside / bundles.WEIGHTS, mean)
        if alignment := bundles.read_manifest(aside).get("alignment"):  # whose agreement was that of other weights
            bundles.amend(aside, alignment={"attention": alignment["attention"]})
    print(f"{out}: the mean of {len(chosen)} checkpoints, {chosen[0].stem} to {chosen[-1].stem}")
