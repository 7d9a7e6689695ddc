"""The one way in which every metric cuts a caption into words."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u02bc")

Ngram = tuple[str, ...]


def tokenize(caption: str) -> list[str]:
    """The words of a caption: lower-case, apostrophes removed, other punctuation splits.

    "A dog's bark, far-off." gives a, dogs, bark, far, off. Digits and letters of any script count
    as word characters. This is not the Java PTB tokenizer of the COCO tools: it differs from it in
    possessives ("dog 's" there) and in hyphens (kept there).
    """
    return _WORD.findall(caption.lower().translate(_APOSTROPHES))


def ngrams(words: list[str], n: int) -> list[Ngram]:
    """All runs of n words, in order; fewer than n words have none."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def count_ngrams(words: list[str], max_n: int) -> list[Counter[Ngram]]:
    """How often each run of 1, 2, ... max_n words occurs; one counter per length."""
    return [Counter(ngrams(words, n)) for n in range(1, max_n + 1)]
