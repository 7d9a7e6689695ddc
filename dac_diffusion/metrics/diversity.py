"""How much captions differ from one another."""

from __future__ import annotations

from collections.abc import Sequence

from dac_diffusion.text.words import ngrams, tokenize


def distinct_n(captions: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams divided by all n-grams, pooled over the captions (0 to 1).

    N-grams never cross from one caption into the next. 0 where no caption has n words. Falls as
    the number of captions grows, so compare equal numbers only (Li et al. 2016, section 5.3).
    """
    pooled = [ngram for caption in captions for ngram in ngrams(tokenize(caption), n)]
    return len(set(pooled)) / len(pooled) if pooled else 0.0


def distinct_n_within_clip(captions_per_clip: Sequence[Sequence[str]], n: int) -> float:
    """Mean over clips of Distinct-n among the K captions of one clip (0 to 1; 0 without clips)."""
    if not captions_per_clip:
        return 0.0
    return sum(distinct_n(captions, n) for captions in captions_per_clip) / len(captions_per_clip)


def vocabulary_size(captions: Sequence[str]) -> int:
    """How many different words occur in the captions."""
    return len({word for caption in captions for word in tokenize(caption)})
