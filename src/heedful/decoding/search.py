"""One batched search over a step function; greedy is a beam of one, sampling a beam of independent draws.

`B` sentences still searched, `W` hypotheses of each, `N` = B x W, `V` vocabulary, `T` tokens so far.
Hypotheses of a sentence are neighbours: row n belongs to sentence n // W.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from heedful.data.lines import flatten, pad
from heedful.decoding.hypothesis import NEVER, Hypothesis, hypothesis, length_penalty, limits
from heedful.decoding.settings import SearchConfig
from heedful.model.engine import Engine
from heedful.native import library
from heedful.text.vocabulary import BEGIN, END, FORBIDDEN


class State(Protocol):
    """What the step function remembers; search only ever reorders it."""

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> Self:
        """Keep the given hypotheses in that order, and, if given, only these sentences."""
        ...


S = TypeVar("S", bound=State)


@dataclass
class Beams:
    """All that a search carries from step to step, for the sentences that are not done.

    Bookkeeping is numpy's: its arrays are small, and its calls cost a third of torch's.
    """

    sentence_B: np.ndarray  # which input each row of sentences is
    limit_B: np.ndarray  # longest output
    live_BWT: np.ndarray  # tokens of live hypotheses
    live_BW: np.ndarray  # their log-probabilities
    ended_B: np.ndarray  # how many hypotheses have ended
    to_beat_B: np.ndarray  # the score of the last of the best outputs so far
    finished: list[list[Hypothesis]]  # for each input, best first
    any_ended: bool = False

    @property
    def length(self) -> int:
        """Tokens of a live hypothesis, begin not counted."""
        return int(self.live_BWT.shape[2]) - 1

    def keep(self, staying_B: np.ndarray) -> None:
        """Forget the other sentences."""
        self.sentence_B = self.sentence_B[staying_B]
        self.limit_B = self.limit_B[staying_B]
        self.live_BWT = self.live_BWT[staying_B]
        self.live_BW = self.live_BW[staying_B]
        self.ended_B = self.ended_B[staying_B]
        self.to_beat_B = self.to_beat_B[staying_B]


@torch.inference_mode()
def search_by_steps(
    engine: Engine,
    sources: Sequence[Sequence[int]],
    config: SearchConfig,
    *,
    device: torch.device | str = "cpu",
    prefixes: Sequence[Sequence[int]] | None = None,
    keys: Sequence[int] | None = None,
    longest: int | None = None,
    observe: Callable[[Beams], None] | None = None,
) -> list[list[Hypothesis]]:
    """Return for each source, END last, its `n_best` outputs, best first: `search` with the steps of a model."""
    ids, lengths_B = flatten(sources)
    source_BS = torch.from_numpy(pad(ids, lengths_B, int(lengths_B.max()))).to(device)

    def step(token_N: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = engine.step(token_N, state)
        return engine.logits(hidden), state

    return search(
        step,
        engine.start(engine.encode(source_BS, torch.from_numpy(lengths_B).to(device))),
        (lengths_B - 1).tolist(),
        config,
        begin=BEGIN,
        end=END,
        forbidden=FORBIDDEN,
        prefixes=prefixes,
        keys=keys,
        device=device,
        longest=longest,
        observe=observe,
    )


@torch.inference_mode()
def search(
    step: Callable[[Tensor, S], tuple[Tensor, S]],
    state: S,
    source_lengths_B: Sequence[int],
    config: SearchConfig,
    *,
    begin: int,
    end: int,
    forbidden: Sequence[int] = (),
    prefixes: Sequence[Sequence[int]] | None = None,
    keys: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    longest: int | None = None,
    observe: Callable[[Beams], None] | None = None,
) -> list[list[Hypothesis]]:
    """Return for each sentence its `n_best` outputs, best first.

    Args:
        step: (last tokens [N], state) -> (logits [N, V], state); the logits are overwritten
        state: of the sentences, before the first step; only its `select` is used. There are B hypotheses at the first
            step and at most B x `config.width` later; where outputs are drawn, so many from the first on
        source_lengths_B: lengths of the inputs, which bound those of the outputs
        config: the search's settings
        begin, end: the tokens before the first and after the last
        forbidden: tokens that never stand in an output, such as padding
        prefixes: tokens that each output must begin with
        keys: a number for each sentence that its random draws depend on, so that they do not depend on the batch
        device: where the step function computes
        longest: tokens that no output may have more of, `end` among them, because the model has no more positions
        observe: called after each step with all hypotheses, before any sentence leaves
    """
    config.check()
    sentences, width = len(source_lengths_B), config.width
    beams = Beams(
        sentence_B=np.arange(sentences),
        limit_B=np.array(limits(source_lengths_B, config, prefixes, longest), dtype=np.int64),
        live_BWT=np.full((sentences, width if config.sample else 1, 1), begin),
        live_BW=np.zeros((sentences, width if config.sample else 1), dtype=np.float32),
        ended_B=np.zeros(sentences),
        to_beat_B=np.full(sentences, -np.inf),
        finished=[[] for _ in range(sentences)],
    )
    rules = _Rules(config, end, list(forbidden), prefixes, _uniforms(config, keys or range(sentences)))
    advance = _draw if config.sample else _extend
    while len(beams.sentence_B):
        logits_NV, state = step(torch.from_numpy(beams.live_BWT[:, :, -1].ravel()).to(device), state)
        rows_BW = advance(logits_NV, beams, rules)
        if observe:
            observe(beams)
        staying_B = _retire(beams, rules)
        if staying_B is not None:
            rows_N = torch.from_numpy(rows_BW[staying_B].ravel()).to(device)
            state = state.select(rows_N, torch.from_numpy(staying_B).to(device))
        elif rows_BW.shape[1] > 1 and not config.sample:
            state = state.select(torch.from_numpy(rows_BW.ravel()).to(device))
    return [hypotheses[: config.n_best] for hypotheses in beams.finished]


@dataclass
class _Rules:
    """What may follow what: everything of the settings that shapes probabilities."""

    config: SearchConfig
    end: int
    forbidden: list[int]
    prefixes: Sequence[Sequence[int]] | None
    uniforms: np.ndarray | None

    def __post_init__(self) -> None:
        """Keep the forbidden tokens for the compiled functions, and as runs of neighbours, [first, last)."""
        self.forbidden_F = np.array(self.forbidden, dtype=np.int64)
        self.forbidden_address = self.forbidden_F.ctypes.data
        chosen = sorted(set(self.forbidden))
        firsts = [token for token in chosen if token - 1 not in chosen]
        lasts = [token + 1 for token in chosen if token + 1 not in chosen]
        self._runs = list(zip(firsts, lasts, strict=True))

    def are_special(self, beams: Beams) -> bool:
        """Return whether more is forbidden at this step than the forbidden tokens."""
        length = beams.length + 1
        if self.prefixes or self.config.no_repeat_ngram or length <= self.config.min_length:
            return True
        return bool((beams.limit_B <= length).any())

    def apply(self, score_NV: Tensor, beams: Beams) -> None:
        """Write NEVER over the scores of what is not allowed."""
        # numpy and torch write alike; numpy takes a third of the time, and lets no other thread in between
        writable_NV: Any = score_NV.numpy() if score_NV.device.type == "cpu" else score_NV
        score_BWV = writable_NV.reshape(*beams.live_BW.shape, -1)
        length = beams.length + 1  # of the output after this step
        forced = self._forced(score_BWV, beams, length)
        for first, last in self._runs:  # a slice costs a tenth of what a list of indices does
            score_BWV[:, :, first:last] = NEVER
        if length <= self.config.min_length:
            score_BWV[np.flatnonzero(beams.limit_B > length).tolist(), :, self.end] = NEVER
        at_limit = np.flatnonzero(beams.limit_B == length).tolist()
        if at_limit:  # a hypothesis that reaches the limit ends there, at the price of its end token
            end = score_BWV[at_limit, :, self.end]
            score_BWV[at_limit] = NEVER
            score_BWV[at_limit, :, self.end] = end
        if self.config.no_repeat_ngram:
            _forbid_repeats(score_BWV, beams.live_BWT[:, :, 1:], self.config.no_repeat_ngram)
        for row, token, score_W in forced:  # at its own price, whatever the rules above say of it
            score_BWV[row] = NEVER
            score_BWV[row, :, token] = score_W

    def _forced(self, score_BWV: Any, beams: Beams, length: int) -> list[tuple[int, int, Any]]:
        """Return (row, token, its scores [W]) of the sentences that are still within their prefix."""
        if not self.prefixes:
            return []
        pending = [(row, self.prefixes[sentence]) for row, sentence in enumerate(beams.sentence_B)]
        within = [(row, prefix[length - 1]) for row, prefix in pending if length <= len(prefix)]
        return [(row, token, score_BWV[row, :, token] + 0.0) for row, token in within]


def _extend(logits_NV: Tensor, beams: Beams, rules: _Rules) -> np.ndarray:
    """Make the best W live successors of each sentence; finish those of the best W of all successors that end.

    Of the best 2W at most W end, one for each hypothesis; so W live ones always remain. Returns the rows that the live
    hypotheses came from.
    """
    (sentences, before), width = beams.live_BW.shape, rules.config.width
    total_BC, parent_BC, token_BC = _successors(logits_NV, beams, rules, 2 * width)
    ended_BC = token_BC == rules.end
    if ended_BC.any():
        for row, column in np.argwhere(ended_BC[:, :width] & (total_BC[:, :width] > NEVER / 2)).tolist():
            _finish(beams, row, int(parent_BC[row, column]), float(total_BC[row, column]), rules)
        total_BC[ended_BC] = 2 * NEVER
        order_BC = np.argsort(ended_BC, axis=1, kind="stable")  # those that go on first, as they stood
        total_BC, parent_BC, token_BC = (np.take_along_axis(x, order_BC, 1) for x in (total_BC, parent_BC, token_BC))
    parent_BW, rows_B1 = parent_BC[:, :width], np.arange(sentences)[:, None]
    history_BWT = beams.live_BWT if before == width == 1 else beams.live_BWT[rows_B1, parent_BW]
    beams.live_BW = np.ascontiguousarray(total_BC[:, :width])
    beams.live_BWT = np.concatenate([history_BWT, token_BC[:, :width, None]], axis=2)
    rows_BW: np.ndarray = parent_BW + rows_B1 * before
    return rows_BW


def _successors(
    logits_NV: Tensor, beams: Beams, rules: _Rules, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best `count` successors of each sentence: their log-probabilities, hypotheses and tokens  [B, C]."""
    (sentences, width), size = beams.live_BW.shape, logits_NV.size(1)
    count = min(count, width * size)
    on_processor = logits_NV.dtype == torch.float32 and logits_NV.device.type == "cpu" and logits_NV.is_contiguous()
    compiled = library("search") if on_processor else None
    if compiled is None:
        gain_N = torch.from_numpy(beams.live_BW).to(logits_NV.device).flatten() - _log_sum_exp(logits_NV)
        rules.apply(logits_NV, beams)
        total_BWV = (logits_NV + gain_N[:, None]).view(sentences, width, -1)
        total_BC, place_BC = (found_BC.cpu().numpy() for found_BC in total_BWV.flatten(1).topk(count))
        return total_BC, place_BC // size, place_BC % size
    log_sum_N = None
    if rules.are_special(beams):
        log_sum_N = np.empty(len(logits_NV), dtype=np.float32)
        compiled.log_sum_exp(logits_NV.data_ptr(), *logits_NV.shape, log_sum_N.ctypes.data)  # as where nothing is
        rules.apply(logits_NV, beams)
    total_BC = np.empty((sentences, count), dtype=np.float32)
    found_2BC = np.empty((2, sentences, count), dtype=np.int64)
    found = found_2BC.ctypes.data  # each look at an address costs more than a sum
    compiled.successors(
        logits_NV.data_ptr(),
        beams.live_BW.ctypes.data,
        None if log_sum_N is None else log_sum_N.ctypes.data,
        sentences,
        width,
        size,
        rules.forbidden_address,
        0 if log_sum_N is not None else len(rules.forbidden_F),
        NEVER,
        count,
        total_BC.ctypes.data,
        found,
        found + found_2BC.nbytes // 2,
    )
    return total_BC, found_2BC[0], found_2BC[1]


def _log_sum_exp(logits_NV: Tensor) -> Tensor:
    """Return log(sum(exp(logits))) of each row: read off the largest softmax, torch's logsumexp takes twice as long."""
    return logits_NV.amax(1).float() - logits_NV.softmax(1, dtype=torch.float32).amax(1).log_()


def _draw(logits_NV: Tensor, beams: Beams, rules: _Rules) -> np.ndarray:
    """Draw one successor for each hypothesis; one that has ended stays as it is, with a log-probability of NEVER."""
    sentences, width = beams.live_BW.shape
    log_NV = logits_NV.float().log_softmax(1)
    rules.apply(log_NV, beams)
    drawn_N1 = _pick(log_NV, beams, rules)
    drawn_BW = drawn_N1.view(sentences, width).cpu().numpy()
    total_BW = beams.live_BW + log_NV.gather(1, drawn_N1).view(sentences, width).cpu().numpy()
    running_BW = beams.live_BW > NEVER / 2
    for row, column in np.argwhere((drawn_BW == rules.end) & running_BW).tolist():
        _finish(beams, row, column, float(total_BW[row, column]), rules)
    beams.live_BW = np.where((drawn_BW == rules.end) | ~running_BW, NEVER, total_BW)
    beams.live_BWT = np.concatenate([beams.live_BWT, drawn_BW[:, :, None]], axis=2)
    return np.arange(sentences * width).reshape(sentences, width)


def _pick(log_NV: Tensor, beams: Beams, rules: _Rules) -> Tensor:
    """Invert the cumulative distribution at a number of seed, sentence, hypothesis and step (of 1,024) alone."""
    config = rules.config
    sorted_NV, order_NV = (log_NV / config.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    cumulative_NV = sorted_NV.cumsum(1)
    if config.top_k:
        sorted_NV[:, config.top_k :] = 0
    # a token stays while those before it make up less than top_p: the first always does
    sorted_NV = sorted_NV.masked_fill(cumulative_NV - sorted_NV >= config.top_p, 0)
    cumulative_NV = (sorted_NV / sorted_NV.sum(1, keepdim=True)).cumsum(1)
    assert rules.uniforms is not None
    uniform_BW = torch.from_numpy(rules.uniforms[beams.sentence_B, :, beams.length % rules.uniforms.shape[2]])
    place_N1 = (cumulative_NV < uniform_BW.to(cumulative_NV).view(-1, 1)).sum(1, keepdim=True)
    allowed_N1 = ((sorted_NV > 0).sum(1, keepdim=True) - 1).clamp_(min=0)  # none, where they are no numbers
    return order_NV.gather(1, torch.minimum(place_N1, allowed_N1))


def _uniforms(config: SearchConfig, keys: Sequence[int]) -> np.ndarray | None:
    if not config.sample:
        return None
    draws = [np.random.default_rng((config.seed, key)).random((config.width, 1024)) for key in keys]
    return np.stack(draws).astype(np.float32)


def _finish(beams: Beams, row: int, column: int, total: float, rules: _Rules) -> None:
    """Move a hypothesis that took the end token among the finished ones of its sentence."""
    config = rules.config
    ids = [*beams.live_BWT[row, column, 1:].tolist(), rules.end]
    finished = beams.finished[beams.sentence_B[row]]
    finished.append(hypothesis(ids, total, config))
    finished.sort(key=lambda one: -one.score)
    del finished[config.width :]
    beams.ended_B[row] += 1
    beams.any_ended = True
    if len(finished) >= config.n_best:
        beams.to_beat_B[row] = finished[config.n_best - 1].score


def _retire(beams: Beams, rules: _Rules) -> np.ndarray | None:
    """Let sentences leave that are done; return which stay, or None where all do.

    Done means: at the limit; or patience is over; or no live hypothesis can better the best outputs. The last is Wu et
    al.'s bound, as in tensor2tensor's beam search: a live hypothesis only loses probability, and its penalty is at most
    that of the longest output.
    """
    config, length = rules.config, beams.length
    if not beams.any_ended and not (beams.limit_B <= length).any():
        return None
    best_B = beams.live_BW.max(axis=1)
    can_win_B = best_B / length_penalty(beams.limit_B, config.length_penalty) > beams.to_beat_B
    stays_B = (length < beams.limit_B) & (best_B > NEVER / 2) & can_win_B
    if config.patience and not config.sample:
        # a sentence from which more outputs are wanted than have ended goes on
        stays_B &= beams.ended_B < max(config.patience * config.width, config.n_best)
    if stays_B.all():
        return None
    # the last ones take the places of those that leave: the others need not move
    staying = int(stays_B.sum())
    staying_B = np.arange(staying)
    staying_B[~stays_B[:staying]] = staying + np.flatnonzero(stays_B[staying:])
    beams.keep(staying_B)
    return staying_B


def _forbid_repeats(score_BWV: Any, history_BWT: np.ndarray, size: int) -> None:
    """Give NEVER to each token that would complete an n-gram that its hypothesis already holds."""
    length = history_BWT.shape[2]
    if length < size:
        return
    windows_BWGn = np.lib.stride_tricks.sliding_window_view(history_BWT, size, axis=2)
    tail_BW1n = history_BWT[:, :, None, length - size + 1 :]
    repeated_BWG = (windows_BWGn[..., :-1] == tail_BW1n).all(-1)
    row_R, column_R, window_R = np.nonzero(repeated_BWG)
    score_BWV[row_R, column_R, windows_BWGn[row_R, column_R, window_R, -1]] = NEVER
