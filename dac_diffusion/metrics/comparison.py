"""Which of two systems' scores differ for sure: paired intervals over the same clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from dac_diffusion.data.predictions import Clip
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bleu import COUNTS, bleu_counts, bleu_of_counts
from dac_diffusion.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    Interval,
    bootstrap_mean_difference,
    bootstrap_statistic,
)
from dac_diffusion.metrics.caption_sets import mutual_bleu_4, mutual_bleu_counts
from dac_diffusion.metrics.diversity import distinct_n_of_words
from dac_diffusion.metrics.evaluation import BLEU_NAMES, MUTUAL_BLEU, Evaluation, Scores
from dac_diffusion.metrics.half_samples import SAMPLES, Statistic, Words, half_sample_difference
from dac_diffusion.metrics.mtld import mtld
from dac_diffusion.text.words import tokenize

# The counts of n-grams, summed over clips (K, 10), to a corpus score.
ScoreOfSum = Callable[[np.ndarray], float]


def compare(
    first: Evaluation,
    second: Evaluation,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    half_samples: int = SAMPLES,
    metrics: Collection[str] | None = None,
) -> dict[str, Interval]:
    """Intervals of first minus second, for every metric that is defined on all clips of both.

    BLEU and mBLEU are computed anew on each resample; of the other metrics the means are compared.
    MTLD, Distinct-1 and Distinct-2 of the first captions have intervals from half samples
    (half_samples.py); with fewer than four clips they are left out. metrics: names of the ones
    wanted, by default all. Raises DataError where the two are not of the same clips or there is
    only one.
    """
    places = {clip.reference_name: index for index, clip in enumerate(second.clips)}
    if places.keys() != {clip.reference_name for clip in first.clips}:
        raise DataError("two evaluations can be compared only on the same clips")
    order = [places[clip.reference_name] for clip in first.clips]
    clips = (first.clips, [second.clips[place] for place in order])
    sums = _scores_of_sum(clips)
    values = _values_of_both(first.quality, second.quality, order)
    if first.sets is not None and second.sets is not None:
        values |= _values_of_both(first.sets, second.sets, order)
    # Only what is wanted is computed, because some of it takes seconds.
    jobs: dict[str, Callable[[], Interval]] = {}
    for name, (ours, theirs) in values.items():
        if name in sums:
            jobs[name] = partial(_compare_counts, *sums[name], resamples, seed)
        else:
            jobs[name] = partial(bootstrap_mean_difference, ours, theirs, resamples, seed)
    if len(order) >= 4:
        one, other = ([tokenize(c.captions[0]) for c in of_system] for of_system in clips)
        for name, statistic in CORPUS_DIVERSITY.items():
            jobs[name] = partial(half_sample_difference, statistic, one, other, half_samples, seed)
    return {name: job() for name, job in jobs.items() if metrics is None or name in metrics}


def _scores_of_sum(
    clips: tuple[Sequence[Clip], Sequence[Clip]],
) -> dict[str, tuple[tuple[np.ndarray, ...], ScoreOfSum]]:
    """The counts of both systems and the score of their sum, for the metrics made like this."""
    bleu = tuple(_bleu_counts(of_system) for of_system in clips)
    mutual = tuple(mutual_bleu_counts([c.captions for c in of_system]) for of_system in clips)
    found: dict[str, tuple[tuple[np.ndarray, ...], ScoreOfSum]] = {
        name: (bleu, partial(_bleu_n, n=n)) for n, name in enumerate(BLEU_NAMES, start=1)
    }
    return found | {MUTUAL_BLEU: (mutual, _mutual_bleu_4)}


def _joined_mtld(captions: Sequence[Words]) -> float:
    return mtld(list(itertools.chain.from_iterable(captions)))


CORPUS_DIVERSITY: dict[str, Statistic] = {
    "mtld": _joined_mtld,
    "distinct_1": partial(distinct_n_of_words, n=1),
    "distinct_2": partial(distinct_n_of_words, n=2),
}


def _values_of_both(
    first: Scores, second: Scores, order: Sequence[int]
) -> dict[str, tuple[list[float], list[float]]]:
    """Per-clip values of the metrics that both have on every clip, in the order of the first."""
    found = {}
    for name, values in first.clips.items():
        ours = [value for value in values if value is not None]
        other = second.clips.get(name)
        theirs = [other[place] for place in order] if other else []
        present = [value for value in theirs if value is not None]
        if len(ours) == len(present) == len(order):
            found[name] = (ours, present)
    return found


def _compare_counts(
    counts: Sequence[np.ndarray], score: ScoreOfSum, resamples: int, seed: int
) -> Interval:
    """Interval of the difference of two systems' corpus scores from counts (K, N, 10) of each."""
    clips = counts[0].shape[1]
    # Clips first, as float64 (exact for counts), so that summing a resample is one product.
    rows = [np.moveaxis(c, 1, 0).reshape(clips, -1).astype(np.float64) for c in counts]

    def difference(drawn: np.ndarray) -> float:
        times = np.bincount(drawn, minlength=clips).astype(np.float64)  # (N,)
        ours, theirs = (score((times @ r).reshape(-1, COUNTS)) for r in rows)
        return ours - theirs

    return bootstrap_statistic(difference, clips, resamples, seed)


def _bleu_counts(clips: Sequence[Clip]) -> np.ndarray:
    """Counts of the first captions, (1, N, 10)."""
    first = [clip.captions[0] for clip in clips]
    return bleu_counts(first, [clip.references for clip in clips])[None]


def _bleu_n(total: np.ndarray, n: int) -> float:
    return float(bleu_of_counts(total)[0, n - 1])


def _mutual_bleu_4(total: np.ndarray) -> float:
    value = mutual_bleu_4(total[:, None])
    assert value is not None  # every clip that is compared has a value of its own
    return value
