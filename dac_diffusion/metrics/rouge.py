"""ROUGE-L: the longest common subsequence of a caption and its references (Lin 2004, eq. 2 to 4).

Values equal pycocoevalcap's Rouge (tested to 1e-6) on captions cut by `tokenize`: beta is 1.2, and
the best precision and the best recall may come from different references.
"""

from __future__ import annotations

from collections.abc import Sequence

from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.text.words import tokenize

BETA = 1.2


def rouge_l(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """ROUGE-L of one caption per clip: the mean over clips, and each clip's own score (0 to 1).

    Raises DataError where the lists do not fit together or a clip has no reference.
    """
    check_pairs("ROUGE-L", candidates, references)
    scores = [_score(c, clip) for c, clip in zip(candidates, references, strict=True)]
    return sum(scores) / len(scores), scores


def _score(candidate: str, references: Sequence[str]) -> float:
    words = tokenize(candidate)
    cut = [(r, _common(words, r)) for r in map(tokenize, references)]
    if not any(common for _, common in cut):
        return 0.0
    precision = max(common / len(words) for _, common in cut)
    recall = max(common / len(reference) for reference, common in cut if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)  # row[j]: of the words of `first` so far and second[:j]
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]
