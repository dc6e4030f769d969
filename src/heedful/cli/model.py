"""A model as commands take it: loaded, and with the search that flags ask for."""

from functools import cache
from pathlib import Path

from heedful import native
from heedful.cli.terminal import terminal
from heedful.config import Table, from_table, merge, refuse_unread, to_table
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.model.compiled import multiplies
from heedful.model.settings import Weights
from heedful.threads import set_threads
from heedful.translator import Translator


def load(
    folder: Path, device: str, threads: int, weights: Weights = "float32", reverse: Path | None = None
) -> Translator:
    """Load a bundle, with one of the other direction if there is one, and set the threads that they compute with.

    Raises:
        HeedfulError: there is no such device here, bfloat16 is wanted where it would be slower, or the other bundle is
            not of the other direction.
    """
    if threads:
        set_threads(threads)
    translator = Translator.load(folder, device, weights)
    if weights == "bfloat16" and (device != "cpu" or not multiplies(weights)):
        _check_bfloat16(device)
    return translator.with_reverse(Translator.load(reverse, device)) if reverse else translator


def _check_bfloat16(device: str) -> None:
    import torch

    from heedful.model.linear import has_native_bfloat16

    if not has_native_bfloat16(torch.device(device)):
        raise HeedfulError(f"{device} here has no bfloat16 products: leave --weights out, float32 is faster")


def say_if_slow(translator: Translator) -> None:
    """Say, once, that searching takes longer here than it needs to, and why; not where compiling is not wanted."""
    if translator.compiled or translator.weights != "float32" or not native.is_wanted():
        return  # other weights are refused where nothing is compiled
    could_be = any(config.family == "transformer" for config in translator.configs)
    if could_be and translator.device.type == "cpu" and not native.library("search"):
        _say_slow(native.lacking("search"))


@cache
def _say_slow(why: str) -> None:
    said = f"heedful: translating without compiled steps takes longer: {why}"
    terminal(stderr=True).print(said, markup=False, soft_wrap=True)


def search_of(translator: Translator, changes: Table) -> SearchConfig:
    """Return the search of a model, with what was given on the command line laid over it.

    Asking for more outputs than the beam holds widens the beam, to 4 at least.

    Raises:
        HeedfulError: a setting that cannot be.
    """
    own, wanted = to_table(translator.search), changes.get("n_best", 1)
    if wanted > 1 and not changes.get("sample", translator.search.sample):
        own["beam"] = max(wanted, own["beam"], 4)
    config = from_table(SearchConfig, merge(own, changes), "search")
    config.check()
    if config.sample and "beam" in changes:
        remedy = "leave one of them out" if "sample" in changes else "add --no-sample, as this model is set to draw"
        raise HeedfulError(f"--sample draws at random and --beam looks for the best: {remedy}")
    refuse_unread(config, [changes], SearchConfig(), "search")
    if "reverse_weight" in changes and not translator.reverse:
        raise HeedfulError(
            "--reverse-weight is for a model of the other direction: give --reverse to translate or evaluate"
        )
    return config
