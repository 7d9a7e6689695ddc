"""Intervals from half samples, against the formula for means and by how often they hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.half_samples import half_sample_difference
from dac_diffusion.metrics.mtld import mtld


def mean_length(captions: Sequence[Sequence[str]]) -> float:
    return sum(map(len, captions)) / len(captions)


def joined_mtld(captions: Sequence[Sequence[str]]) -> float:
    return mtld(list(itertools.chain.from_iterable(captions)))


def random_captions(clips: int, vocabulary: int, generator: np.random.Generator) -> list[list[str]]:
    return [[str(word) for word in generator.integers(vocabulary, size=10)] for _ in range(clips)]


def test_for_means_it_is_the_interval_of_the_paired_differences() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 20, size=(2, 101))
    first, second = ([["word"] * int(n) for n in of_system] for of_system in lengths)
    interval = half_sample_difference(mean_length, first, second, samples=3000)
    differences = lengths[0] - lengths[1]
    error = differences.std(ddof=1) / 101**0.5
    assert interval.estimate == pytest.approx(differences.mean())
    assert interval.high - interval.estimate == pytest.approx(1.96 * error, rel=0.05)
    assert interval.estimate - interval.low == pytest.approx(1.96 * error, rel=0.05)


def test_a_system_does_not_differ_from_itself() -> None:
    captions = random_captions(20, 30, np.random.default_rng(1))
    interval = half_sample_difference(joined_mtld, captions, captions, samples=20)
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_mtld_intervals_hold_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    trials = 60
    held = 0
    for _ in range(trials):
        first, second = (random_captions(80, 60, generator) for _ in range(2))
        interval = half_sample_difference(joined_mtld, first, second, samples=60)
        held += interval.low <= 0 <= interval.high
    assert held >= 0.87 * trials  # 95 % promised; fewer than 53 of 60 would happen once in 100


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(3)
    rich, poor = random_captions(100, 90, generator), random_captions(100, 40, generator)
    interval = half_sample_difference(joined_mtld, rich, poor, samples=60)
    assert interval.low > 0


def test_what_cannot_be_compared() -> None:
    captions = random_captions(6, 9, np.random.default_rng(4))
    with pytest.raises(DataError, match="captions of the same clips; got 6, 5"):
        half_sample_difference(mean_length, captions, captions[:5])
    with pytest.raises(DataError, match="need four clips and two samples; got 3 and 200"):
        half_sample_difference(mean_length, captions[:3], captions[:3])
