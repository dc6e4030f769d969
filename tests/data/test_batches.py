import os
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data.batches import Batch, BatchConfig, BatchStream, batch_of, plan_epoch
from heedful.data.tokens import SCHEMA, TokenStore, encode_corpus
from heedful.errors import HeedfulError
from heedful.text.vocabulary import BEGIN, END, PAD, VocabularyConfig, learn

DATA = Path(os.environ.get("HEEDFUL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
FIRST = 5  # the smallest id that is not special in the stores below

some_lengths = st.lists(st.tuples(st.integers(2, 31), st.integers(2, 31)), min_size=1, max_size=151)


def store_of(folder, lengths, corpus=None):
    """A store whose pair n consists of the id FIRST + n, and END, at the given lengths."""
    sides = [[[FIRST + n] * (pair[side] - 1) + [END] for n, pair in enumerate(lengths)] for side in (0, 1)]
    columns = [*sides, [0] * len(lengths) if corpus is None else corpus]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with pa.OSFile(str(folder / "store"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    return TokenStore(folder / "store")


@pytest.fixture
def store(tmp_path):
    generator = np.random.default_rng(3)
    return store_of(tmp_path, generator.integers(2, 23, (211, 2)).tolist())


def rows_of(batch):
    return (batch.source_BS[:, 0] - FIRST).tolist()


def epoch_of(stream):
    """The batches of the epoch that begins with the stream's next batch."""
    first = next(iter(stream))  # only now the stream knows that the last epoch is over
    return [first, *islice(stream, len(stream.plan()) - 1)]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def order(stream, batches):
    return [rows_of(batch) for batch in islice(stream, batches)]


@settings(deadline=None)
@given(some_lengths, st.integers(1, 61), st.integers(0, 3))
def test_every_pair_is_in_exactly_one_batch_and_no_batch_exceeds_the_tokens(lengths, tokens, seed):
    source_N, target_N = np.array(lengths).T
    batches = plan_epoch(source_N, target_N, tokens, np.random.default_rng(seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        width = max(source_N[batch].max(), target_N[batch].max())
        assert len(batch) == 1 or width * len(batch) <= tokens


@settings(deadline=None, max_examples=31)
@given(some_lengths, st.integers(7, 61))
def test_a_stream_shows_every_pair_once_an_epoch_with_its_own_target(lengths, tokens):
    with TemporaryDirectory() as folder:
        stream = BatchStream(store_of(Path(folder), lengths), BatchConfig(tokens=tokens))
        for epoch in (0, 1):
            batches = epoch_of(stream)
            assert stream.epoch == epoch
            assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(len(lengths)))
            for batch in batches:
                assert torch.equal(batch.source_BS[:, 0], batch.target_out_BT[:, 0])
                assert batch.source_lengths_B.tolist() == [lengths[row][0] for row in rows_of(batch)]
                assert (batch.target_out_BT != PAD).sum(1).tolist() == [lengths[row][1] for row in rows_of(batch)]


def test_the_last_batch_is_not_lost_when_the_budget_is_met_exactly():
    lengths_N = np.full(13, 7)
    batches = plan_epoch(lengths_N, lengths_N, 7 * 5, np.random.default_rng(2))
    assert sorted(map(len, batches)) == [3, 5, 5]


def test_a_long_pair_behind_short_ones_does_not_exceed_the_tokens_with_those_left_over():
    lengths_N = np.array([2] * 17 + [31])
    batches = plan_epoch(lengths_N, lengths_N, 61, np.random.default_rng(2))
    assert sorted(map(len, batches)) == [1, 1, 16]


def test_batches_have_few_shapes_so_that_no_product_is_compiled_for_one_of_them_alone():
    lengths_N = np.random.default_rng(3).integers(5, 41, 20_011)
    batches = plan_epoch(lengths_N, lengths_N, 4001, np.random.default_rng(5))
    rows = np.array([len(batch) for batch in batches])
    lowest_digit, binary_digits = rows & -rows, np.array([int(row).bit_length() for row in rows])
    assert (lowest_digit.astype(float) < 2.0 ** (binary_digits - 4)).sum() <= 1  # the last one is what is left
    tokens = [lengths_N[batch].max() * len(batch) for batch in batches]
    assert np.mean(tokens) > 0.9 * 4001  # and they are not much smaller for it


def test_the_target_in_is_the_target_out_moved_right_behind_begin():
    lines = [[7, 11, END], [13, END], [5, 6, 17, 19, END]]
    batch = batch_of([[23, END]] * 3, lines)
    for row, line in enumerate(lines):
        padding = [PAD] * (5 - len(line))
        assert batch.target_out_BT[row].tolist() == line + padding
        assert batch.target_in_BT[row].tolist() == [BEGIN, *line[:-1], *padding]


def test_the_sides_keep_their_own_widths_and_the_source_lengths_count_end():
    batch = batch_of([[7, 11, 13, END], [END]], [[5, END], [5, END]])
    assert batch.source_BS.tolist() == [[7, 11, 13, END], [END, PAD, PAD, PAD]]
    assert batch.source_lengths_B.tolist() == [4, 1]
    assert batch.target_out_BT.shape == batch.target_in_BT.shape == (2, 2)
    assert all(tensor.dtype == torch.int64 for tensor in batch)


def test_a_batch_moves_whole():
    moved = batch_of([[7, END]], [[5, END]]).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert all(tensor.is_meta for tensor in moved)


def test_the_same_seed_gives_the_same_order_and_another_seed_or_epoch_another(store):
    first, same, other = (BatchStream(store, BatchConfig(tokens=53, seed=seed)) for seed in (2, 2, 3))
    batches = len(first.plan())
    one_epoch = order(first, batches)
    assert order(same, batches) == one_epoch
    assert order(other, batches) != one_epoch
    assert order(first, batches) != one_epoch
    assert first.epoch == 1


def test_batches_come_in_random_order_of_length(store):
    widths = [batch.target_out_BT.size(1) for batch in epoch_of(BatchStream(store, BatchConfig(tokens=53)))]
    assert widths not in (sorted(widths), sorted(widths, reverse=True))


@cache
def little_text():
    digits = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    return [" ".join(digits[int(digit)] for digit in str(n * n)) for n in range(101)]


@cache
def little_vocabulary():
    return learn(little_text(), little_text(), VocabularyConfig(size=307))


@pytest.fixture
def text_store(tmp_path):
    pairs = ((0, line, line) for line in little_text())
    encode_corpus(pairs, little_vocabulary(), tmp_path / "text", max_length=97, max_ratio=9.0)
    return TokenStore(tmp_path / "text")


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_restored_stream_continues_with_equal_batches_from_any_step(text_store, dropout, world):
    def stream():
        options = {"vocabulary": little_vocabulary(), "subword_dropout": dropout, "rank": world - 1, "world": world}
        return BatchStream(text_store, BatchConfig(tokens=61), **options)

    original, states, batches = stream(), [], []
    for batch in islice(original, 2 * len(original.plan()) // world + 3):
        batches.append(batch)
        states.append(original.state())
    assert states[-1]["epoch"] == 2
    for step in range(0, len(states) - 1, 5):
        restored = stream()
        restored.restore(states[step])
        for expected, found in zip(batches[step + 1 : step + 4], restored, strict=False):
            assert equal(expected, found)


def test_a_stream_of_other_text_is_not_continued(text_store, tmp_path):
    pairs = ((0, line, line) for line in little_text()[1:])
    encode_corpus(pairs, little_vocabulary(), tmp_path / "less", max_length=97, max_ratio=9.0)
    one, other = (BatchStream(store, BatchConfig(tokens=61)) for store in (text_store, TokenStore(tmp_path / "less")))
    with pytest.raises(HeedfulError, match="not those that this training began with"):
        other.restore(one.state())


def test_subword_dropout_changes_the_segmentation_anew_each_epoch_and_never_the_text(text_store):
    words = little_vocabulary()
    config = BatchConfig(tokens=61)
    plain = epoch_of(BatchStream(text_store, config))
    stream = BatchStream(text_store, config, vocabulary=words, subword_dropout=0.3)
    dropped, later = epoch_of(stream), epoch_of(stream)

    def texts(batches):
        sides = (side for batch in batches for side in (batch.source_BS, batch.target_out_BT))
        return Counter(words.decode_target(line) for side in sides for line in side.tolist())

    def lines(batches):
        return Counter(str([i for i in line if i != PAD]) for batch in batches for line in batch.source_BS.tolist())

    assert texts(dropped) == texts(later) == texts(plain) == Counter(little_text() * 2)
    assert len({str(lines(batches)) for batches in (plain, dropped, later)}) == 3


def test_two_processes_share_out_what_one_alone_sees_step_by_step(store):
    config = BatchConfig(tokens=53)
    alone = BatchStream(store, config)
    ranks = [BatchStream(store, config, rank=rank, world=2) for rank in (0, 1)]
    steps = len(alone.plan()) // 2
    for _, (first, second) in zip(range(steps), zip(*ranks, strict=True), strict=False):
        expected = list(islice(alone, 2))
        assert equal(expected[0], first)
        assert equal(expected[1], second)


def test_processes_change_the_epoch_together_also_with_an_odd_number_of_batches(tmp_path):
    store = store_of(tmp_path, [(7, 7)] * 13)
    ranks = [BatchStream(store, BatchConfig(tokens=7), rank=rank, world=2) for rank in (0, 1)]
    for first, second, _ in zip(*ranks, range(41), strict=False):
        assert ranks[0].state() == ranks[1].state()
        assert rows_of(first) != rows_of(second)


def test_more_processes_than_batches_still_give_each_one_a_batch(tmp_path):
    store = store_of(tmp_path, [(7, 7)] * 2)
    for rank in range(5):
        stream = BatchStream(store, BatchConfig(tokens=7), rank=rank, world=5)
        assert [len(rows) for rows in order(stream, 3)] == [1, 1, 1]


def test_a_weight_of_two_shows_a_corpus_twice_and_one_of_a_half_about_half(tmp_path):
    number = 997
    corpus = [row % 3 for row in range(number)]
    store = store_of(tmp_path, [(3, 3)] * number, corpus)
    stream = BatchStream(store, BatchConfig(tokens=211), weights=(2.0, 0.5, 1.0))
    chosen = []
    for _ in range(2):
        times = Counter(row for batch in epoch_of(stream) for row in rows_of(batch))
        assert all(times[row] == {0: 2, 2: 1}[corpus[row]] for row in range(number) if corpus[row] != 1)
        chosen.append({row for row in times if corpus[row] == 1})
        assert all(times[row] == 1 for row in chosen[-1])
        deviation = (number / 3 * 0.25) ** 0.5
        assert abs(len(chosen[-1]) - number / 3 / 2) < 5 * deviation
    assert chosen[0] != chosen[1]


def test_weights_of_one_change_nothing(store):
    config = BatchConfig(tokens=53)
    assert order(BatchStream(store, config, weights=(1.0,)), 29) == order(BatchStream(store, config), 29)


def test_an_epoch_in_which_chance_leaves_no_pair_is_passed_over(tmp_path):
    store = store_of(tmp_path, [(3, 3)])
    assert order(BatchStream(store, BatchConfig(), weights=(0.1,)), 3) == [[0]] * 3


def padding_of(source_N, target_N, tokens):
    batches = plan_epoch(source_N, target_N, tokens, np.random.default_rng(2))
    sides = [(side_N[batch], len(batch)) for side_N in (source_N, target_N) for batch in batches]
    return 1 - sum(lengths.sum() for lengths, _ in sides) / sum(lengths.max() * rows for lengths, rows in sides)


@pytest.mark.parametrize("corpus", ["multi30k-en-de", "tatoeba-en-de"])
def test_less_than_a_twentieth_of_real_batches_is_padding(corpus):
    files = [DATA / corpus / f"train.{side}" for side in ("en", "de")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{DATA / corpus} is not here; set HEEDFUL_DATA to the folder of the corpora")
    sides = [file.read_text(encoding="utf-8").strip().split("\n") for file in files]
    words = learn(*(side[:20_011] for side in sides), VocabularyConfig())
    source_N, target_N = (np.array([len(line) for line in words.encode_source(side, 2)]) for side in sides)
    assert padding_of(source_N, target_N, BatchConfig().tokens) < 0.05
    shuffled = np.random.default_rng(3).permutation(len(target_N))
    unsorted = np.array_split(shuffled, len(shuffled) // 101)
    loose = sum(source_N[rows].max() * len(rows) for rows in unsorted)
    assert 1 - source_N.sum() / loose > 0.2  # what random batches would pad: the law above is no matter of course
