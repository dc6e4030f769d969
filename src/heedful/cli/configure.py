"""`heedful configure`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from heedful import bundle as bundles
from heedful.cli.settings import SearchFlags, given
from heedful.config import from_table, merge, to_table
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError
from heedful.text.corpus import check_languages


def configure(
    bundle: Annotated[Path, Parameter(help="Model folder")],
    /,
    *,
    languages: Annotated[
        tuple[str, ...], Parameter(help="Codes of the source and the target language", negative=())
    ] = (),
    search: Annotated[SearchFlags | None, Parameter(name="*")] = None,
) -> None:
    """Change what a finished model says of itself: its languages, and how it searches unless asked otherwise.

    The weights stay as they are. A length penalty that was chosen on development text belongs here.
    """
    changes = given(search)
    if not (languages or changes):
        raise HeedfulError("nothing to change: give --languages en --languages de, or settings of search, as --beam 5")
    bundles.check_own(bundle)
    manifest = bundles.read_manifest(bundle)
    entries: dict[str, Any] = {}
    if languages:
        check_languages(languages)
        entries["languages"] = list(languages)
    if changes:
        config = from_table(SearchConfig, merge(manifest.get("search", {}), changes), "search")
        config.check()
        entries["search"] = to_table(config)
    bundles.amend(bundle, **entries)
    told = {"languages": " to ".join(languages)} if languages else {}
    print(f"{bundle}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (told | changes).items()))
