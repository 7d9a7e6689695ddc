"""Failures of a caption generator that can be counted without any reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dac_diffusion.metrics.tokenization import ngrams, tokenize

# A caption that ends on one of these was cut off or lost its last word. Left out: "by" ("a car
# drives by" is how people write) and "can" (also a noun).
_FUNCTION_WORDS = (
    "a an the this that these those his her its their my our your some every each any no "
    "and or but nor while as then when where because if than so until before after "
    "of in on at to from with into onto upon for against between among through during over under "
    "behind beside near within without "
    "is are was were be been being am has have had do does did could will would may might "
    "very which who whom whose followed"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
# Endings that are complete although their last word is one of these. What remains ends 0.3 % of
# AudioCaps' and 0.7 % of Clotho's development captions ("runs through", "shortly after").
_COMPLETE = re.compile(
    r"(?:over and over|on and on|a while|(?:go|goes|going|drone|drones|droning) on"
    r"|(?:turn|turns|turned|turning|switched|moving|knocked) on|(?:roll|rolls|rolling) in)$"
)


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


def has_repeated_bigram(caption: str) -> bool:
    """Whether some pair of neighbouring words occurs twice in the caption."""
    pairs = ngrams(tokenize(caption), 2)
    return len(set(pairs)) < len(pairs)


def has_doubled_word(caption: str) -> bool:
    """Whether a word follows itself directly, as in "a dog dog barks"."""
    return any(first == second for first, second in ngrams(tokenize(caption), 2))


def ends_on_function_word(caption: str) -> bool:
    """Whether the last word is an article, conjunction, preposition, auxiliary or the like."""
    words = tokenize(caption)
    if not words or words[-1] not in FUNCTION_WORDS:
        return False
    return _COMPLETE.search(" ".join(words[-3:])) is None


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
