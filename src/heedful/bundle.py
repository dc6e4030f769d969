"""The model folder ("bundle"): complete, portable, verified on loading. Nothing in it is pickled.

    model.toml            format, family and sizes, search defaults, provenance, checksums
    vocabulary.model      sentencepiece (or one file for each side)
    weights.safetensors   what translates; carries the checksum of its own tensors
    recipe.toml           the whole effective recipe, to train again
    log.jsonl             a record per event of the training
    README.md             model card
    state/                only for resuming and averaging

Every file is replaced atomically and verifies itself, so that a run killed between two writes leaves a bundle
that loads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from heedful import files
from heedful.config import Table, from_table, read_toml
from heedful.errors import HeedfulError
from heedful.model.arrays import read_arrays
from heedful.model.compiled import Compiled, multiplies
from heedful.model.settings import ModelConfig, Weights
from heedful.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from heedful.model.encoder_decoder import EncoderDecoder

FORMAT, ENSEMBLE = 1, 2  # an ensemble has a format of its own: older versions refuse it, and read all else
WEIGHTS = "weights.safetensors"
BOX = Path(__file__).with_name("models")  # the models that come with heedful


@dataclass(eq=False)
class Bundle:
    """A model folder that was read: what becomes a model when it is asked for, one for torch or a compiled one."""

    folder: Path
    manifest: Table
    vocabulary: Vocabulary
    configs: list[ModelConfig]  # one, or one for each member of an ensemble
    arrays: dict[str, np.ndarray] = field(repr=False)  # the weights, until they are those of `model`
    device: "str | torch.device" = "cpu"
    _compiled: dict[Weights, Compiled] = field(default_factory=dict[Weights, Compiled], repr=False)

    @cached_property
    def model(self) -> "EncoderDecoder":
        """The model as torch computes it: in evaluation mode, on `device`.

        Raises:
            HeedfulError: the weights are not those of such a model.
        """
        import torch

        from heedful.model.ensemble import Ensemble
        from heedful.model.family import build_model
        from heedful.model.weights import put_weights

        models = [build_model(config, *self.vocabulary.sizes) for config in self.configs]
        model = Ensemble(models) if self.manifest["format"] == ENSEMBLE else models[0]
        put_weights(model, {name: torch.from_numpy(each) for name, each in self.arrays.items()}, self.folder / WEIGHTS)
        self.arrays = {}
        return model.to(self.device).eval()

    def compiled(self, weights: Weights = "float32") -> Compiled | None:
        """Return the model ready to translate with; None where it is no Transformer, or this no processor for it.

        Raises:
            HeedfulError: the weights are not those of such a model.
        """
        alone = [config.family for config in self.configs] == ["transformer"]
        if not (alone and str(self.device).partition(":")[0] == "cpu" and multiplies(weights)):
            return None
        if weights not in self._compiled:
            self._compiled[weights] = Compiled(
                self.configs[0], self.vocabulary.sizes, self._arrays(), weights, self.folder / WEIGHTS
            )
        return self._compiled[weights]

    def _arrays(self) -> dict[str, np.ndarray]:
        if self.arrays:
            return self.arrays
        from heedful.model.weights import weights_of

        return {name: tensor.numpy() for name, tensor in weights_of(self.model).items()}


def locate(name: Path | str) -> Path:
    """Return the folder at this path, or, where that is no model, that of the model in the box of this name."""
    place, boxed = Path(name), BOX / name
    return boxed if (boxed / "model.toml").is_file() and not (place / "model.toml").is_file() else place


def check_own(name: Path | str) -> None:
    """Refuse a model in the box, which many may share, where a folder is about to be changed.

    Raises:
        HeedfulError: naming the folder to copy.
    """
    if (place := locate(name).resolve()).is_relative_to(BOX.resolve()):
        raise HeedfulError(f"{name}: a model in the box stays as it is; copy {place}, and change the copy")


def create(
    folder: Path,
    config: Table,
    vocabulary: Vocabulary,
    search: Table,
    provenance: Table,
    *,
    languages: Sequence[str] = (),
    capitals: bool = False,
) -> None:
    """Write all of a new bundle but its weights: vocabulary and model.toml."""
    manifest: Table = {
        "format": FORMAT,
        "family": config["family"],
        "languages": list(languages),
        "capitals": capitals,
        "symbols": dict(zip(("source", "target"), vocabulary.sizes, strict=True)),
        "model": config,
        "search": search,
        "provenance": provenance,
        "checksums": {name: sha256_of(content).hexdigest() for name, content in vocabulary.files().items()},
    }
    _write_manifest(folder, manifest)  # first, so that a vocabulary without one is known to be somebody else's
    vocabulary.save(folder)


def unite(folders: Sequence[Path], out: Path) -> None:
    """Write a bundle that translates with the mean of several ones' probabilities; search settings are the first's.

    Raises:
        HeedfulError: there is something at `out`, or the models differ in vocabulary, languages or capitals.
    """
    from heedful.model.weights import read_weights, write_weights

    if out.exists():
        raise HeedfulError(f"{out}: exists already; give another --out")
    manifests = [read_manifest(folder) for folder in folders]
    first, vocabulary = manifests[0], Vocabulary.load(folders[0])
    _refuse_strangers(folders, manifests, vocabulary)
    tensors: dict[str, Tensor] = {}
    members: list[Table] = []
    for folder, manifest in zip(folders, manifests, strict=True):
        for name, tensor in read_weights(folder / WEIGHTS).items():
            place, own = _place(name) if manifest["format"] == ENSEMBLE else (0, name)
            tensors[f"members.{len(members) + place}.{own}"] = tensor
        members += _members(manifest)
    data = dict.fromkeys(m["provenance"]["data"] for m in manifests if "data" in m["provenance"])
    with files.replacing(out) as aside:
        aside.mkdir()
        vocabulary.save(aside)
        write_weights(aside / WEIGHTS, tensors)
        united: Table = {
            "format": ENSEMBLE,
            "family": "ensemble",
            "languages": first.get("languages", []),
            "capitals": first.get("capitals", False),
            **{key: first[key] for key in ("symbols", "search")},
            "members": members,
            "provenance": {"members": [folder.name for folder in folders]},
            "checksums": {name: files.sha256(aside / name) for name in vocabulary.files()},
        }
        if data:
            united["provenance"]["data"] = " ".join(data)
        seen = next((m for m in manifests if any(one.get("family") != "lstm" for one in _members(m))), first)
        if "alignment" in seen:  # found for the attention that an ensemble shows: that of the first member that has any
            united["alignment"] = seen["alignment"]
        _write_manifest(aside, united)


def _refuse_strangers(folders: Sequence[Path], manifests: Sequence[Table], vocabulary: Vocabulary) -> None:
    """Refuse models that do not read and write as the first does."""
    first = manifests[0]
    for folder, manifest in zip(folders, manifests, strict=True):
        if Vocabulary.load(folder).files() != vocabulary.files():
            raise HeedfulError(
                f"{folder}: its vocabulary is not that of {folders[0]}; train both on the same text with the same "
                f"vocabulary settings"
            )
        ours, theirs = first.get("languages", []), manifest.get("languages", [])
        if ours != theirs and ours and theirs:
            raise HeedfulError(f"{folder}: translates between other languages than {folders[0]}; leave it out")
        if ours != theirs:
            raise HeedfulError(
                f"{folder if ours else folders[0]}: does not say between which languages, as "
                f"{folders[0] if ours else folder} does; tell it (`heedful configure MODEL --languages ...`)"
            )
        if manifest.get("capitals", False) != first.get("capitals", False):
            raise HeedfulError(f"{folder}: reads capitals otherwise than {folders[0]} (data.capitals); leave it out")


def keep_alignment(folder: Path, attention: str, agreement: float) -> None:
    """Note in model.toml which attention aligns words, and the share of links in which it agreed."""
    amend(folder, alignment={"attention": attention, "agreement": round(agreement, 3)})


def amend(folder: Path, **entries: Any) -> None:
    """Change entries of model.toml: what a model says of itself, not its sizes."""
    _write_manifest(folder, read_manifest(folder) | entries)


def _write_manifest(folder: Path, manifest: Table) -> None:
    """Write model.toml with the checksum of all that stands in it."""
    manifest["checksums"].pop("model.toml", None)
    manifest["checksums"]["model.toml"] = _digest_of_table(manifest)
    files.write_text(folder / "model.toml", tomli_w.dumps(manifest))


def read_manifest(folder: Path) -> Table:
    """Read and verify model.toml and the vocabulary's checksums.

    Raises:
        HeedfulError: not a bundle, written by a newer heedful, or altered.
    """
    if not (folder / "model.toml").is_file():
        raise HeedfulError(
            f"{folder}: not a model folder (no model.toml in it); give the folder that `train` wrote, or one of the "
            f"models in the box: {', '.join(sorted(place.parent.name for place in BOX.glob('*/model.toml')))}"
        )
    manifest = read_toml(folder / "model.toml")
    if not isinstance(manifest.get("format"), int):
        raise HeedfulError(f"{folder / 'model.toml'}: altered since it was written; copy the model folder again")
    if manifest["format"] > ENSEMBLE:
        raise HeedfulError(f"{folder}: written by a newer heedful (format {manifest['format']}); upgrade heedful")
    checksums = dict(manifest.get("checksums", {}))
    own = checksums.pop("model.toml", None)
    if own != _digest_of_table({**manifest, "checksums": checksums}):
        raise HeedfulError(f"{folder / 'model.toml'}: altered since it was written; copy the model folder again")
    for name, expected in checksums.items():
        if not (folder / name).is_file() or files.sha256(folder / name) != expected:
            raise HeedfulError(f"{folder / name}: missing or altered since it was written; copy the model folder again")
    return manifest


def load(folder: Path, device: "str | torch.device" = "cpu") -> Bundle:
    """Read a bundle, to use its model on `device`; torch is not imported for it where that is the processor.

    Raises:
        HeedfulError: a file is missing, truncated or altered, with its name, or there is no such device here.
    """
    if str(device) != "cpu":
        _check_device(device)
    manifest = read_manifest(folder)
    configs, arrays = model_configs(folder, manifest), read_arrays(folder / WEIGHTS)
    return Bundle(folder, manifest, Vocabulary.load(folder), configs, arrays, device)


def _check_device(device: "str | torch.device") -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise HeedfulError(f"device {device}: not to be had here ({reason}); cpu always is") from None


def model_configs(folder: Path, manifest: Table) -> list[ModelConfig]:
    """Return the sizes of the model in `folder`: one, or one for each member of an ensemble."""
    return [from_table(ModelConfig, table, str(folder / "model.toml")) for table in _members(manifest)]


def _members(manifest: Table) -> list[Table]:
    members: list[Table] = manifest["members"] if manifest["format"] == ENSEMBLE else [manifest["model"]]
    return members


def _place(name: str) -> tuple[int, str]:
    """Split the name of a parameter of an ensemble into the member's number and its own name."""
    _, number, own = name.split(".", 2)
    return int(number), own


def _digest_of_table(table: Mapping[str, Any]) -> str:
    return sha256_of(json.dumps(table, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
