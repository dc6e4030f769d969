import math

import pytest

from heedful.training.schedule import learning_rate


def test_the_papers_schedule_is_equation_3():
    for step in (1, 399, 4000, 4001, 100_000):
        expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert learning_rate("paper", step, 100_000, 1.0, 4000, 0.0, 512) == pytest.approx(expected)


def test_the_papers_schedule_peaks_at_the_end_of_warmup():
    rates = [learning_rate("paper", step, 100, 1.0, 17, 0.0, 13) for step in range(1, 101)]
    assert rates.index(max(rates)) + 1 == 17


def test_stable_decay_rises_stays_and_falls_to_almost_nothing():
    rates = [learning_rate("stable-decay", step, 1000, 3e-3, 100, 0.2, 64) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(3e-5)
    assert set(rates[99:799]) == {3e-3}
    assert rates[899] == pytest.approx(3e-3 * 0.505, rel=0.01)
    assert 0 < rates[-1] < 3e-3 * 0.006
    assert all(a >= b for a, b in zip(rates[99:], rates[100:], strict=False))


def test_cosine_is_half_way_down_in_the_middle():
    assert learning_rate("cosine", 550, 1000, 2.0, 100, 0.0, 64) == pytest.approx(1.0, rel=0.01)
    assert learning_rate("cosine", 1000, 1000, 2.0, 100, 0.0, 64) == pytest.approx(0.0, abs=1e-9)
    assert math.isclose(learning_rate("cosine", 100, 1000, 2.0, 100, 0.0, 64), 2.0)
