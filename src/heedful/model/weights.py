"""A model's weights as torch's tensors: on disk, and in the model. arrays.py reads the same files without torch."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from heedful import files
from heedful.errors import HeedfulError
from heedful.model.arrays import altered, check_there, damaged, digest, unfit


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters themselves, not copies, by name; a tied one stands once, under its first name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Copy weights into the model's parameters.

    Raises:
        HeedfulError: names or shapes differ from the model's; `source` names the file.
    """
    parameters = dict(model.named_parameters())
    wrong = sorted(parameters.keys() ^ weights.keys()) or [
        name for name, parameter in parameters.items() if parameter.shape != weights[name].shape
    ]
    if wrong:
        raise unfit(source, wrong[0])
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with their checksum, atomically.

    Raises:
        HeedfulError: there is no room, or no permission.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.replacing(path) as aside:
        try:
            save_file(plain, aside, metadata={"sha256": _digest(plain)})
        except SafetensorError as error:
            raise HeedfulError(f"{path}: cannot be written ({error}); make room, or choose another place") from None
        with suppress(OSError):  # some drives know no permissions
            aside.chmod(0o644)  # safetensors makes files that only their owner can read


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors that `write_weights` wrote, and verify them.

    Raises:
        HeedfulError: the file is missing, truncated or altered.
    """
    check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            # copies: what is read is else a view of the file, whose folder cannot be removed then on NFS and Windows
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from None
    if _digest(tensors) != expected:
        raise altered(path)
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return digest(
        (name, tuple(tensor.shape), str(tensor.dtype), tensor.reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
    )
