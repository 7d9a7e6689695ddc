"""How sure a difference in corpus diversity is: random halves of the clips, without replacement.

The bootstrap draws clips twice, and a caption that is there twice lowers MTLD and Distinct-n, so
its interval would lie beside the value. Here half of the clips are drawn without replacement, the
same ones for both systems: the delete-d jackknife with d = N / 2, whose spread is that of the full
value also for statistics that jump, as MTLD does where a factor closes (Shao and Wu 1989, Annals of
Statistics 17, page 1176). Distinct-n differences are larger on half of the words than on all of
them, so its intervals are too wide rather than too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bootstrap import CONFIDENCE, SEED, Interval

SAMPLES = 200
Words = list[str]  # of one caption
Statistic = Callable[[Sequence[Words]], float]


def half_sample_difference(
    statistic: Statistic,
    first: Sequence[Words],
    second: Sequence[Words],
    samples: int = SAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of statistic(first) - statistic(second): one caption per clip, the same clips.

    The captions of a half keep their order. Raises DataError for lists of different lengths, fewer
    than four clips or two samples.
    """
    clips = len(first)
    if clips != len(second):
        raise DataError(f"half samples need captions of the same clips; got {clips}, {len(second)}")
    if clips < 4 or samples < 2:
        raise DataError(f"half samples need four clips and two samples; got {clips} and {samples}")
    generator = np.random.default_rng(seed)
    kept = clips // 2
    halves = [np.sort(generator.permutation(clips)[:kept]).tolist() for _ in range(samples)]
    differences = [
        statistic([first[i] for i in half]) - statistic([second[i] for i in half])
        for half in halves
    ]
    spread = float(np.std(differences, ddof=1)) * (kept / (clips - kept)) ** 0.5
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    estimate = statistic(first) - statistic(second)
    return Interval(estimate, estimate - reach, estimate + reach, confidence, samples, clips)
