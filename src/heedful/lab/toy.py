"""Small tasks with known answers, and learning them: what experiments train on."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from heedful.data.batches import Batch, batch_of
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.text.vocabulary import END, PAD
from heedful.training.loop import batch_loss

FIRST = 4  # the first symbol that is not a control symbol
GAP = FIRST + 10  # between numbers, whose digits are the ten symbols before it
UNITS, TENS, AND = FIRST + 11, FIRST + 21, FIRST + 30  # words: "zero" to "nine"; "ten" to "ninety"; "and"
NUMBER_SYMBOLS = FIRST + 31
UNALIGNED = -1  # a word that no symbol of the source stands for
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


def recalling(symbols: int, shortest: int, longest: int) -> Task:
    """Return a task: of `shortest` to `longest` symbols write the one that a mark stands before, wherever it is."""
    mark = FIRST + symbols

    def make(count: int, seed: int) -> Pairs:
        generator = torch.Generator().manual_seed(seed)
        pairs: Pairs = []
        for line, _ in copying(symbols, shortest, longest)(count, seed):
            place = int(torch.randint(len(line) - 1, (), generator=generator))
            pairs.append(([*line[:place], mark, *line[place:]], [line[place], END]))
        return pairs

    return make


def gathering(length: int) -> Task:
    """Return a task: each target symbol tells four bits of the source, from three or four places, in order."""
    quarter = length // 4

    def make(count: int, seed: int) -> Pairs:
        generator = torch.Generator().manual_seed(seed)
        pairs: Pairs = []
        for bits in torch.randint(2, (count, length), generator=generator).tolist():
            places = [
                (p, length - 1 - p, (p + quarter) % length, (p + 3 * quarter) % length) for p in range(length // 2)
            ]
            target = [FIRST + sum(bits[place] << power for power, place in enumerate(four)) for four in places]
            pairs.append(([*(FIRST + bit for bit in bits), END], [*target, END]))
        return pairs

    return make


def counting(shortest: int, longest: int) -> Task:
    """Return a task: write so many numbers of one or two digits in words, "21 7" as "one and twenty seven"."""

    def make(count: int, seed: int) -> Pairs:
        generator = torch.Generator().manual_seed(seed)
        pairs: Pairs = []
        for _ in range(count):
            many = int(torch.randint(shortest, longest + 1, (), generator=generator))
            numbers = torch.randint(100, (many,), generator=generator).tolist()
            digits = [symbol for number in numbers for symbol in (GAP, *(FIRST + int(d) for d in str(number)))][1:]
            pairs.append(([*digits, END], [word for word, _ in in_words(digits)] + [END]))
        return pairs

    return make


def in_words(digits: list[int]) -> list[tuple[int, int]]:
    """Return the words of numbers, the unit before the ten as in German, and for each the place of its digit.

    >>> in_words([FIRST + 2, FIRST + 1, GAP, FIRST + 7]) == [(UNITS + 1, 1), (AND, -1), (TENS + 1, 0), (UNITS + 7, 3)]
    True
    """
    words = []
    starts = [0] + [place + 1 for place, symbol in enumerate(digits) if symbol == GAP]
    for start, end in zip(starts, [*(start - 1 for start in starts[1:]), len(digits)], strict=True):
        *ten, unit = [symbol - FIRST for symbol in digits[start:end]]
        if unit or not ten:
            words.append((UNITS + unit, end - 1))
        if unit and ten and ten[0] > 1:
            words.append((AND, UNALIGNED))
        if ten:
            words.append((TENS + ten[0] - 1, start))
    return words


def learn(model: EncoderDecoder, task: Task, steps: int, rate: float, *, seed: int = 1) -> Iterator[float]:
    """Train on 64 new examples at every step, and yield the loss of each: nats a symbol."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    model.train()
    torch.manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:  # up over a tenth of the steps, then down to zero
            group["lr"] = rate * min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
        examples = _batch(task(64, seed * 1_000_003 + step))
        loss = batch_loss(model, examples, 0.0)
        symbols = int((examples.target_out_BT != PAD).sum())
        optimizer.zero_grad()
        (loss.smoothed / symbols).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.nll.item() / symbols


@torch.inference_mode()
def right(model: EncoderDecoder, pairs: Pairs) -> Tensor:
    """Return whether each target is the most probable at every position, given the symbols before it  [B]."""
    batch = _batch(pairs)
    model.eval()
    hidden_BTD = model.decode(batch.target_in_BT, model.encode(batch.source_BS, batch.source_lengths_B))
    guessed_BT = model.logits(hidden_BTD).argmax(-1)
    return ((guessed_BT == batch.target_out_BT) | (batch.target_out_BT == PAD)).all(1)


def _batch(pairs: Pairs) -> Batch:
    return batch_of([source for source, _ in pairs], [target for _, target in pairs])
