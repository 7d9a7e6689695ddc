"""Bootstrap intervals against the normal approximation, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bootstrap import (
    RESAMPLES,
    bootstrap_mean_difference,
    bootstrap_statistic,
)


def scores(count: int, shift: float, seed: int) -> tuple[list[float], list[float]]:
    """Two systems' scores of clips of very different difficulty; their mean difference is shift."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0, 5, count)
    second = difficulty + generator.normal(0, 0.5, count)
    first = difficulty + generator.normal(shift, 0.5, count)
    return first.tolist(), second.tolist()


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    first, second = scores(1000, 0.3, seed=0)
    differences = np.subtract(first, second)
    error = differences.std() / np.sqrt(1000)
    found = bootstrap_mean_difference(first, second)
    assert found.estimate == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.estimate - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.estimate + 1.96 * error, abs=0.1 * error)
    assert (found.confidence, found.resamples, found.clips) == (0.95, RESAMPLES, 1000)
    narrow = bootstrap_mean_difference(first, second, confidence=0.68)
    assert narrow.high - narrow.low == pytest.approx(2 * error, rel=0.05)


def test_pairing_removes_what_both_share() -> None:
    first, second = scores(500, 0.0, seed=1)
    paired = bootstrap_mean_difference(first, second, resamples=1000)
    unpaired = bootstrap_mean_difference(first, second[::-1], resamples=1000)
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    trials = 400
    held = 0
    for trial in range(trials):
        first, second = scores(60, 0.2, seed=trial)
        found = bootstrap_mean_difference(first, second, resamples=400, seed=trial)
        held += found.low <= 0.2 <= found.high
    assert 0.91 < held / trials < 0.98


def test_a_statistic_of_the_mean_gives_the_same_interval() -> None:
    first, second = scores(50, 0.1, seed=2)
    differences = np.subtract(first, second)
    by_statistic = bootstrap_statistic(lambda c: float(differences[c].mean()), 50, 500, seed=3)
    by_means = bootstrap_mean_difference(first, second, 500, seed=3)
    assert by_statistic.estimate == pytest.approx(by_means.estimate)
    assert by_statistic.low == pytest.approx(by_means.low)
    assert by_statistic.high == pytest.approx(by_means.high)


def test_a_ratio_of_sums_agrees_with_the_delta_method() -> None:
    generator = np.random.default_rng(4)
    above, below = generator.poisson(8, 2000), generator.poisson(12, 2000)
    ratio = above.sum() / below.sum()
    error = np.std(above - ratio * below) / below.mean() / np.sqrt(2000)
    found = bootstrap_statistic(lambda c: above[c].sum() / below[c].sum(), 2000, 2000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_seeds_and_exchange() -> None:
    first, second = scores(30, 0.1, seed=5)
    found = bootstrap_mean_difference(first, second, 200, seed=1)
    assert found == bootstrap_mean_difference(first, second, 200, seed=1)
    assert found.low != bootstrap_mean_difference(first, second, 200, seed=2).low
    exchanged = bootstrap_mean_difference(second, first, 200, seed=1)
    assert (exchanged.low, exchanged.high) == pytest.approx((-found.high, -found.low))


def test_all_resamples_are_drawn_where_memory_holds_few_at_a_time() -> None:
    long = [0.0] * (2**19)  # two rows at a time
    assert bootstrap_mean_difference(long, long, resamples=5).resamples == 5


def test_equal_systems_have_an_interval_of_nothing() -> None:
    found = bootstrap_mean_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], resamples=10)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "settings", "message"),
    [
        ([1.0, 2.0], [1.0], {}, "scores of the same clips; got 2 and 1"),
        ([1.0], [1.0], {}, "at least two clips to draw from; got 1"),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}, "at least one resample"),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 1.0}, "confidence between 0 and 1; got 10000 and"),
    ],
)
def test_what_makes_no_sense_is_an_error(
    first: list[float], second: list[float], settings: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        bootstrap_mean_difference(first, second, **settings)


def test_a_statistic_of_one_clip_is_an_error() -> None:
    with pytest.raises(DataError, match="at least two clips"):
        bootstrap_statistic(lambda c: 0.0, 1)
