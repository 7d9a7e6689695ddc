"""How much captions differ from one another."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dac_diffusion.metrics.mtld import PAPER, TEN_WORDS, CaptionMtld, mtld_of_captions
from dac_diffusion.text.words import ngrams, tokenize

FIXED_TOKENS = 1000
SHUFFLES, SEED = 20, 0


@dataclass(frozen=True)
class CorpusDiversity:
    """The diversity of a list of captions, one for each clip.

    captions, words, vocabulary: counts; empty: captions without words.
    distinct: Distinct-1 to 4. distinct_1_fixed: Distinct-1 of FIXED_TOKENS words, None for fewer.
    entropy: of the words, in bits. mtld: by the article's rules; mtld_ten_words: by those of the
    package lexical-diversity. copied: the share that stands word for word among the training
    captions, None where these are not given.
    """

    captions: int
    words: int
    empty: int
    vocabulary: int
    distinct: tuple[float, float, float, float]
    distinct_1_fixed: float | None
    entropy: float
    mtld: CaptionMtld
    mtld_ten_words: CaptionMtld
    copied: float | None


def corpus_diversity(
    captions: Sequence[str],
    training_captions: Iterable[str] | None = None,
    shuffles: int = SHUFFLES,
    seed: int = SEED,
) -> CorpusDiversity:
    """Measure the diversity of captions; all orders and shuffles follow from their order and seed.

    shuffles: how many orders of the captions MTLD and Distinct-1 at a fixed length look at (2 or
    more).
    """
    cut = [tokenize(caption) for caption in captions]
    return CorpusDiversity(
        captions=len(captions),
        words=sum(map(len, cut)),
        empty=sum(not words for words in cut),
        vocabulary=vocabulary_size(captions),
        distinct=(
            distinct_n(captions, 1),
            distinct_n(captions, 2),
            distinct_n(captions, 3),
            distinct_n(captions, 4),
        ),
        distinct_1_fixed=distinct_1_at(captions, FIXED_TOKENS, shuffles, seed),
        entropy=unigram_entropy(captions),
        mtld=mtld_of_captions(captions, PAPER, shuffles, seed),
        mtld_ten_words=mtld_of_captions(captions, TEN_WORDS, shuffles, seed),
        copied=None if training_captions is None else copied_share(captions, training_captions),
    )


def distinct_n(captions: Sequence[str], n: int) -> float:
    """Distinct-n: different n-grams divided by all n-grams, pooled over the captions (0 to 1).

    N-grams never cross from one caption into the next. 0 where no caption has n words. Falls as
    the number of captions grows, so compare equal numbers only (Li et al. 2016, section 5.3).
    """
    return distinct_n_of_words([tokenize(caption) for caption in captions], n)


def distinct_n_of_words(captions: Sequence[list[str]], n: int) -> float:
    """`distinct_n` of captions that are cut into words already."""
    pooled = [ngram for words in captions for ngram in ngrams(words, n)]
    return len(set(pooled)) / len(pooled) if pooled else 0.0


def distinct_1_at(
    captions: Sequence[str], words: int, shuffles: int = SHUFFLES, seed: int = SEED
) -> float | None:
    """Distinct-1 of so many words: the captions shuffled and joined, cut there; mean over shuffles.

    Unlike Distinct-1 it can be compared between lists of different sizes. None where the captions
    together have fewer words.
    """
    cut = [tokenize(caption) for caption in captions]
    if sum(map(len, cut)) < words:
        return None
    generator = random.Random(seed)
    total = 0
    for _ in range(shuffles):
        generator.shuffle(cut)
        joined = [word for caption in cut for word in caption]
        total += len(set(joined[:words]))
    return total / (shuffles * words)


def distinct_n_within_clip(captions_per_clip: Sequence[Sequence[str]], n: int) -> float:
    """Mean over clips of Distinct-n among the K captions of one clip (0 to 1; 0 without clips)."""
    if not captions_per_clip:
        return 0.0
    return sum(distinct_n(captions, n) for captions in captions_per_clip) / len(captions_per_clip)


def vocabulary_size(captions: Sequence[str]) -> int:
    """How many different words occur in the captions."""
    return len({word for caption in captions for word in tokenize(caption)})


def unigram_entropy(captions: Sequence[str]) -> float:
    """Entropy in bits of the words pooled over the captions (Shannon 1948); 0 without words."""
    counts = Counter(word for caption in captions for word in tokenize(caption))
    total = counts.total()
    return sum(n / total * math.log2(total / n) for n in counts.values())


def copied_share(captions: Sequence[str], training_captions: Iterable[str]) -> float:
    """The share of captions that equal a training caption word for word (0 to 1).

    Case and punctuation do not count; a caption without words is no copy. 0 without captions.
    """
    known = {tuple(tokenize(caption)) for caption in training_captions}
    copies = sum(bool(words) and words in known for words in map(_words, captions))
    return copies / len(captions) if captions else 0.0


def _words(caption: str) -> tuple[str, ...]:
    return tuple(tokenize(caption))
