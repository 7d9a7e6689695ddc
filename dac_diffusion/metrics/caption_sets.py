"""The K captions of one clip as a set: how good the best and the average one is, how they differ.

Clips may have different numbers of captions, because a captioner leaves out duplicates. Scores take
a clip's captions as they are; K is the largest number. A clip without any caption is an error: one
for which nothing was found has the empty caption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bleu import COUNTS, bleu_counts, bleu_of_counts
from dac_diffusion.text.words import tokenize

# Scores of one caption for each clip, such as CIDEr-D or SPIDEr against the clips' references.
ScoreClips = Callable[[Sequence[str]], Sequence[float]]


def score_each_caption(
    captions_per_clip: Sequence[Sequence[str]], score: ScoreClips
) -> list[list[float]]:
    """The score of every caption of every clip, in the order of the captions.

    The j-th captions of all clips are scored together, for j = 1 to K, so that a score that looks
    at all clips (CIDEr-D's document frequencies) always sees the same ones: a clip with fewer
    captions repeats its last one, and what the repetition scores is dropped.
    """
    sizes = _sizes(captions_per_clip)
    passes = [
        score([captions[min(j, len(captions) - 1)] for captions in captions_per_clip])
        for j in range(max(sizes))
    ]
    return [[float(passes[j][clip]) for j in range(size)] for clip, size in enumerate(sizes)]


def best_of(scores_per_clip: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
    """The best score among each clip's captions: the mean over clips, and each clip's.

    Best-of-K, an oracle: it chooses with the references in hand. With SPIDEr scores this is
    SPIDEr-max (Labbé et al. 2022, arXiv 2211.08983). A clip with fewer than K captions has fewer
    chances.
    """
    best = [max(scores) for scores in scores_per_clip]
    return sum(best) / len(best), best


def expected_of(scores_per_clip: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
    """The mean score of each clip's captions: the mean over clips, and each clip's.

    What one caption drawn at random from the set scores. Every clip counts the same, whatever its
    number of captions.
    """
    means = [sum(scores) / len(scores) for scores in scores_per_clip]
    return sum(means) / len(means), means


def duplicate_share(captions_per_clip: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """The share of a clip's captions that repeat an earlier one: the mean over clips, each clip's.

    Captions are equal when their words are (`tokenize`). From 0 to (K - 1) / K; a clip with one
    caption has 0.
    """
    shares = [
        1 - len({tuple(tokenize(caption)) for caption in captions}) / size
        for size, captions in zip(_sizes(captions_per_clip), captions_per_clip, strict=True)
    ]
    return sum(shares) / len(shares), shares


def mutual_bleu_counts(captions_per_clip: Sequence[Sequence[str]]) -> np.ndarray:
    """BLEU's counts of each caption against the others of its clip, (K, N, 10) integers.

    A row of zeros where a clip has no j-th caption, or only one caption and so no others.
    """
    sizes = _sizes(captions_per_clip)
    counts = np.zeros((max(sizes), len(sizes), COUNTS), dtype=np.int64)
    for clip, captions in enumerate(captions_per_clip):
        if len(captions) < 2:
            continue
        others = [[*captions[:j], *captions[j + 1 :]] for j in range(len(captions))]
        counts[: len(captions), clip] = bleu_counts(captions, others)
    return counts


def mutual_bleu_4(counts: np.ndarray) -> float | None:
    """mBLEU-4 of a corpus from `mutual_bleu_counts` (K, N, 10): low where captions differ (0 to 1).

    The mean over j = 1 to K of the corpus BLEU-4 of the j-th captions, with the other K - 1 of the
    same clip as references, as in the evaluations of diverse image captioning (Aneja et al. 2019,
    arXiv 1908.08529; Wang and Chan 2019). Corpus BLEU sums n-grams over the clips before dividing.
    A clip with one caption takes no part, one with fewer than K captions in fewer of the j's. None
    where no clip has two captions.
    """
    sums = counts.sum(axis=1)  # (K, 10)
    present = sums[:, -1] > 0  # the words of the references
    return float(bleu_of_counts(sums[present])[:, -1].mean()) if present.any() else None


def mutual_bleu_4_of_clips(counts: np.ndarray) -> list[float | None]:
    """The same for each clip alone: the mean BLEU-4 of its captions against its others, or None."""
    return [mutual_bleu_4(counts[:, [clip]]) for clip in range(counts.shape[1])]


def _sizes(captions_per_clip: Sequence[Sequence[str]]) -> list[int]:
    if not captions_per_clip:
        raise DataError("sets of captions need at least one clip; got none")
    for clip, captions in enumerate(captions_per_clip):
        if isinstance(captions, str) or not captions:
            raise DataError(f"every clip needs a list of at least one caption; clip {clip}")
    return [len(captions) for captions in captions_per_clip]
