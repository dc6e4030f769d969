"""Word alignments from attention: which source word each target word looks at most."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from heedful.text.vocabulary import SPACE

SPELT = ("<0xE2>", "<0x96>", "<0x81>")  # SPACE in bytes, before a symbol that is not known
CONTROL = ("<s>", "</s>", "<pad>")


def words_of_pieces(pieces: Sequence[str]) -> list[int]:
    """Return the number of the word that each piece belongs to; -1 for control tokens and a lone space mark.

    >>> words_of_pieces(["\u2581Good", "\u2581morn", "ing", "</s>"])
    [0, 1, 1, -1]
    """
    numbers, word = [], -1
    pending = True
    for number, piece in enumerate(pieces):
        pending |= tuple(pieces[number : number + 3]) == SPELT
        if piece in CONTROL:
            numbers.append(-1)
        elif piece == SPACE:
            pending = True
            numbers.append(-1)
        else:
            if pending or piece.startswith(SPACE):
                word += 1
            pending = False
            numbers.append(word)
    return numbers


def alignment_layer(names: Iterable[str]) -> str | None:
    """Return which of these attentions is likely to align words: the decoder's last layer but one (Garg et al. 2019).

    Where development data were there, it was measured instead: `agreements` in forced.py.

    >>> alignment_layer(["encoder.0", "cross.0", "cross.1", "cross.2"])
    'cross.1'
    """
    layers = [name for name in names if name.startswith("cross.")]
    return layers[max(len(layers) - 2, 0)] if layers else None


def align_words(
    weights_TS: Float[Tensor, "T S"], source_pieces: Sequence[str], target_pieces: Sequence[str]
) -> list[tuple[int, int]]:
    """Return (source word, target word) pairs, one for each target word, in target order.

    Args:
        weights_TS: for each target piece, how much it attends to each source piece
        source_pieces, target_pieces: the pieces, END included if the weights include it
    """
    source_words, target_words = (np.array(words_of_pieces(pieces)) for pieces in (source_pieces, target_pieces))
    columns, rows = np.flatnonzero(source_words >= 0), np.flatnonzero(target_words >= 0)
    if not len(columns) or not len(rows):
        return []
    weights_VW = np.zeros((target_words.max() + 1, source_words.max() + 1))  # of all pieces of a word together
    np.add.at(weights_VW, np.ix_(target_words[rows], source_words[columns]), weights_TS.numpy()[np.ix_(rows, columns)])
    return list(zip(weights_VW.argmax(1).tolist(), range(len(weights_VW)), strict=True))
