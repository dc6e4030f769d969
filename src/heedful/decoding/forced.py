"""Given outputs, read at all positions at once: how probable a model finds them, and which words belong together.

Shapes as in model/transformer.py.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from heedful.data.batches import batch_of
from heedful.data.lines import pairs_by_length
from heedful.decoding.alignment import align_words, alignment_layer
from heedful.decoding.lexicon import Lexicon
from heedful.model.encoder_decoder import EncoderDecoder
from heedful.model.ensemble import members_of
from heedful.model.recorder import Maps, attentions, parse_head, recording
from heedful.text.vocabulary import END, PAD, Vocabulary

ROOM = 1 << 25  # numbers


class Reading(NamedTuple):
    """What reading pairs gave: their target tokens, the hidden state before each, and words that belong together."""

    target_BT: Tensor
    hidden_BTD: Tensor
    links: list[list[tuple[int, int]]]


@torch.inference_mode()
def read(
    model: EncoderDecoder,
    vocabulary: Vocabulary,
    pairs: Sequence[tuple[list[int], list[int]]],
    aligner: str | None = None,
) -> Reading:
    """Read pairs of source and target tokens, END last.

    `aligner` names the attention whose weights tell which words belong together, as in `alignment_weights`; with None
    none is recorded, and there are no links.
    """
    batch = batch_of(*zip(*pairs, strict=True)).to(next(model.parameters()).device)
    if aligner == "":
        aligner = alignment_layer(name for name, _ in attentions(model))
    layer = ".".join(aligner.split(".")[:2]) if aligner else ""
    watched: AbstractContextManager[Maps] = recording(model, layer) if layer else nullcontext({})
    with watched as maps:
        memory = model.encode(batch.source_BS, batch.source_lengths_B)
        hidden_BTD = model.decode(batch.target_in_BT, memory)
    links = list[list[tuple[int, int]]]()
    for row, (source, target) in enumerate(pairs):
        weights_TS = alignment_weights(maps, row, aligner) if aligner else None
        if weights_TS is None:
            links.append([])
            continue
        pieces = vocabulary.pieces(source, "source"), vocabulary.pieces(target, "target")
        links.append(align_words(weights_TS[: len(target), : len(source)], *pieces))
    return Reading(batch.target_out_BT, hidden_BTD, links)


@torch.inference_mode()
def log_probabilities(model: EncoderDecoder, reading: Reading) -> list[float]:
    """Return the log-probability of each target that was read, the sum over its tokens, in nats."""
    totals: list[float] = []
    # so many sentences at a time that their logits, which can be gigabytes, have room
    symbols = sum(member.output.out_features for member in members_of(model))
    count = max(1, ROOM // (reading.target_BT.size(1) * symbols))
    pieces = zip(torch.split(reading.target_BT, count), torch.split(reading.hidden_BTD, count), strict=True)
    for target_BT, hidden_BTD in pieces:
        log_BTV = model.logits(hidden_BTD).float().log_softmax(-1)
        taken_BT = log_BTV.gather(2, target_BT[:, :, None])[:, :, 0]
        totals += taken_BT.masked_fill(target_BT == PAD, 0.0).sum(1).tolist()
    return totals


class Look(NamedTuple):
    """What is to be seen of a pair that was read: `attention` [H, L, M] by its place, words that belong together."""

    source_pieces: list[str]
    target_pieces: list[str]
    log_probabilities: list[float]
    attention: dict[str, np.ndarray]
    aligner: str
    links: list[tuple[int, int]]


@torch.inference_mode()
def look_into(
    model: EncoderDecoder, vocabulary: Vocabulary, source: list[int], target: list[int], aligner: str = ""
) -> Look:
    """Read one pair of tokens, END last, and keep all that there is to see; `aligner` as in `alignment_weights`."""
    batch = batch_of([source], [target]).to(next(model.parameters()).device)
    with recording(model) as maps:
        memory = model.encode(batch.source_BS, batch.source_lengths_B)
        hidden_BTD = model.decode(batch.target_in_BT, memory)
    log_TV = model.logits(hidden_BTD)[0].float().log_softmax(-1)
    pieces = vocabulary.pieces(source, "source"), vocabulary.pieces(target, "target")
    weights_TS = alignment_weights(maps, 0, aligner)
    return Look(
        *pieces,
        log_probabilities=log_TV.gather(1, batch.target_out_BT[0][:, None])[:, 0].tolist(),
        attention={name: uses[0][0].float().cpu().numpy() for name, uses in maps.items()},
        aligner=aligner or alignment_layer(maps) or "",
        links=[] if weights_TS is None else align_words(weights_TS, *pieces),
    )


def alignment_weights(maps: Maps, row: int, aligner: str = "") -> Tensor | None:
    """Return what each target piece attends to in the attention that aligns words  [T, S]; None where there is none.

    Of a layer ("cross.2") it is the mean of its heads.
    """
    aligner = aligner or alignment_layer(maps) or ""
    if not aligner:
        return None
    name, head = parse_head(aligner, {name: uses[0].size(1) for name, uses in maps.items()})
    weights_HTS = maps[name][0][row].float().cpu()  # once, not number by number
    return weights_HTS.mean(0) if head is None else weights_HTS[head]


@torch.inference_mode()
def agreements(
    model: EncoderDecoder,
    sources: Sequence[list[int]],
    targets: Sequence[list[int]],
    lexicon: Lexicon,
    *,
    batch: int = 64,
) -> list[tuple[str, float]]:
    """Return how often each attention to the source looks most where a lexicon links, the best first.

    Each head, "cross.2.1", and the mean of each layer's, "cross.2", reads these pairs of tokens, END last; what
    counts is the share of the links that it finds. Empty where there is no attention, or no link.
    """
    found, links, device = Counter[str](), 0, next(model.parameters()).device
    for chosen in pairs_by_length(sources, targets, batch):
        pairs = [(sources[i], targets[i]) for i in chosen]
        known = [(row, t, s) for row, pair in enumerate(pairs) for s, t in lexicon.links(*pair)]
        if not known:
            continue
        links += len(known)
        made = batch_of(*zip(*pairs, strict=True)).to(device)
        with recording(model, "cross") as maps:
            model.decode(made.target_in_BT, model.encode(made.source_BS, made.source_lengths_B))
        row_L, t_L, s_L = (torch.tensor(column, device=device) for column in zip(*known, strict=True))
        words_BS = (made.source_BS != PAD) & (made.source_BS != END)
        for name, uses in maps.items():
            heads_BHTS = torch.cat([uses[0].mean(1, keepdim=True), uses[0]], dim=1)
            looks_LH = heads_BHTS.masked_fill(~words_BS[:, None, None], -1).argmax(-1)[row_L, :, t_L]
            right_H = (looks_LH == s_L[:, None]).sum(0).tolist()
            names = [name, *(f"{name}.{head}" for head in range(uses[0].size(1)))]
            found.update(dict(zip(names, right_H, strict=True)))
    return [(name, count / links) for name, count in found.most_common()]
