"""Faults of a caption that show without any reference or recording."""

from __future__ import annotations

import re

from dac_diffusion.text.words import ngrams, tokenize

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


def is_well_formed(caption: str) -> bool:
    """Whether a caption has words, repeats no word or pair of words, and does not break off."""
    return bool(tokenize(caption)) and not (
        has_repeated_bigram(caption) or has_doubled_word(caption) or ends_on_function_word(caption)
    )
