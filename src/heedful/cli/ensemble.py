"""`heedful ensemble`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heedful import bundle as bundles
from heedful.cli.settings import Bundle


def ensemble(
    first: Bundle,
    second: Bundle,
    /,
    *others: Bundle,
    out: Annotated[Path, Parameter(help="Model folder to write")],
) -> None:
    """Put models together into one that translates with the mean of their probabilities.

    They may differ in family and size, and in the seed that they began with, but have to share a vocabulary: train the
    second on the same text with another `--training.seed`. Each step costs as much as all of theirs.
    """
    folders = [first, second, *others]
    bundles.unite(folders, out)
    print(f"{out}: {len(folders)} models as one, {', '.join(folder.name for folder in folders)}")
