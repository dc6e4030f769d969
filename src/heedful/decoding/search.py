"""One batched search over a step function; greedy is a beam of one, sampling a beam of independent draws.

`B` sentences still searched, `W` hypotheses of each, `N` = B x W, `V` vocabulary, `T` symbols so far.
Hypotheses of a sentence are neighbours: row n belongs to sentence n // W.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from heedful.config import setting
from heedful.errors import HeedfulError

NEVER = -1e9  # the log-probability of what must not be: finite, so that sums stay numbers


@dataclass(frozen=True)
class SearchConfig:
    """How to look for the best output; the defaults are the paper's (section 6.1)."""

    beam: int = setting(4, "Hypotheses kept at each step; 1 = greedy")
    length_penalty: float = setting(0.6, "Alpha of Wu et al. 2016: scores are divided by ((5 + length) / 6)^alpha")
    n_best: int = setting(1, "Outputs to return for each input, at most the beam")
    max_extra: int = setting(50, "Longest output: the source's length plus this, in subwords")
    min_length: int = setting(0, "Shortest output, in subwords")
    no_repeat_ngram: int = setting(0, "Forbid an output to repeat any sequence of so many subwords; 0 = allow")
    sample: bool = setting(False, "Draw outputs at random instead of searching for the best")
    temperature: float = setting(1.0, "Sampling: divide logits by this")
    top_k: int = setting(0, "Sampling: draw from the k most probable symbols; 0 = from all")
    top_p: float = setting(1.0, "Sampling: draw from the most probable symbols that make up this probability")
    seed: int = setting(1, "Sampling: seed")

    @property
    def width(self) -> int:
        """Hypotheses of a sentence at each step: the beam, or as many independent draws as outputs are wanted."""
        return self.n_best if self.sample else self.beam

    def check(self) -> None:
        """Refuse settings that cannot be.

        Raises:
            HeedfulError: with the setting and its range.
        """
        if self.beam < 1:
            raise HeedfulError(f"search: beam {self.beam} must be at least 1")
        if not 1 <= self.n_best <= max(self.width, 1):
            raise HeedfulError(f"search: n_best {self.n_best} must be between 1 and the beam, {self.beam}")
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.length_penalty < 0:
            raise HeedfulError("search: temperature must be above 0, top_p in (0, 1], length_penalty at least 0")


class State(Protocol):
    """What the step function remembers; search only ever reorders it."""

    def select(self, rows_N: Tensor, sentences_B: Tensor | None = None) -> Self:
        """Keep the given hypotheses in that order, and, if given, only these sentences."""
        ...


S = TypeVar("S", bound=State)


class Hypothesis(NamedTuple):
    """One output: symbols up to and with the end symbol, its log-probability, and its length-normalised score."""

    ids: list[int]
    log_probability: float
    score: float


@dataclass
class Beams:
    """All that a search carries from step to step, for the sentences that are not done."""

    sentence_B: Tensor  # which input each row of sentences is
    limit_B: Tensor  # longest output
    live_BWT: Tensor  # symbols of live hypotheses
    live_BW: Tensor  # their log-probabilities
    finished: list[list[Hypothesis]]  # for each input, best first


def length_penalty(length: float, alpha: float) -> float:
    """Return ((5 + length) / 6)^alpha  (Wu et al. 2016, equation 14)."""
    return float(((5.0 + length) / 6.0) ** alpha)


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
) -> list[list[Hypothesis]]:
    """Return for each sentence its `n_best` outputs, best first.

    Args:
        step: (last symbols [N], state) -> (logits [N, V], state)
        state: for N = B x `config.width` hypotheses; only its `select` is used
        source_lengths_B: lengths of the inputs, which bound those of the outputs
        config: the search's settings
        begin, end: the symbols before the first and after the last
        forbidden: symbols that never stand in an output, such as padding
        prefixes: symbols that each output must begin with
        keys: a number for each sentence that its random draws depend on, so that they do not depend on the batch
        device: where the step function computes
    """
    config.check()
    sentences, width = len(source_lengths_B), config.width
    extra = [len(prefix) for prefix in prefixes] if prefixes else [0] * sentences
    beams = Beams(
        sentence_B=torch.arange(sentences, device=device),
        limit_B=torch.tensor(
            [max(length + config.max_extra, e + 1) for length, e in zip(source_lengths_B, extra, strict=True)],
            device=device,
        ),
        live_BWT=torch.full((sentences, width, 1), begin, device=device),
        live_BW=torch.zeros(sentences, width, device=device),
        finished=[[] for _ in range(sentences)],
    )
    if not config.sample:  # hypotheses of a sentence begin alike: only the first may have successors
        beams.live_BW[:, 1:] = NEVER
    rules = _Rules(config, end, list(forbidden), prefixes, _uniforms(config, keys or range(sentences)))
    while len(beams.sentence_B):
        logits_NV, state = step(beams.live_BWT[:, :, -1].flatten(), state)
        log_BWV = rules.apply(logits_NV, beams)
        advance = _draw if config.sample else _extend
        rows_BW = advance(log_BWV, beams, rules)
        staying_B = _retire(beams, rules)
        if len(staying_B) < len(rows_BW):
            state = state.select(rows_BW[staying_B].flatten(), staying_B)
        elif width > 1:
            state = state.select(rows_BW.flatten())
    return [hypotheses[: config.n_best] for hypotheses in beams.finished]


@dataclass
class _Rules:
    """What may follow what: everything of the settings that shapes probabilities."""

    config: SearchConfig
    end: int
    forbidden: list[int]
    prefixes: Sequence[Sequence[int]] | None
    uniforms: np.ndarray | None

    def apply(self, logits_NV: Tensor, beams: Beams) -> Tensor:
        """Return log-probabilities [B, W, V]; what is not allowed has NEVER."""
        log_BWV = logits_NV.float().log_softmax(-1).view(*beams.live_BW.shape, -1)
        length = beams.live_BWT.size(2)  # of the output after this step, begin not counted
        forced = self._forced(log_BWV, beams, length)
        log_BWV[:, :, self.forbidden] = NEVER
        if length <= self.config.min_length:
            log_BWV[beams.limit_B > length, :, self.end] = NEVER
        at_limit = (beams.limit_B == length).nonzero()[:, 0]
        if len(at_limit):  # a hypothesis that reaches the limit ends there, at the price of its end symbol
            end = log_BWV[at_limit, :, self.end].clone()
            log_BWV[at_limit] = NEVER
            log_BWV[at_limit, :, self.end] = end
        if self.config.no_repeat_ngram:
            _forbid_repeats(log_BWV, beams.live_BWT[:, :, 1:], self.config.no_repeat_ngram)
        for row, symbol, log_W in forced:  # at its own price, whatever the rules above say of it
            log_BWV[row] = NEVER
            log_BWV[row, :, symbol] = log_W
        return log_BWV

    def _forced(self, log_BWV: Tensor, beams: Beams, length: int) -> list[tuple[int, int, Tensor]]:
        """Return (row, symbol, its log-probabilities [W]) of the sentences that are still within their prefix."""
        if not self.prefixes:
            return []
        pending = [(row, self.prefixes[sentence]) for row, sentence in enumerate(beams.sentence_B.tolist())]
        within = [(row, prefix[length - 1]) for row, prefix in pending if length <= len(prefix)]
        return [(row, symbol, log_BWV[row, :, symbol].clone()) for row, symbol in within]


def _extend(log_BWV: Tensor, beams: Beams, rules: _Rules) -> Tensor:
    """Make the best W live successors of each sentence, and finish those of the best 2W that end.

    Of 2W candidates at most W end, one for each hypothesis; so W live ones always remain. Returns the rows that
    the live hypotheses came from.
    """
    sentences, width, symbols = log_BWV.shape
    total_BWV = beams.live_BW[:, :, None] + log_BWV
    best_BC, flat_BC = total_BWV.flatten(1).topk(min(2 * width, width * symbols), dim=1)
    parent_BC, symbol_BC = flat_BC // symbols, flat_BC % symbols
    ended_BC = symbol_BC == rules.end
    for row, column in (ended_BC & (best_BC > NEVER / 2)).nonzero().tolist():
        _finish(beams, row, int(parent_BC[row, column]), float(best_BC[row, column]), rules)
    live_BC = best_BC.masked_fill(ended_BC, 2 * NEVER)
    beams.live_BW, kept_BW = live_BC.topk(width, dim=1)
    parent_BW, symbol_BW = parent_BC.gather(1, kept_BW), symbol_BC.gather(1, kept_BW)
    history_BWT = beams.live_BWT.gather(1, parent_BW[:, :, None].expand(-1, -1, beams.live_BWT.size(2)))
    beams.live_BWT = torch.cat([history_BWT, symbol_BW[:, :, None]], dim=2)
    return parent_BW + torch.arange(sentences, device=parent_BW.device)[:, None] * width


def _draw(log_BWV: Tensor, beams: Beams, rules: _Rules) -> Tensor:
    """Draw one successor for each hypothesis; one that has ended stays as it is, with a log-probability of NEVER."""
    sentences, width, _ = log_BWV.shape
    drawn_BW = _pick(log_BWV, beams, rules)
    total_BW = beams.live_BW + log_BWV.gather(2, drawn_BW[:, :, None])[:, :, 0]
    running_BW = beams.live_BW > NEVER / 2
    for row, column in ((drawn_BW == rules.end) & running_BW).nonzero().tolist():
        _finish(beams, row, column, float(total_BW[row, column]), rules)
    beams.live_BW = total_BW.masked_fill((drawn_BW == rules.end) | ~running_BW, NEVER)
    beams.live_BWT = torch.cat([beams.live_BWT, drawn_BW[:, :, None]], dim=2)
    return torch.arange(sentences * width, device=log_BWV.device).view(sentences, width)


def _pick(log_BWV: Tensor, beams: Beams, rules: _Rules) -> Tensor:
    """Invert the cumulative distribution at a number that depends on seed, sentence, hypothesis and step alone."""
    config = rules.config
    probability_BWV = (log_BWV / config.temperature).softmax(-1)
    sorted_BWV, order_BWV = probability_BWV.sort(dim=-1, descending=True, stable=True)
    cumulative_BWV = sorted_BWV.cumsum(-1)
    if config.top_k:
        sorted_BWV[:, :, config.top_k :] = 0
    # a symbol stays while those before it make up less than top_p: the first always does
    sorted_BWV = sorted_BWV.masked_fill(cumulative_BWV - sorted_BWV >= config.top_p, 0)
    cumulative_BWV = (sorted_BWV / sorted_BWV.sum(-1, keepdim=True)).cumsum(-1)
    assert rules.uniforms is not None
    step = beams.live_BWT.size(2) - 1
    uniform_BW = torch.from_numpy(rules.uniforms[beams.sentence_B.cpu().numpy(), :, step % rules.uniforms.shape[2]])
    uniform_BW1 = uniform_BW.to(cumulative_BWV)[:, :, None]
    place_BW1 = (cumulative_BWV < uniform_BW1).sum(-1, keepdim=True)
    allowed_BW1 = (sorted_BWV > 0).sum(-1, keepdim=True) - 1
    return order_BWV.gather(2, torch.minimum(place_BW1, allowed_BW1))[:, :, 0]


def _uniforms(config: SearchConfig, keys: Sequence[int]) -> np.ndarray | None:
    if not config.sample:
        return None
    draws = [np.random.default_rng((config.seed, key)).random((config.width, 1024)) for key in keys]
    return np.stack(draws).astype(np.float32)


def _finish(beams: Beams, row: int, column: int, total: float, rules: _Rules) -> None:
    """Move a hypothesis that took the end symbol among the finished ones of its sentence."""
    ids = [*beams.live_BWT[row, column, 1:].tolist(), rules.end]
    score = total / length_penalty(len(ids), rules.config.length_penalty)
    finished = beams.finished[int(beams.sentence_B[row])]
    finished.append(Hypothesis(ids, total, score))
    finished.sort(key=lambda hypothesis: -hypothesis.score)
    del finished[rules.config.width :]


def _retire(beams: Beams, rules: _Rules) -> Tensor:
    """Let sentences leave whose best outputs no live hypothesis can better; return the rows that stay.

    A live hypothesis only loses probability, and its penalty is at most that of the longest output: Wu et al.'s
    bound, as in tensor2tensor's beam search. With it, search ends early and loses nothing.
    """
    config = rules.config
    length = beams.live_BWT.size(2) - 1
    best_live = beams.live_BW.amax(1).tolist()
    staying = []
    for row, (sentence, limit) in enumerate(zip(beams.sentence_B.tolist(), beams.limit_B.tolist(), strict=True)):
        finished = beams.finished[sentence]
        worst = finished[config.n_best - 1].score if len(finished) >= config.n_best else -math.inf
        alive = length < limit and best_live[row] > NEVER / 2
        if alive and best_live[row] / length_penalty(limit, config.length_penalty) > worst:
            staying.append(row)
    staying_B = torch.tensor(staying, dtype=torch.long, device=beams.live_BW.device)
    if len(staying) < len(best_live):
        beams.sentence_B, beams.limit_B = beams.sentence_B[staying_B], beams.limit_B[staying_B]
        beams.live_BWT, beams.live_BW = beams.live_BWT[staying_B], beams.live_BW[staying_B]
    return staying_B


def _forbid_repeats(log_BWV: Tensor, history_BWT: Int[Tensor, "B W T"], size: int) -> None:
    """Give NEVER to each symbol that would complete an n-gram that its hypothesis already holds."""
    length = history_BWT.size(2)
    if length < size:
        return
    windows_BWGn = history_BWT.unfold(2, size, 1)
    tail_BW1n = history_BWT[:, :, length - size + 1 :].unsqueeze(2)
    repeated_BWG = (windows_BWGn[..., :-1] == tail_BW1n).all(-1)
    last_BWG = windows_BWGn[..., -1]
    penalty_BWG: Float[Tensor, "B W G"] = torch.where(repeated_BWG, NEVER, 0.0).to(log_BWV)
    log_BWV.scatter_add_(2, last_BWG, penalty_BWG)
