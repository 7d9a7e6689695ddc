"""How sure a difference is: the paired bootstrap over clips.

Clips are drawn with replacement, the same ones for both systems, because what makes a clip easy or
hard is the same for both; the interval is the percentile interval of the resampled differences
(Efron and Tibshirani 1993, chapter 13; for corpus scores Koehn 2004, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dac_diffusion.errors import DataError

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
_INDICES_AT_ONCE = 2**20  # drawn together; bounds the memory at some 16 MB


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, with what made it.

    clips: how many clips were resampled. Where the interval leaves out 0, a difference is
    significant at the level 1 - confidence.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    resamples: int
    clips: int


def bootstrap_mean_difference(
    first: Sequence[float],
    second: Sequence[float],
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of mean(first) - mean(second), scores of the same clips in the same order.

    Raises DataError for lists of different lengths, fewer than two clips, or settings that make no
    sense.
    """
    if len(first) != len(second):
        raise DataError(
            f"the paired bootstrap needs scores of the same clips; got {len(first)} and"
            f" {len(second)}"
        )
    differences = np.asarray(first, float) - np.asarray(second, float)  # (N,)
    _check(len(differences), resamples, confidence)
    means = [differences[c].mean(axis=1) for c in _draws(len(differences), resamples, seed)]
    return _interval(float(differences.mean()), np.concatenate(means), confidence, len(differences))


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    clips: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of any value of a set of clips, such as a difference of two systems' corpus BLEU.

    statistic: takes the numbers of the drawn clips (N,), in which a clip may occur several times.
    Not for values that count what is different, such as Distinct-n, vocabulary or MTLD: a clip
    drawn twice lowers them, so the interval would lie beside the value.
    Raises DataError for fewer than two clips or settings that make no sense.
    """
    _check(clips, resamples, confidence)
    values = [statistic(drawn) for chunk in _draws(clips, resamples, seed) for drawn in chunk]
    return _interval(statistic(np.arange(clips)), np.array(values), confidence, clips)


def _draws(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Clip numbers drawn with replacement, in chunks (R, N) of together `resamples` rows."""
    generator = np.random.default_rng(seed)
    rows = max(1, _INDICES_AT_ONCE // clips)
    for start in range(0, resamples, rows):
        yield generator.integers(clips, size=(min(rows, resamples - start), clips))


def _interval(estimate: float, values: np.ndarray, confidence: float, clips: int) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return Interval(estimate, low, high, confidence, len(values), clips)


def _check(clips: int, resamples: int, confidence: float) -> None:
    if clips < 2:
        raise DataError(f"the bootstrap needs at least two clips to draw from; got {clips}")
    if resamples < 1 or not 0 < confidence < 1:
        raise DataError(
            f"the bootstrap needs at least one resample and a confidence between 0 and 1; got "
            f"{resamples} and {confidence}"
        )
