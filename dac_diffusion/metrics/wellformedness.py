"""How many captions have faults that can be counted without any reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dac_diffusion.text.faults import (
    ends_on_function_word,
    has_doubled_word,
    has_repeated_bigram,
)
from dac_diffusion.text.words import tokenize


@dataclass(frozen=True)
class WellFormedness:
    """Shares (0 to 1) of a set of captions; `mean_words` is in words per caption."""

    captions: int
    mean_words: float
    empty: float
    repeated_bigram: float
    doubled_word: float
    function_word_ending: float


def word_count(caption: str) -> int:
    """Number of words of a caption."""
    return len(tokenize(caption))


def wellformedness(captions: Sequence[str]) -> WellFormedness:
    """Count the failures over a set of captions; all zero for an empty set.

    Empty captions stay in every denominator, so that no share improves by them.
    """
    count = len(captions)
    if count == 0:
        return WellFormedness(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return WellFormedness(
        captions=count,
        mean_words=sum(word_count(c) for c in captions) / count,
        empty=sum(word_count(c) == 0 for c in captions) / count,
        repeated_bigram=sum(has_repeated_bigram(c) for c in captions) / count,
        doubled_word=sum(has_doubled_word(c) for c in captions) / count,
        function_word_ending=sum(ends_on_function_word(c) for c in captions) / count,
    )
