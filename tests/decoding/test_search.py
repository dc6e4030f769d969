"""Search over a toy: random tables, one for each sentence, that depend on the whole history of a hypothesis."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch

from heedful.decoding.hypothesis import length_penalty
from heedful.decoding.search import search
from heedful.decoding.settings import SearchConfig
from heedful.errors import HeedfulError

BEGIN, END, LETTERS = 0, 1, (2, 3, 4)
V, CODES = 5, 101


def following(code, token):
    return (code * 7 + token + 1) % CODES


@dataclass
class Remembered:
    """A state that knows its history, and notices when it is reordered wrongly."""

    code_N: torch.Tensor
    sentence_N: torch.Tensor
    sentences_B: torch.Tensor

    def select(self, rows_N, sentences_B=None):
        kept = self.sentences_B if sentences_B is None else self.sentences_B[sentences_B]
        sentence_N = self.sentence_N[rows_N]
        assert sentence_N.tolist() == kept.repeat_interleave(len(sentence_N) // max(len(kept), 1)).tolist()
        return Remembered(self.code_N[rows_N], sentence_N, kept)


class Toy:
    """A step function over [sentence, code, token] logits; `rows` records how many hypotheses each step saw."""

    def __init__(self, sentences=3, seed=1, scale=1.5, end=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.logits = scale * torch.randn(sentences, CODES, V, generator=generator)
        self.logits[:, :, END] += end
        self.log = self.logits.log_softmax(-1)
        self.rows = []

    def __call__(self, token_N, state):
        self.rows.append(len(token_N))
        code_N = following(state.code_N, token_N)
        return self.logits[state.sentence_N, code_N], replace(state, code_N=code_N)

    def start(self, width, chosen=None):
        chosen = torch.arange(len(self.logits)) if chosen is None else torch.tensor(chosen)
        return Remembered(torch.zeros(len(chosen) * width, dtype=torch.long), chosen.repeat_interleave(width), chosen)

    def log_probability(self, sentence, ids):
        total, code, previous = 0.0, 0, BEGIN
        for token in ids:
            code = following(code, previous)
            total += self.log[sentence, code, token].item()
            previous = token
        return total

    def ranked(self, sentence, limit, alpha, keep=lambda ids: True):
        """All outputs of at most `limit` tokens, best first: (score, ids)."""
        outputs = [[*body, END] for length in range(limit) for body in itertools.product(LETTERS, repeat=length)]
        scored = [
            (self.log_probability(sentence, ids) / ((5 + len(ids)) / 6) ** alpha, ids) for ids in outputs if keep(ids)
        ]
        return sorted(scored, reverse=True)


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _both_ways(request, monkeypatch):
    """Search with the compiled functions, where they can be had, and without them."""
    if request.param == "torch":
        monkeypatch.setattr("heedful.decoding.search.library", lambda _name: None)


def run(toy, config, lengths=None, chosen=None, **more):
    lengths = lengths or [4] * (len(chosen) if chosen else len(toy.logits))
    return search(
        toy,
        toy.start(config.width if config.sample else 1, chosen),
        lengths,
        config,
        begin=BEGIN,
        end=END,
        forbidden=(BEGIN,),
        **more,
    )


def ids_of(found):
    return [[hypothesis.ids for hypothesis in hypotheses] for hypotheses in found]


def assert_equals_ranked(found, ranked, n_best):
    assert len(found) == min(n_best, len(ranked)) > 0
    assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in ranked[: len(found)]]
    assert [hypothesis.score for hypothesis in found] == pytest.approx(
        [score for score, _ in ranked[: len(found)]], abs=1e-5
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("n_best", [1, 7, 53])
def test_a_wide_beam_equals_brute_force(alpha, n_best, seed):
    toy = Toy(seed=seed)
    config = SearchConfig(beam=83, n_best=n_best, length_penalty=alpha, max_extra=1, patience=0)
    found = run(toy, config, lengths=[4, 2, 3])
    for sentence, limit in enumerate((5, 3, 4)):
        ranked = toy.ranked(sentence, limit, alpha)
        assert_equals_ranked(found[sentence], ranked, n_best)


@pytest.mark.parametrize("end", [-1.0, 1.0])
@pytest.mark.parametrize(("beam", "n_best"), [(1, 1), (2, 1), (3, 3), (5, 2)])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_stopping_early_loses_nothing(beam, n_best, alpha, end):
    """The reference is a beam search in plain lists that never stops before the limit."""
    toy, limit = Toy(sentences=7, seed=beam, end=end), 9

    def reference(sentence):
        live, finished = [(0.0, [])], []
        for length in range(1, limit + 1):
            candidates = [
                (toy.log_probability(sentence, [*ids, token]), [*ids, token])
                for _, ids in live
                for token in ((END,) if length == limit else (END, *LETTERS))
            ]
            best = sorted(candidates, reverse=True)[: 2 * beam]
            finished += [(total / length_penalty(length, alpha), ids) for total, ids in best[:beam] if ids[-1] == END]
            live = [(total, ids) for total, ids in best if ids[-1] != END][:beam]
        return sorted(finished, reverse=True)

    config = SearchConfig(beam=beam, n_best=n_best, length_penalty=alpha, max_extra=limit - 4, patience=0)
    found = run(toy, config)
    for sentence, hypotheses in enumerate(found):
        assert len(hypotheses) == n_best
        assert_equals_ranked(hypotheses, reference(sentence), n_best)


@pytest.mark.parametrize(("patience", "n_best"), [(0.5, 1), (1.0, 1), (1.0, 4), (2.0, 1)])
def test_patience_counts_the_hypotheses_that_ended(patience, n_best):
    """The reference is a beam search in plain lists that stops when enough have ended."""
    toy, beam, limit = Toy(sentences=7), 4, 11

    def reference(sentence):
        live, finished = [(0.0, [])], []
        for length in range(1, limit + 1):
            tokens = (END,) if length == limit else (END, *LETTERS)
            candidates = [
                (toy.log_probability(sentence, [*ids, token]), [*ids, token]) for _, ids in live for token in tokens
            ]
            best = sorted(candidates, reverse=True)[: 2 * beam]
            finished += [(total / length_penalty(length, 0.6), ids) for total, ids in best[:beam] if ids[-1] == END]
            live = [(total, ids) for total, ids in best if ids[-1] != END][:beam]
            if len(finished) >= max(patience * beam, n_best):
                break
        return sorted(finished, reverse=True)

    config = SearchConfig(beam=beam, n_best=n_best, max_extra=limit - 4, patience=patience)
    for sentence, hypotheses in enumerate(run(toy, config)):
        assert_equals_ranked(hypotheses, reference(sentence), n_best)


def test_greedy_is_the_chain_of_most_probable_tokens():
    toy = Toy(sentences=11)
    for sentence, [hypothesis] in enumerate(run(toy, SearchConfig(beam=1, length_penalty=0.0, max_extra=7))):
        code, expected = following(0, BEGIN), []
        while len(expected) < 10:
            log = toy.log[sentence, code].clone()
            log[BEGIN] = -math.inf
            expected.append(int(log.argmax()))
            if expected[-1] == END:
                break
            code = following(code, expected[-1])
        if expected[-1] != END:
            expected.append(END)
        assert hypothesis.ids == expected
        assert hypothesis.score == pytest.approx(toy.log_probability(sentence, expected), abs=1e-5)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_the_reported_score_is_that_of_the_reported_tokens(alpha, sample):
    toy = Toy(sentences=7)
    config = SearchConfig(beam=5, n_best=5, length_penalty=alpha, max_extra=7, sample=sample, temperature=1.3)
    for sentence, hypotheses in enumerate(run(toy, config)):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for ids, log_probability, score in hypotheses:
            assert log_probability == pytest.approx(toy.log_probability(sentence, ids), abs=1e-5)
            assert score == pytest.approx(log_probability / length_penalty(len(ids), alpha))


def test_the_length_penalty_is_wu_et_als():
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == pytest.approx(2.0)
    assert length_penalty(19, 0.5) == pytest.approx(2.0)
    assert length_penalty(13, 0.0) == 1.0


def test_no_output_is_longer_than_the_model_has_positions():
    config = SearchConfig(beam=3, n_best=3, max_extra=7, length_penalty=0.0, patience=0)
    lengths = {len(hypothesis.ids) for found in run(Toy(), config) for hypothesis in found}
    assert max(lengths) > 3
    for hypotheses in run(Toy(), config, longest=3):
        assert hypotheses
        assert all(len(hypothesis.ids) <= 3 for hypothesis in hypotheses)
    with pytest.raises(HeedfulError, match="3 positions; shorten it"):
        run(Toy(), config, longest=3, prefixes=[[3, 3, 3]] * len(Toy().logits))


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize(("max_extra", "lengths"), [(0, [1, 2, 7]), (3, [1, 2, 7]), (-5, [1, 2, 7])])
def test_no_output_is_longer_than_its_source_plus_max_extra(max_extra, lengths, sample):
    toy = Toy(end=-7.0)  # hardly ever ends by itself
    config = SearchConfig(beam=3, n_best=3, max_extra=max_extra, sample=sample)
    for length, hypotheses in zip(lengths, run(toy, config, lengths), strict=True):
        assert hypotheses
        for hypothesis in hypotheses:
            assert len(hypothesis.ids) <= max(1, length + max_extra)
            assert hypothesis.ids.count(END) == 1
            assert hypothesis.ids[-1] == END
    assert len(toy.rows) <= max(1, 7 + max_extra)


@pytest.mark.parametrize("sample", [False, True])
def test_no_output_is_shorter_than_min_length(sample):
    toy = Toy(end=5.0)
    config = SearchConfig(beam=3, n_best=3, max_extra=5, sample=sample)
    assert min(len(h.ids) for found in run(toy, config) for h in found) < 4
    for found in run(toy, replace(config, min_length=4)):
        assert found
        assert all(len(hypothesis.ids[:-1]) >= 4 for hypothesis in found)


def test_min_length_equals_brute_force():
    toy = Toy(end=2.0)
    found = run(toy, SearchConfig(beam=83, n_best=5, max_extra=1, min_length=2, patience=0))
    for sentence, hypotheses in enumerate(found):
        assert_equals_ranked(hypotheses, toy.ranked(sentence, 5, 0.6, lambda ids: len(ids) > 2), 5)


def test_a_min_length_beyond_the_limit_still_gives_an_output():
    assert all(run(Toy(), SearchConfig(beam=2, max_extra=1, min_length=11)))


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_no_ngram_is_repeated(size, sample):
    def grams(ids):
        return [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]

    def repeats(config):
        found = run(Toy(sentences=7, end=-5.0), config, lengths=[4] * 7)
        assert all(found)
        return [h.ids for hypotheses in found for h in hypotheses if len(set(grams(h.ids))) < len(grams(h.ids))]

    config = SearchConfig(beam=3, n_best=3, max_extra=4, sample=sample)
    assert repeats(config), "without the rule they do repeat"
    assert not repeats(replace(config, no_repeat_ngram=size))


@pytest.mark.parametrize("size", [1, 2])
def test_no_repeat_equals_brute_force(size):
    def fresh(ids):
        grams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
        return len(grams) == len(set(grams))

    toy = Toy()
    found = run(toy, SearchConfig(beam=83, n_best=11, max_extra=1, no_repeat_ngram=size, patience=0))
    for sentence, hypotheses in enumerate(found):
        assert_equals_ranked(hypotheses, toy.ranked(sentence, 5, 0.6, fresh), 11)


def test_prefixes_are_forced_and_the_rest_is_searched():
    toy, prefixes = Toy(), [[3, 3], [], [4]]
    found = run(toy, SearchConfig(beam=83, n_best=7, max_extra=1, patience=0), prefixes=prefixes)
    for sentence, (hypotheses, prefix) in enumerate(zip(found, prefixes, strict=True)):
        ranked = toy.ranked(sentence, 5, 0.6, lambda ids, prefix=prefix: ids[: len(prefix)] == prefix)
        assert_equals_ranked(hypotheses, ranked, 7)


@pytest.mark.parametrize("sample", [False, True])
def test_a_prefix_beyond_the_limit_and_against_the_rules_is_forced_all_the_same(sample):
    prefix = [3, 3, 3, 3, 3, BEGIN]
    config = SearchConfig(beam=3, max_extra=0, no_repeat_ngram=1, sample=sample)
    for [hypothesis] in run(Toy(), config, lengths=[1, 2, 3], prefixes=[prefix] * 3):
        assert hypothesis.ids == [*prefix, END]


@pytest.mark.parametrize("sample", [False, True])
def test_forbidden_symbols_never_appear(sample):
    toy = Toy(end=-5.0)
    toy.logits[:, :, (BEGIN, 3)] += 11
    config = SearchConfig(beam=5, n_best=5, max_extra=9, sample=sample)
    found = search(toy, toy.start(5 if sample else 1), [4] * 3, config, begin=BEGIN, end=END, forbidden=(BEGIN, 3))
    assert all({*hypothesis.ids} <= {END, 2, 4} for hypotheses in found for hypothesis in hypotheses)


def test_a_finished_sentence_leaves_the_batch():
    toy = Toy()
    toy.logits[0, :, END] += 50  # ends at once
    toy.logits[1:, :, END] -= 50  # never ends by itself
    run(toy, SearchConfig(beam=2, max_extra=3), lengths=[4, 4, 2])
    assert toy.rows == [3, *[4] * 4, *[2] * 2]


@pytest.mark.parametrize("sample", [False, True])
def test_results_do_not_depend_on_the_rest_of_the_batch(sample):
    toy = Toy(sentences=5)
    config = SearchConfig(beam=3, n_best=3, max_extra=5, sample=sample)
    together = ids_of(run(toy, config, [4, 2, 7, 1, 3], keys=[11, 13, 17, 19, 23]))
    for order in ([2], [4, 0], [3, 1, 2]):
        lengths = [[4, 2, 7, 1, 3][i] for i in order]
        alone = run(toy, config, lengths, chosen=order, keys=[[11, 13, 17, 19, 23][i] for i in order])
        assert ids_of(alone) == [together[i] for i in order]


def test_no_sentences_give_no_outputs():
    toy = Toy()
    assert search(toy, toy.start(4, []), [], SearchConfig(), begin=BEGIN, end=END) == []


def test_sampling_follows_its_seed():
    toy, config = Toy(sentences=7), SearchConfig(beam=3, n_best=3, max_extra=7, sample=True)
    assert ids_of(run(toy, config)) == ids_of(run(toy, config))
    assert ids_of(run(toy, config)) != ids_of(run(toy, replace(config, seed=2)))
    same = run(toy, config, chosen=[0, 0], keys=[5, 6])
    assert ids_of(same)[0] != ids_of(same)[1], "keys tell sentences apart"


@pytest.mark.parametrize("change", [{"top_k": 1}, {"temperature": 1e-3}, {"top_p": 1e-6}])
def test_sampling_from_the_most_probable_symbol_alone_is_greedy(change):
    toy = Toy(sentences=11)
    found = run(toy, SearchConfig(beam=2, n_best=2, max_extra=7, sample=True, **change))
    for sentence, (one, two) in enumerate(found):
        assert one.ids == two.ids
        code = following(0, BEGIN)
        for token in one.ids[:10]:
            allowed = toy.log[sentence, code, 1:]
            assert token == 1 + int(allowed.argmax())
            code = following(code, token)


@pytest.mark.parametrize(
    ("change", "kept"),
    [({}, 4), ({"temperature": 0.5}, 4), ({"temperature": 2.0}, 4), ({"top_k": 2}, 2), ({"top_p": 0.65}, 2)]
    + [({"top_p": 0.4}, 1), ({"top_k": 3, "top_p": 0.65}, 2), ({"top_k": 7}, 4)],
)
def test_frequencies_of_samples_follow_the_distribution(change, kept):
    probabilities = {3: 0.5, END: 0.25, 2: 0.15, 4: 0.1}
    toy, draws = Toy(sentences=1), 1499
    toy.logits[:] = -math.inf
    for token, probability in probabilities.items():
        toy.logits[:, :, token] = math.log(probability)
    config = SearchConfig(beam=draws, n_best=draws, max_extra=1, sample=True, **change)
    [found] = run(toy, config, lengths=[1])  # two tokens at most, the second of them END
    counts = Counter(hypothesis.ids[0] for hypothesis in found)
    assert sum(counts.values()) == draws
    weights = {s: p ** (1 / config.temperature) for s, p in [*probabilities.items()][:kept]}
    assert counts.keys() == weights.keys()
    for token, weight in weights.items():
        p = weight / sum(weights.values())
        assert counts[token] / draws == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / draws) + 1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"beam": 0},
        {"patience": -1.0},
        {"n_best": 0},
        {"n_best": 5},
        {"temperature": 0.0},
        {"temperature": 1e-40},
        {"temperature": math.nan},
        {"temperature": 1e6},
        {"top_p": 0.0},
        {"top_p": 1.1},
    ]
    + [{"length_penalty": -0.1}],
)
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(HeedfulError, match="search"):
        run(Toy(), replace(SearchConfig(), **change))


def test_a_forced_symbol_that_is_forbidden_keeps_its_own_price():
    toy = Toy()
    config = SearchConfig(beam=1, length_penalty=0.0)
    found = run(toy, config, prefixes=[[BEGIN]] * len(toy.logits))  # `run` forbids BEGIN
    for sentence, (best, *_) in enumerate(found):
        assert best.ids[0] == BEGIN
        assert best.log_probability == pytest.approx(toy.log_probability(sentence, best.ids), abs=1e-4)


def test_one_sample_is_one_draw_and_not_the_best_of_a_beam():
    toy, config = Toy(sentences=1), SearchConfig(beam=7, n_best=1, max_extra=7, sample=True)
    assert config.width == 1
    single = replace(config, beam=1)
    for key in range(31):
        wide = search(toy, toy.start(1), [4], config, begin=BEGIN, end=END, keys=[key])
        narrow = search(toy, toy.start(1), [4], single, begin=BEGIN, end=END, keys=[key])
        assert wide[0][0].ids == narrow[0][0].ids
        assert len(wide[0]) == 1
