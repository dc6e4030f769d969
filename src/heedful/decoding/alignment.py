"""Word alignments from attention: which source word each target word looks at most."""

from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

SPACE = "\u2581"  # how sentencepiece marks the beginning of a word


def words_of_pieces(pieces: Sequence[str]) -> list[int]:
    """Return the number of the word that each piece belongs to; -1 for control tokens and a lone space mark.

    >>> words_of_pieces(["\u2581Good", "\u2581morn", "ing", "</s>"])
    [0, 1, 1, -1]
    """
    numbers, word = [], -1
    pending = True
    for piece in pieces:
        if piece in ("<s>", "</s>", "<pad>"):
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

    Where development data were there, it was measured instead: `Translator.agreements`.

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
    source_words, target_words = words_of_pieces(source_pieces), words_of_pieces(target_pieces)
    links = []
    columns = [column for column, word in enumerate(source_words) if word >= 0]
    for word in range(max(target_words, default=-1) + 1):
        rows = [row for row, number in enumerate(target_words) if number == word]
        if rows and columns:
            weight_S = weights_TS[rows].sum(0)
            best = max(columns, key=lambda column: float(weight_S[column]))
            links.append((source_words[best], word))
    return links
