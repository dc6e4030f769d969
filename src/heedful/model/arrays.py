"""A model's weights as numpy's arrays, read without torch: what a compiled model is made of.

The file is weights.py's: safetensors, with a checksum of the tensors in it.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from heedful.errors import HeedfulError

Entry = tuple[str, tuple[int, ...], str, Any]  # name, shape, type as torch calls it, bytes
TYPES = {"F32": "torch.float32", "BF16": "torch.bfloat16"}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the weights of a model, and verify them; bfloat16 becomes float32.

    Raises:
        HeedfulError: the file is missing, truncated or altered.
    """
    check_there(path)
    try:
        content = path.read_bytes()
        found = {name: _checked(entry) for name, entry in deserialize(content)}  # type: ignore[no-untyped-call]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # safetensors has found it whole
        expected = header.get("__metadata__", {}).get("sha256")
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from None
    entries = ((name, shape, TYPES[kind], data) for name, (shape, kind, data) in found.items())
    if digest(entries) != expected:
        raise altered(path)
    return {name: _widened(data, kind).reshape(shape) for name, (shape, kind, data) in found.items()}


def _checked(entry: dict[str, Any]) -> tuple[tuple[int, ...], str, bytearray]:
    if entry["dtype"] not in TYPES:
        raise ValueError(f"numbers of type {entry['dtype']}, where a model has {' or '.join(TYPES)}")
    return tuple(entry["shape"]), entry["dtype"], entry["data"]


def _widened(data: bytearray, kind: str) -> np.ndarray:
    if kind == "F32":
        return np.frombuffer(data, dtype=np.float32)
    return (np.frombuffer(data, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


def digest(entries: Iterable[Entry]) -> str:
    """Return the checksum of named tensors."""
    found = sha256()
    for name, shape, kind, data in sorted(entries, key=lambda entry: entry[0]):
        found.update(f"{name} {shape} {kind}".encode())
        found.update(data)
    return found.hexdigest()


def check_there(path: Path) -> None:
    """Refuse a file that is not there.

    Raises:
        HeedfulError: naming it.
    """
    if not path.is_file():
        raise HeedfulError(f"{path}: no such file; train first, or copy the whole model folder")


def damaged(path: Path, error: Exception) -> HeedfulError:
    """Say that a file cannot be read."""
    return HeedfulError(f"{path}: truncated or damaged ({error}); copy it again")


def altered(path: Path) -> HeedfulError:
    """Say that a file holds other numbers than were written."""
    return HeedfulError(f"{path}: altered since it was written (checksum differs); copy it again")


def unfit(path: Path | str, name: str) -> HeedfulError:
    """Say that weights are not those of the model that they are for; `name` is one that is wrong."""
    return HeedfulError(f"{path}: does not fit the model in model.toml ({name}); copy the model folder again")
