"""`heedful align`."""

from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from heedful import bundle as bundles
from heedful import files
from heedful.cli.model import load
from heedful.cli.settings import POSITIVE, Device, Threads
from heedful.decoding import lexicon
from heedful.decoding.forced import agreements
from heedful.errors import HeedfulError
from heedful.text.pairs import Corpus, read_whole_pairs

SHOWN = 5


def align(
    bundle: Annotated[Path, Parameter(help="Model folder")],
    /,
    *,
    source: Annotated[Path, Parameter(help="Sentences that it was trained on, or other ones like them")],
    target: Annotated[Path, Parameter(help="Their translations, line by line")],
    pairs: Annotated[int, Parameter(help="Learn the lexicon from so many of them", validator=POSITIVE)] = 20_000,
    tested: Annotated[int, Parameter(help="Measure agreement on so many of them", validator=POSITIVE)] = 500,
    device: Device = "cpu",
    threads: Threads = 0,
) -> None:
    """Find the attention that aligns words, by how often it agrees with a lexicon, and keep its name in the model.

    The lexicon (IBM model 1) is learned from the pairs alone. Training does the same at its end, where it has
    development data.
    """
    bundles.check_own(bundle)
    translator = load(bundle, device, threads, "float32")
    files.check_writable(bundle)
    read = list(islice(read_whole_pairs(Corpus(source, target)), pairs))
    if not read:
        raise HeedfulError(f"{source}: no pairs in it; give sentences and their translations")
    sources, targets, _ = translator.reader.encode_pairs(*zip(*read, strict=True))
    learned = lexicon.learn(zip(sources, targets, strict=True))
    longest = translator.longest or max(map(len, (*sources, *targets)))
    fitting = [pair for pair in zip(sources, targets, strict=True) if max(map(len, pair)) <= longest][:tested]
    if not fitting:
        raise HeedfulError(f"{source}: every pair is longer than the model's {longest} positions; give shorter ones")
    found = agreements(translator.model, [pair[0] for pair in fitting], [pair[1] for pair in fitting], learned)
    if not found:
        raise HeedfulError(
            f"{bundle}: nothing to choose by: either the model has no attention to the source, or these "
            f"{len(read):,} pairs are too few to learn a lexicon from; give some thousands"
        )
    for name, share in found[:SHOWN]:
        print(f"{name:12s} agrees in {100 * share:.1f} % of the links")
    bundles.keep_alignment(bundle, *found[0])
