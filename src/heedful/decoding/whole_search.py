"""The search of search.py by a compiled model, in one call and without torch, where nothing asks for single steps."""

from collections.abc import Sequence

from heedful.data.lines import flatten
from heedful.decoding.hypothesis import NEVER, Hypothesis, hypothesis, limits
from heedful.decoding.settings import SearchConfig
from heedful.model.compiled import Compiled, SearchRules
from heedful.text.vocabulary import BEGIN, END, FORBIDDEN


def is_whole(config: SearchConfig) -> bool:
    """Return whether `whole_search` does what these settings ask for: it neither draws nor looks for repetitions."""
    return not (config.sample or config.no_repeat_ngram)


def whole_search(
    model: Compiled, sources: Sequence[Sequence[int]], config: SearchConfig, longest: int | None = None
) -> list[list[Hypothesis]]:
    """Return for each source, END last, its `n_best` outputs, best first: those that `search` finds, by test.

    No output has more than `longest` tokens.

    Raises:
        MemoryError: for so many hypotheses of so many sentences.
    """
    config.check()
    token_X, length_B = flatten(sources)
    remembered = model.remember(model.encode(token_X, length_B))
    rules = SearchRules(
        beam=config.beam,
        n_best=config.n_best,
        min_length=config.min_length,
        begin=BEGIN,
        end=END,
        length_penalty=config.length_penalty,
        patience=config.patience,
        never=NEVER,
    )
    most = limits((length_B - 1).tolist(), config, None, longest)
    found = model.search(remembered, most, FORBIDDEN, rules)
    return [[hypothesis(ids, total, config) for ids, total in own[: config.n_best]] for own in found]
