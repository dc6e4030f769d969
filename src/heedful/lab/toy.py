"""Small tasks with known answers, and learning them: what experiments train on."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from heedful.data.batches import Batch, batch_of
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.text.vocabulary import END
from heedful.training.loop import batch_loss

FIRST = 4  # the first symbol that is not a control symbol
Pairs = list[tuple[list[int], list[int]]]
Task = Callable[[int, int], Pairs]  # (how many, seed) -> pairs of ids, END last


def copying(symbols: int, shortest: int, longest: int, *, backwards: bool = False) -> Task:
    """Return a task: write the source again, or backwards; lengths are drawn evenly."""

    def make(count: int, seed: int) -> Pairs:
        generator = torch.Generator().manual_seed(seed)
        pairs: Pairs = []
        for _ in range(count):
            length = int(torch.randint(shortest, longest + 1, (), generator=generator))
            line = torch.randint(FIRST, FIRST + symbols, (length,), generator=generator).tolist()
            pairs.append(([*line, END], [*(reversed(line) if backwards else line), END]))
        return pairs

    return make


def learn(
    model: EncoderDecoder, task: Task, steps: int, rate: float, *, batch: int = 64, seed: int = 1
) -> Iterator[float]:
    """Train on new examples at every step, and yield the loss of each: nats a symbol."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    model.train()
    torch.manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:  # up over a tenth of the steps, then down to zero
            group["lr"] = rate * min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
        examples = _batch(task(batch, seed * 1_000_003 + step))
        loss = batch_loss(model, examples, 0.0)
        symbols = int((examples.target_out_BT != 0).sum())
        optimizer.zero_grad()
        (loss.smoothed / symbols).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.likelihood.item() / symbols


@torch.inference_mode()
def right(model: EncoderDecoder, pairs: Pairs) -> Tensor:
    """Return whether each target is the most probable at every position, given the symbols before it  [B]."""
    batch = _batch(pairs)
    model.eval()
    hidden_BTD = model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
    guessed_BT = model.logits(hidden_BTD).argmax(-1)
    return ((guessed_BT == batch.target_out_BT) | (batch.target_out_BT == 0)).all(1)


def _batch(pairs: Pairs) -> Batch:
    return batch_of([source for source, _ in pairs], [target for _, target in pairs])
