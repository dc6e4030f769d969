"""What do residual connections and normalisation do for deep stacks, and for positions? (section 3.1)"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn

from heedful.config import Table
from heedful.lab.experiment import Rows, Running, Verdict
from heedful.model.settings import ModelConfig
from heedful.model.transformer import DecoderLayer, EncoderLayer, Residual, Transformer

QUESTION = "What do the residual connections do: for gradients in deep stacks, and for the positions that enter below?"
PAPER = "section 3.1"
MINUTES = (0.1, 0.1)
NEEDS: tuple[str, ...] = ()
KINDS = {  # name -> (residual connections, layer norm)
    "pre-norm": (True, "pre"),
    "post-norm": (True, "post"),
    "no residuals": (False, "post"),
    "no residuals, pre-norm": (False, "pre"),
}


@dataclass(frozen=True)
class Settings:
    """Depth and width of the stacks, and how many random sequences they read."""

    layers: int = 24
    d_model: int = 64
    length: int = 24
    sequences: int = 64
    repeats: int = 3


QUICK = Settings(repeats=1)


def run(settings: Settings) -> Running:
    """Measure gradients by layer, and how well a linear probe reads positions, before any training."""
    found: dict[str, Table] = {}
    for kind, (residuals, norm) in KINDS.items():
        yield kind
        runs = [_measure(residuals, norm, settings, seed) for seed in range(1, settings.repeats + 1)]
        found[kind] = {key: [one[key] for one in runs] for key in ("gradient", "position")}
    model = Transformer(_config(1, 16, "post"), 8, 8)
    layers = [cast(EncoderLayer, model.encoder[0]), cast(DecoderLayer, model.decoder[0])]
    return {"kinds": found, "connections": [len(cast(nn.ModuleList, layer.residuals)) for layer in layers]}


def verdict(data: Table) -> Verdict:
    """The claim: without residual connections gradients and positions do not get through a deep stack."""
    ratio, position = {}, {}
    for kind, found in data["kinds"].items():
        ratio[kind] = fmean([run[0] / run[-1] for run in found["gradient"]])
        position[kind] = fmean([run[-1] for run in found["position"]])
    depth = len(data["kinds"]["pre-norm"]["gradient"][0])
    without = [kind for kind, (residuals, _) in KINDS.items() if not residuals and kind in data["kinds"]]
    lost = max(ratio[kind] for kind in without) < 0.1 * min(ratio["pre-norm"], 1.0)
    carried = position["pre-norm"] > max(position[kind] for kind in without) + 0.2
    told = ", ".join(f"{kind} {value:.2g}" for kind, value in ratio.items())
    read = ", ".join(f"{kind} {value:.2f}" for kind, value in position.items())
    return Verdict(
        lost and carried,
        f"a layer pair has {' + '.join(map(str, data['connections']))} = {sum(data['connections'])} residual "
        "connections. "
        f"Gradient of the first of {depth} layers over that of the last, before training: {told}; so without "
        f"residual connections it is {'lost' if lost else 'not lost, which would be below a tenth'}. A linear probe "
        f"reads the position from the top layer with R² of {read}: the residual connections "
        f"{'carry' if carried else 'do not alone carry'} positions up"
        + (", until norms after each sum have washed them out." if position["post-norm"] < 0.2 else "."),
    )


def table(data: Table) -> Rows:
    """Gradient norm and the probe's R² at the bottom, in the middle and at the top."""
    depth = len(data["kinds"]["pre-norm"]["gradient"][0])
    places = [0, depth // 2, depth - 1]
    head = ["", *(f"gradient, layer {p + 1}" for p in places), *(f"R² of position, layer {p + 1}" for p in places)]
    rows = [head]
    for kind, found in data["kinds"].items():
        values = [f"{fmean([run[p] for run in found['gradient']]):.2e}" for p in places]
        rows.append([kind, *values, *(f"{fmean([run[p] for run in found['position']]):.2f}" for p in places)])
    return rows


def draw(data: Table, figure: Any) -> None:
    """Both measures against depth."""
    left, right = figure.subplots(1, 2)
    for (kind, found), style in zip(data["kinds"].items(), ("o-", "s--", "^:", "x-."), strict=True):
        depth = range(1, len(found["gradient"][0]) + 1)
        for axis, key in ((left, "gradient"), (right, "position")):
            for number, run in enumerate(found[key]):
                colour = {"o-": "C0", "s--": "C1", "^:": "C2", "x-.": "C3"}[style]
                axis.plot(depth, run, style, color=colour, markersize=3, label=None if number else kind)
    left.set(yscale="log", xlabel="layer", ylabel="norm of the gradient of its weights", title="before training")
    right.set(xlabel="layer", ylabel="R² of a linear probe", title="position read from the states", ylim=(-0.05, 1.05))
    right.legend(frameon=False, fontsize=8, loc=(0.45, 0.08))  # the left panel is full of lines


def _config(layers: int, d_model: int, norm: Any) -> ModelConfig:
    return ModelConfig(
        encoder_layers=layers,
        decoder_layers=1,
        d_model=d_model,
        d_ff=2 * d_model,
        heads=4,
        dropout=0.0,
        normalization=norm,
    )


def _measure(residuals: bool, norm: str, settings: Settings, seed: int) -> Table:
    torch.manual_seed(seed)
    model = Transformer(_config(settings.layers, settings.d_model, norm), 100, 100)
    if not residuals:
        for module in model.modules():
            if isinstance(module, Residual):
                without = _without_connection if norm == "post" else _without_connection_pre
                module.forward = partial(without, module.norm)  # type: ignore[method-assign]
    states: list[Tensor] = []
    for layer in model.encoder:
        layer.register_forward_hook(lambda _module, _inputs, out: states.append(out.detach()))
    source_BS = torch.randint(4, 100, (settings.sequences, settings.length))
    memory = model.encode(source_BS, torch.full((settings.sequences,), settings.length))
    (memory.states_BSD * torch.randn(settings.d_model)).sum().backward()  # type: ignore[no-untyped-call]
    gradients = []
    for layer in model.encoder:
        inner = cast(EncoderLayer, layer).feed_forward.inner.weight
        gradients.append(float(cast(Tensor, inner.grad).norm()))
    return {"gradient": gradients, "position": [_readable_position(state_BSD) for state_BSD in states]}


def _without_connection(norm: nn.Module, x_BSD: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    return cast(Tensor, norm(sublayer(x_BSD)))


def _without_connection_pre(norm: nn.Module, x_BSD: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    return sublayer(norm(x_BSD))


def _readable_position(state_BSD: Tensor) -> float:
    """R², on half of the sequences, of a linear probe for the position that was fitted to the other half."""
    half, length = len(state_BSD) // 2, state_BSD.size(1)
    centred_BSD = state_BSD.double() - state_BSD.double().mean((0, 1))
    scaled_BSD = centred_BSD / centred_BSD.std((0, 1)).clamp_min(1e-12)  # however small the differences are
    inputs = torch.nn.functional.pad(scaled_BSD, (0, 1), value=1.0)
    position = torch.arange(length, dtype=torch.float64).expand(half, -1).reshape(-1, 1)
    fitted, tested = inputs[:half].flatten(0, 1), inputs[half : 2 * half].flatten(0, 1)
    ridge = 1e-3 * torch.eye(fitted.size(1), dtype=torch.float64)
    weights = torch.linalg.solve(fitted.T @ fitted + ridge, fitted.T @ position)
    rest = (tested @ weights - position).pow(2).mean() / position.var(correction=0)
    return max(0.0, 1.0 - float(rest))
