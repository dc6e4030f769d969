"""The folder of a run, around its training: taken, begun, gone back to."""

import os
import platform
import shlex
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import tomli_w
import torch

from heedful import bundle, files
from heedful.config import Table, from_table, read_toml, to_table
from heedful.errors import HeedfulError
from heedful.recipe import Recipe, check_changeable, check_rate, other_state
from heedful.text.vocabulary import JOINT, SIDES, Vocabulary
from heedful.training.processes import rank
from heedful.training.state import newest_state

WRITTEN = ("state", "recipe.toml", "log.jsonl", "README.md")  # after model.toml


def claimed(folder: Path) -> AbstractContextManager[None]:
    """Keep other runs out of the folder; the first process does so for all of a run."""
    return files.claimed(folder) if rank() == 0 else nullcontext()


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left aside."""
    for place in (folder, folder / "state", folder / "state" / "checkpoints"):
        files.remove_leftovers(place, *WRITTEN, "model.toml", "vocabulary*.model", "*.safetensors", "step-*")
        for aside in place.glob(".tmp??????"):  # safetensors writes beside what we write aside
            files.remove(aside)


def check_free(folder: Path) -> None:
    """Refuse to train over a model, or over files of somebody else.

    Of a run that ended before its first checkpoint there is nothing to lose: another one may take its place.
    """
    if newest_state(folder / "state") or (folder / bundle.WEIGHTS).exists():
        raise HeedfulError(
            f"{folder}: there is a model already; go on with `heedful train --resume {shlex.quote(str(folder))}`, or "
            f"give another --out"
        )
    there = [name for name in ("model.toml", *WRITTEN, JOINT, *SIDES.values()) if (folder / name).exists()]
    if there and not _is_ours(folder / "model.toml"):
        raise HeedfulError(f"{folder}: {there[0]} there is not of a training; give another --out")


def _is_ours(manifest: Path) -> bool:
    """Return whether a model.toml is one that a training wrote: others call files so, too."""
    with suppress(HeedfulError):
        return {"format", "checksums"} <= read_toml(manifest).keys()
    return False


def check_names(folder: Path, recipe: Recipe) -> None:
    """Refuse names that cannot stand in the recipe or on the model card, which are UTF-8."""
    for line in (str(folder.absolute()), *tomli_w.dumps(to_table(recipe)).splitlines()):
        said = line.encode("utf-8", "backslashreplace").decode()
        if said != line:
            raise HeedfulError(f"{said}: a name that is not UTF-8; rename it")


def start(folder: Path, recipe: Recipe, vocabulary: Vocabulary) -> None:
    """Write all that stands in the folder before the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    # of a run that was killed before it could be resumed: its checkpoints, and what it would be resumed with
    for name in ("recipe.toml", "state"):
        files.remove(folder / name)
    provenance = {
        "heedful": version("heedful"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if recipe.start_from:
        provenance["start_from"] = recipe.start_from.name
    if attribution := _attribution(recipe):
        provenance["data"] = attribution
    bundle.create(
        folder,
        to_table(recipe.model),
        vocabulary,
        to_table(recipe.search),
        provenance,
        languages=recipe.data.languages,
        capitals=recipe.data.capitals,
    )
    write_recipe(folder, recipe)
    files.write_text(folder / "log.jsonl", "")


def _attribution(recipe: Recipe) -> str:
    """Return whose text it is, and whose that of the model was which it begins with.

    Raises:
        HeedfulError: that model is not there.
    """
    begun = bundle.read_manifest(recipe.start_from)["provenance"].get("data") if recipe.start_from else None
    return " ".join(dict.fromkeys(filter(None, (recipe.data.attribution, begun))))


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe, and a copy that nobody edits beside the states that are saved by it."""
    for place in (folder, folder / "state"):
        files.write_text(place / "recipe.toml", tomli_w.dumps(to_table(recipe)))


def refuse_edits(folder: Path, recipe: Recipe, *, saved: bool) -> Table:
    """Refuse edits of recipe.toml that the model or its saved state do not fit; return the recipe before any edit."""
    kept = folder / "state" / "recipe.toml"
    now = to_table(recipe)
    before = to_table(from_table(Recipe, read_toml(kept), str(kept))) if kept.is_file() else now  # older ones kept none
    if changed := other_state(before, now, saved=saved):
        raise HeedfulError(
            f"{folder / 'recipe.toml'}: {', '.join(changed)} changed since the training began, which cannot go on so; "
            f"put back what is in {kept}, or begin another training in a new folder"
        )
    check_changeable(recipe, str(folder / "recipe.toml"))
    edited = {name: value for name, value in now["training"].items() if value != before["training"][name]}
    check_rate(recipe.training, [before, {"training": edited}], str(folder / "recipe.toml"))
    return before


def take_edits(folder: Path, recipe: Recipe, before: Table) -> None:
    """Let what was edited in recipe.toml count in model.toml too, and nothing else: `configure` may have changed it."""
    now = to_table(recipe)
    if before == now:
        return
    said = {name: now["data"][name] for name in ("languages", "capitals") if now["data"][name] != before["data"][name]}
    if recipe.data.attribution != before["data"]["attribution"]:
        provenance = bundle.read_manifest(folder)["provenance"]
        try:
            provenance["data"] = _attribution(recipe)
        except HeedfulError:  # the model that it began with is gone: all that was said stays
            provenance["data"] = " ".join(filter(None, (recipe.data.attribution, provenance.get("data"))))
        said["provenance"] = {name: value for name, value in provenance.items() if value}
    if now["model"] != before["model"]:  # in dropouts alone: see `refuse_edits`
        said["model"] = now["model"]
    search = {name: value for name, value in now["search"].items() if value != before["search"][name]}
    if search:
        said["search"] = bundle.read_manifest(folder)["search"] | search
    bundle.amend(folder, **said)
    write_recipe(folder, recipe)
