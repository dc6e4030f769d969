"""Path length, measured: how many steps lie between positions in what a model computes. (section 4, table 1)

A step is one use, at one position, of a layer that joins positions: an attention, a gated convolution, a cell of an
LSTM. What works on each position by itself (projections, feed-forward networks, norms, residual sums) lies on the way
but brings no position nearer to another. Which positions a step reads is measured too: those that its output has a
gradient with respect to, once what earlier steps gave is cut loose from how they came by it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from heedful.errors import HeedfulError
from heedful.model.convolution import GatedConvolution
from heedful.model.dot_product import DotProductAttention
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.lstm import LSTM, HiddenCell
from heedful.model.transformer import MultiHeadAttention

JOINS = (MultiHeadAttention, DotProductAttention, GatedConvolution, nn.LSTMCell)
SYMBOL = 4  # which one does not matter, as long as it is none that controls
Place = tuple[int, int]  # which use of a layer, and which position of it


class Unrolled(nn.Module):
    """What an `nn.LSTM` of one layer computes of one sentence, cell by cell: equal to it, by test."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.cells = nn.ModuleList(_cell(layer, way) for way in ("", "_reverse")[: 1 + layer.bidirectional])

    def forward(self, given: Any, first: HiddenCell | None = None) -> tuple[Any, HiddenCell]:
        """Return the outputs at all positions, and the state after the last one."""
        packed = isinstance(given, PackedSequence)
        x_LD = given.data if packed else given[0]
        outputs, last = [], []
        for way, cell in enumerate(self.cells):
            state = (first[0][way], first[1][way]) if first else None
            found: dict[int, Tensor] = {}
            for position in reversed(range(len(x_LD))) if way else range(len(x_LD)):
                state = cell(x_LD[position : position + 1], state)
                found[position] = state[0]
            assert state is not None
            last.append(state)
            outputs.append(torch.cat([found[position] for position in range(len(x_LD))]))
        out_LD = torch.cat(outputs, dim=-1)
        hidden, cells = (torch.stack([state[part] for state in last]) for part in (0, 1))
        return given._replace(data=out_LD) if packed else out_LD[None], (hidden, cells)


@dataclass
class Uses:
    """Uses of layers, in order: what each gave, and the same cut loose, which is what was read of it."""

    embedded: list[int] = field(default_factory=list[int])  # numbers of the uses that are embeddings: source, target
    given: list[tuple[Tensor, ...]] = field(default_factory=list[tuple[Tensor, ...]])
    read: list[tuple[Tensor, ...]] = field(default_factory=list[tuple[Tensor, ...]])

    def cut(self, module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Keep what a layer gave, and let others read it without what it came from."""
        if isinstance(module, nn.Embedding):
            self.embedded.append(len(self.given))
        parts = output if isinstance(output, tuple) else (output,)
        self.given.append(parts)
        self.read.append(tuple(part.detach().requires_grad_() for part in parts))
        return self.read[-1] if isinstance(output, tuple) else self.read[-1][0]

    def behind(self, values: list[Tensor]) -> set[Place]:
        """Return what these values were directly computed from."""
        parts = [(use, part) for use, read in enumerate(self.read) for part in read]
        total = torch.stack([(value * torch.randn_like(value)).sum() for value in values]).sum()
        gradients = torch.autograd.grad(total, [part for _, part in parts], retain_graph=True, allow_unused=True)
        return {
            (use, int(position))
            for (use, _), gradient in zip(parts, gradients, strict=True)
            if gradient is not None
            for position in gradient.reshape(-1, gradient.size(-1)).abs().sum(-1).nonzero()
        }


def path_lengths(model: EncoderDecoder, length: int) -> dict[str, list[int]]:
    """Return the fewest steps from the last target position's hidden state to each position's embedding.

    Of a sentence of `length` symbols and a target of as many: "source" and "target", a number for each position.

    Raises:
        HeedfulError: some position does not reach there at all.
    """
    torch.manual_seed(1)
    model = unrolled(model).eval()
    token_1L, lengths_1 = torch.full((1, length), SYMBOL), torch.tensor([length])
    with _watching(model) as uses:
        hidden_1TD = model.decode(token_1L, model.encode(token_1L, lengths_1))
    found: dict[Place, int] = {}
    steps, border = 0, [[hidden_1TD[0, -1]]]
    while border:
        reached = {place for values in border for place in uses.behind(values)} - found.keys()
        # an embedding is read at the end of a path, which is no further step
        found |= {place: steps + (place[0] not in uses.embedded) for place in reached}
        border = [
            [part.reshape(-1, part.size(-1))[position] for part in uses.given[use]]
            for use, position in reached
            if use not in uses.embedded
        ]
        steps += 1
    try:
        names = zip(("source", "target"), uses.embedded, strict=True)
        return {name: [found[use, position] for position in range(length)] for name, use in names}
    except KeyError as error:
        raise HeedfulError(f"no path joins all of {length} positions in {model.config}: give it more layers") from error


def unrolled(model: EncoderDecoder) -> EncoderDecoder:
    """Return a copy that goes through its LSTM layers cell by cell; it takes one sentence at a time."""
    changed = copy.deepcopy(model)
    if isinstance(changed, LSTM):
        for stack in (changed.encoder, changed.decoder):
            stack.layers = nn.ModuleList(Unrolled(cast(nn.LSTM, layer)) for layer in stack.layers)
    return changed


def longest_chain(out: Tensor) -> int:
    """Return how many operations must follow each other to compute `out`: the longest path back through autograd."""
    depth: dict[Any, int] = {None: 0}
    stack = [out.grad_fn]
    while stack:
        node = stack[-1]
        behind = [] if node is None else [following for following, _ in node.next_functions]
        if waiting := [following for following in behind if following not in depth]:
            stack += waiting
        else:
            depth[stack.pop()] = 1 + max((depth[following] for following in behind), default=0) if node else 0
    return depth[out.grad_fn]


@contextmanager
def _watching(model: EncoderDecoder) -> Iterator[Uses]:
    uses = Uses()
    watched = [module for module in model.modules() if isinstance(module, (*JOINS, nn.Embedding))]
    handles = [module.register_forward_hook(uses.cut) for module in watched]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _cell(layer: nn.LSTM, way: str) -> nn.LSTMCell:
    cell = nn.LSTMCell(layer.input_size, layer.hidden_size)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(layer, f"{name}_l0{way}"))
    return cell
