"""BLEU-1 to 4 (Papineni et al. 2002, section 2.3), with the closest reference length.

Values equal pycocoevalcap's Bleu(4) (tested to 1e-6) on captions cut by `tokenize`. BLEU of a
corpus is not the mean over its clips: matches, words and reference lengths are summed first. So
the counts are the interface: any subset of clips, such as a bootstrap resample, is a sum of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.text.words import Ngram, count_ngrams, tokenize

MAX_N = 4
COUNTS = 2 * MAX_N + 2  # columns of `bleu_counts`
# pycocoevalcap's guards against division by zero. They show: a caption of two words, both of them
# matched, has BLEU-3 .01 and not 0, because a precision of 0/0 becomes TINY / SMALL = 1e-6.
TINY, SMALL = 1e-15, 1e-9


def bleu_counts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """What BLEU needs to know of each clip, (N, 10) integers.

    Columns: n-grams matched for n = 1 to 4, n-grams in the candidate for n = 1 to 4, words in the
    candidate, words in the reference that is closest in length (the shorter one where two are).
    Raises DataError where the lists do not fit together or a clip has no reference.
    """
    check_pairs("BLEU", candidates, references)
    rows = [_counts(c, clip) for c, clip in zip(candidates, references, strict=True)]
    return np.array(rows, dtype=np.int64)  # (N, 10)


def bleu_of_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to 4 (..., 4), from 0 to 1, of one clip's counts or their sum over clips (..., 10)."""
    matched, guessed = counts[..., :MAX_N], counts[..., MAX_N : 2 * MAX_N]
    precisions = (matched + TINY) / (guessed + SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, MAX_N + 1))
    ratio = (counts[..., -2] + TINY) / (counts[..., -1] + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return means * brevity[..., None]


def bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[float], list[list[float]]]:
    """BLEU-1 to 4 of the corpus, and for each clip, from 0 to 1; no words score 0.

    Raises DataError where the lists do not fit together or a clip has no reference.
    """
    counts = bleu_counts(candidates, references)
    return bleu_of_counts(counts.sum(axis=0)).tolist(), bleu_of_counts(counts).tolist()


def _counts(candidate: str, references: Sequence[str]) -> list[int]:
    words = tokenize(candidate)
    cut = [tokenize(reference) for reference in references]
    most: Counter[Ngram] = Counter()  # of each n-gram, its largest count in one reference
    for reference in cut:
        for of_one_length in count_ngrams(reference, MAX_N):
            most |= of_one_length
    of_candidate = count_ngrams(words, MAX_N)
    matched = [(of_one_length & most).total() for of_one_length in of_candidate]
    guessed = [of_one_length.total() for of_one_length in of_candidate]
    closest = min((abs(len(r) - len(words)), len(r)) for r in cut)[1]
    return [*matched, *guessed, len(words), closest]
