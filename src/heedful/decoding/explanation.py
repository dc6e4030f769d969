"""All that can be told about one translation, as plain data: pieces, attention, probabilities, the beam's tree."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from heedful.decoding.hypothesis import NEVER
from heedful.decoding.search import Beams
from heedful.model.recorder import parse_head
from heedful.text.vocabulary import SPACE

Maps = dict[str, np.ndarray]


@dataclass
class Branch:
    """A hypothesis at the moment of a step: its last token after those of its parent.

    `log_probability` is that of all tokens so far. A branch without children that did not end was pruned.
    """

    parent: int  # its number in the tree; -1 for the root
    token: int
    log_probability: float
    piece: str = ""
    ended: bool = False
    best: bool = False  # on the way to the output that is explained, the best one if no other was asked for


class Tree:
    """The hypotheses of one sentence's search, by `Tree.watch` as search's observer."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []
        self._numbers: dict[tuple[int, ...], int] = {(): -1}

    def watch(self, beams: Beams) -> None:
        """Add the hypotheses of a step: those that live on, and those that have ended."""
        for hypothesis in beams.finished[0]:
            self._add(tuple(hypothesis.ids), hypothesis.log_probability, ended=True)
        for ids, total in zip(beams.live_BWT[0, :, 1:].tolist(), beams.live_BW[0].tolist(), strict=True):
            if total > NEVER / 2:
                self._add(tuple(ids), total, ended=False)

    def finish(self, output: Sequence[int], pieces: Callable[[list[int]], list[str]]) -> list[Branch]:
        """Mark the way to an output, and name all tokens."""
        for length in range(1, len(output) + 1):
            self.branches[self._numbers[tuple(output[:length])]].best = True
        for branch, piece in zip(self.branches, pieces([branch.token for branch in self.branches]), strict=True):
            branch.piece = piece
        return self.branches

    def _add(self, ids: tuple[int, ...], total: float, ended: bool) -> None:
        if ids in self._numbers:
            return
        self._numbers[ids] = len(self.branches)
        self.branches.append(Branch(self._numbers[ids[:-1]], ids[-1], total, ended=ended))


@dataclass(frozen=True)
class Explanation:
    """One translation from the inside. `S` source pieces, `T` target pieces, the end tokens included; `H` heads.

    `attention` has an array for each attention of the model: "encoder.0" [H, S, S], "decoder.0" [H, T, T] and "cross.0"
    [H, T, S], by layer; row t of the decoder's shows what was attended to when piece t was chosen, whose column in
    "decoder.0" is the piece before it. Where a model has no attention there are none. An LSTM or a convolution has
    "cross" alone, of one head. The numbers are those of teacher forcing in float32, which
    search's cached steps equal by test; `score`, `alternatives` and the tree's are the search's own, in its weights.
    """

    source: str
    text: str
    languages: tuple[str, ...]  # their codes, where the model knows them
    score: float
    source_pieces: list[str]
    target_pieces: list[str]
    source_words: list[int]  # which word each piece belongs to; -1 for none
    target_words: list[int]
    log_probabilities: list[float]  # of each target piece after those before it
    alignment: list[tuple[int, int]]  # word by word, source and target
    alternatives: list[tuple[str, float]]  # the n best with their scores, best first
    rank: int  # which of them this is; 1 = the best
    tree: list[Branch]
    aligner: str  # the attention that the alignment is taken from: a layer, or one head of it
    attention: Maps = field(repr=False)

    @property
    def alignment_weights(self) -> np.ndarray | None:
        """What each target piece attends to in the attention that aligns words  [T, S]; None where there is none."""
        if not self.aligner:
            return None
        return self.weights_of(*self.part(self.aligner))

    def part(self, name: str) -> tuple[str, int | None]:
        """Return which attention, and which of its heads, is called `name`: "cross.1.0" is one, "cross.1" their mean.

        Raises:
            HeedfulError: there is no such attention or head; says which there are.
        """
        return parse_head(name, {place: len(weights_HTS) for place, weights_HTS in self.attention.items()})

    def weights_of(self, place: str, head: int | None) -> np.ndarray:
        """Return the weights of a head  [T, S], or of None the mean of all heads."""
        weights_HTS = self.attention[place]
        return np.asarray(weights_HTS.mean(0) if head is None else weights_HTS[head])

    def axes(self, kind: str) -> tuple[list[str], list[str]]:
        """Return what stands along the rows and the columns of "encoder", "decoder" or "cross", as people read it."""
        source, target = ([readable(piece) for piece in side] for side in (self.source_pieces, self.target_pieces))
        return {"encoder": (source, source), "cross": (target, source)}.get(kind, (target, ["▸", *target[:-1]]))

    def to_table(self) -> dict[str, Any]:
        """Return everything as what JSON can hold, attention with four digits."""
        table = asdict(self)
        # in float64: a float32 near 0.1234 is written with all digits that tell it from its neighbours
        table["attention"] = {name: np.round(found.astype(float), 4).tolist() for name, found in self.attention.items()}
        return table


def readable(piece: str) -> str:
    """Return a piece as people read it: without the mark at the beginning of words, control tokens as signs."""
    return {"</s>": "⏎", SPACE: "␣"}.get(piece, piece.removeprefix(SPACE))
