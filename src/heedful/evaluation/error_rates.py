"""Error rates for tasks whose symbols are not words of a language, such as spelling to pronunciation."""

from collections.abc import Sequence
from dataclasses import dataclass

from heedful.errors import HeedfulError


@dataclass(frozen=True)
class ErrorRates:
    """`word`: share of inputs whose output equals none of its references; `symbol`: edits over reference symbols."""

    word: float
    symbol: float
    inputs: int


def error_rates(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> ErrorRates:
    """Return the word and symbol (phone) error rates, in percent; any of several references counts.

    Symbols are separated by whitespace. An output is compared with its nearest reference.

    Raises:
        HeedfulError: numbers differ, or an input has no reference.

    >>> error_rates(["K AE T", "D AO"], [["K AE T"], ["D AO G", "D AA G"]])
    ErrorRates(word=50.0, symbol=16.666666666666668, inputs=2)
    """
    if len(outputs) != len(references) or not outputs:
        raise HeedfulError(f"{len(outputs):,} outputs and {len(references):,} lists of references; each needs its own")
    wrong, edits, symbols = 0, 0, 0
    for output, possible in zip(outputs, references, strict=True):
        if not possible:
            raise HeedfulError("an input has no reference; give at least one for each")
        said = output.split()
        distance, length = min(
            (edit_distance(said, reference.split()), len(reference.split())) for reference in possible
        )
        wrong += distance > 0
        edits, symbols = edits + distance, symbols + length
    return ErrorRates(100 * wrong / len(outputs), 100 * edits / max(symbols, 1), len(outputs))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and substitutions that turn one into the other.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def gather_references(inputs: Sequence[str], references: Sequence[str]) -> dict[str, list[str]]:
    """Return each different input with all its references, in order of first appearance."""
    gathered: dict[str, list[str]] = {}
    for line, reference in zip(inputs, references, strict=True):
        gathered.setdefault(line, []).append(reference)
    return gathered
