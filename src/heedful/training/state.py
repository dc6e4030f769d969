"""Everything that resuming needs, in one object: written as one folder, atomically.

state/step-00001200/         the newest complete state; older ones are removed
    weights.safetensors  optimizer.safetensors  random.safetensors  average.safetensors  state.json
state/checkpoints/           the last n weights, for averaging, and the best
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from heedful import files
from heedful.errors import HeedfulError
from heedful.model.linear import onednn_is_faster
from heedful.model.weights import put_weights, read_weights, weights_of, write_weights
from heedful.native import library
from heedful.training.processes import world_size

STATES = f"step-{'[0-9]' * 8}"  # and nothing behind it, as somebody's own copy has


def name_of(step: int) -> str:
    """Return how a state or a checkpoint of this step is called.

    >>> name_of(1200), step_of(Path("state/step-00001200"))
    ('step-00001200', 1200)
    """
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Return the step of a state or a checkpoint."""
    return int(path.stem.removeprefix("step-"))


@dataclass
class Progress:
    """How far a training has come."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated: int | None = None  # the last step whose evaluation is over; older states were saved after theirs
    judged_by: str = ""  # digest of what it is evaluated on
    best: float | None = None
    best_step: int = 0
    evaluations_without_gain: int = 0
    arithmetic: str = ""  # of what the last bits of a sum depend on: see `arithmetic`
    data: dict[str, int | str] = field(default_factory=dict)


def save_state(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    random: Tensor,
    average: Mapping[str, Tensor],
) -> Path:
    """Write the state of a training under `folder`, and remove older states; return where it stands.

    `random` is [world, bytes]: the random states of all processes. Of a step that is saved already, what is known of
    its evaluation is written anew.
    """
    place = folder / name_of(progress.step)
    if place.exists():
        files.write_text(place / "state.json", json.dumps(asdict(progress)))
    else:
        with files.replacing(place) as aside:
            aside.mkdir()
            write_weights(aside / "weights.safetensors", weights_of(model))
            write_weights(aside / "optimizer.safetensors", _optimizer_tensors(model, optimizer))
            write_weights(aside / "random.safetensors", {"random": random})
            write_weights(aside / "average.safetensors", average)
            files.write_text(aside / "state.json", json.dumps(asdict(progress)))
    for other in folder.glob(STATES):
        if other != place:
            files.remove(other)
    return place


def newest_state(folder: Path) -> Path | None:
    """Return the newest complete state under `folder`, if there is one."""
    return max(folder.glob(STATES), default=None)


def check_processes(place: Path) -> None:
    """Refuse a state that was saved by more or fewer processes than there are now.

    Raises:
        HeedfulError: it was.
    """
    saved = len(read_weights(place / "random.safetensors")["random"])
    if saved != world_size():
        raise HeedfulError(
            f"{place.parent}: saved by {saved} processes, but there are {world_size()} now, and a step would have "
            f"other batches; start as many (torchrun --nproc-per-node), or another training by --start-from"
        )


def read_progress(place: Path) -> Progress:
    """Read how far the training had come that saved the state at `place`.

    Raises:
        HeedfulError: that file of it is missing or damaged.
    """
    try:
        progress = Progress(**json.loads((place / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise HeedfulError(
            f"{place / 'state.json'}: damaged ({error}); begin another training with the weights that "
            f"there are: --start-from {shlex.quote(str(place.parent.parent))} --out NEW"
        ) from None
    if progress.evaluated is None:
        progress.evaluated = progress.step
    return progress


def load_state(
    place: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, Tensor, dict[str, Tensor]]:
    """Put a saved state into model and optimizer; return (progress, random states, exponential average).

    Raises:
        HeedfulError: a file of the state is missing or damaged.
    """
    put_weights(model, read_weights(place / "weights.safetensors"), place)
    _put_optimizer_tensors(model, optimizer, read_weights(place / "optimizer.safetensors"))
    progress = read_progress(place)
    random = read_weights(place / "random.safetensors")["random"]
    device = next(model.parameters()).device
    average = {name: tensor.to(device) for name, tensor in read_weights(place / "average.safetensors").items()}
    return progress, random, average


def arithmetic(device: torch.device) -> str:
    """Return what the last bits of the weights depend on beside the settings: threads, and who computes with what."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kernels = "compiled" if library("training") else "without a compiler"
    products = "oneDNN" if onednn_is_faster() else torch.backends.cpu.get_cpu_capability()
    return f"{torch.get_num_threads()} threads, {kernels}, torch {torch.__version__} ({products})"


def random_state(device: torch.device) -> Tensor:
    """Return the state of the processor's random generator and, behind it, of that of `device` if it is a GPU."""
    own = torch.get_rng_state()  # layer dropout draws from it on a GPU too
    return torch.cat([own, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else own


def restore_random_state(state: Tensor, device: torch.device) -> None:
    """Set the generators to what `random_state` returned; one that it does not tell of goes on from its seed."""
    processor, gpu = state.tensor_split([len(torch.get_rng_state())])
    # copies: torch crashes on bytes that begin in the middle of a tensor, as those of all processes but the first do
    torch.set_rng_state(processor.clone())
    if device.type == "cuda" and len(gpu):
        torch.cuda.set_rng_state(gpu.clone(), device)


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value
    return tensors


def _put_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for entry, tensor in tensors.items():
        name, key = entry.rsplit("/", 1)
        # Adam's count of steps too: in its fused form it stands beside the weights
        optimizer.state[parameters[name]][key] = tensor.to(parameters[name].device)
