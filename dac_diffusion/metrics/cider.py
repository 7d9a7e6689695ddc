"""CIDEr-D: consensus of a caption with its references (Vedantam et al. 2015, section 5 and eq. 5).

Values equal pycocoevalcap's Cider (tested to 1e-6) on captions cut by `text.words.tokenize`.
The document frequencies come from the references that are scored against, so a score depends on
which clips are scored together: only compare scores over the same clips.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dac_diffusion.errors import DataError
from dac_diffusion.text.words import Ngram, count_ngrams, tokenize

MAX_N = 4
LENGTH_SIGMA = 6.0
SCALE = 10.0


@dataclass(frozen=True)
class _WeightedNgrams:
    """A caption as tf-idf vectors, one per n-gram length, with their Euclidean norms."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


class CiderD:
    """CIDEr-D against fixed references, for scoring several sets of captions of the same clips.

    references: for each clip its non-empty list of reference captions. Raises DataError where a
    clip has no reference.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if not references:
            raise DataError("CIDEr-D needs at least one clip with references; got none")
        for index, captions in enumerate(references):
            if isinstance(captions, str) or not captions:
                raise DataError(f"CIDEr-D needs a list of references for each clip; clip {index}")
        counted = [[count_ngrams(tokenize(c), MAX_N) for c in captions] for captions in references]
        self._document_frequency: Counter[Ngram] = Counter()
        for clip in counted:
            self._document_frequency.update({g for caption in clip for n in caption for g in n})
        self._log_clips = math.log(len(references))
        self._references = [[self._weigh(caption) for caption in clip] for clip in counted]

    def __len__(self) -> int:
        return len(self._references)

    def score(self, caption: str, clip: int) -> float:
        """CIDEr-D of one caption against the references of clip number `clip`, from 0 to 10."""
        candidate = self._weigh(count_ngrams(tokenize(caption), MAX_N))
        references = self._references[clip]
        return SCALE * sum(_similarity(candidate, r) for r in references) / len(references)

    def _weigh(self, counts: list[Counter[Ngram]]) -> _WeightedNgrams:
        weights = [
            {
                ngram: count * (self._log_clips - math.log(max(1, self._document_frequency[ngram])))
                for ngram, count in of_one_length.items()
            }
            for of_one_length in counts
        ]
        norms = [math.sqrt(sum(w * w for w in vector.values())) for vector in weights]
        # The reference implementation measures length in bigrams, that is words minus one.
        return _WeightedNgrams(weights, norms, length=counts[1].total())


def _similarity(candidate: _WeightedNgrams, reference: _WeightedNgrams) -> float:
    """Mean over n of the clipped cosine, times the Gaussian penalty on the length difference."""
    total = 0.0
    for n in range(MAX_N):
        norm = candidate.norms[n] * reference.norms[n]
        if norm == 0.0:
            continue
        of_reference = reference.weights[n]
        overlap = sum(
            min(weight, of_reference[ngram]) * of_reference[ngram]
            for ngram, weight in candidate.weights[n].items()
            if ngram in of_reference
        )
        total += overlap / norm
    difference = candidate.length - reference.length
    return total / MAX_N * math.exp(-(difference**2) / (2 * LENGTH_SIGMA**2))


def cider_d(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """CIDEr-D of one caption per clip: the mean over clips, and each clip's own score (0 to 10).

    One clip alone always scores 0, because every n-gram then occurs in all the clips. Raises
    DataError where the numbers of candidates and of reference lists differ.
    """
    if len(candidates) != len(references):
        raise DataError(
            f"CIDEr-D needs one caption per clip; got {len(candidates)} captions"
            f" for {len(references)} clips"
        )
    scorer = CiderD(references)
    scores = [scorer.score(caption, clip) for clip, caption in enumerate(candidates)]
    return sum(scores) / len(scores), scores
