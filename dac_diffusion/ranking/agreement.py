"""Minimum Bayes risk: the candidate that agrees most with the other candidates comes first.

Candidates are samples of what the captioner believes about the audio, so the mean agreement of one
with the others estimates its expected gain (Eikema and Aziz 2020, "Is MAP Decoding All You Need?",
arXiv 2005.10283). It needs no network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from math import fsum

import numpy as np

from dac_diffusion.text.words import Ngram, ngrams, tokenize

LONGEST = 4  # words of an n-gram


def mean_agreement(captions: Sequence[str], weights: Sequence[float] | None = None) -> list[float]:
    """Mean agreement (0 to 1) of each of N captions with the N - 1 others, as they were drawn.

    The agreement of two captions is the mean over n = 1 to 4 of F1_n = 2 * overlap / total, where
    overlap counts the n-grams that both have, each as often as in the caption that has it less
    often, and total is the number of n-grams of both together. Where neither has n words, F1_n is
    0: two equal captions of two words agree to 1/2, of four words or more to 1. Words are those of
    text/words.py.

    Equal captions count as often as they were drawn, which makes the mean an expectation.
    weights (N,): how much each caption counts as one of the others, above 0; by default all alike.
    One caption alone has 0. The values do not depend on the order of the captions.
    """
    shares = [1.0] * len(captions) if weights is None else [float(weight) for weight in weights]
    places: dict[tuple[str, ...], list[int]] = {}  # of each different caption
    for place, caption in enumerate(captions):
        places.setdefault(tuple(tokenize(caption)), []).append(place)
    mass = np.array([fsum(shares[place] for place in same) for same in places.values()])  # (U,)
    scores = [0.0] * len(captions)
    for own, (same, row) in enumerate(
        zip(places.values(), _pairwise_agreement(list(places)), strict=True)
    ):
        for place in same:
            others = mass.copy()
            others[own] = fsum(shares[other] for other in same if other != place)
            # fsum: rounded once, so that captions that agree alike score alike, in any order.
            if (total := fsum(others)) > 0:
                scores[place] = fsum(others * row) / total
    return scores


def agreement_with(caption: str, others: Sequence[str]) -> list[float]:
    """The agreement (0 to 1) of a caption with each of N others; see mean_agreement."""
    words = [tuple(tokenize(each)) for each in (caption, *others)]
    found: list[float] = next(_pairwise_agreement(words)).tolist()
    return found[1:]


def _pairwise_agreement(captions: Sequence[tuple[str, ...]]) -> Iterator[np.ndarray]:
    """The agreement of each of U captions, given as words, with all of them: U times (U,)."""
    count = len(captions)
    sizes = np.array([[max(len(words) - n, 0) for words in captions] for n in range(LONGEST)])
    occurrences = [_occurrences(words) for words in captions]
    # Who has which n-gram, so that only pairs that share something are looked at: an hour of
    # recording has thousands of candidates, all compared with each other.
    holders: dict[tuple[Ngram, int], list[int]] = {}
    for place, found in enumerate(occurrences):
        for item in found:
            holders.setdefault(item, []).append((len(item[0]) - 1) * count + place)
    flat = np.fromiter(chain.from_iterable(holders.values()), dtype=np.int64)
    bounds = accumulate((len(each) for each in holders.values()), initial=0)
    spans = dict(zip(holders, pairwise(bounds), strict=True))
    nothing = np.zeros(0, dtype=np.int64)
    for place, found in enumerate(occurrences):
        parts = [flat[first:last] for first, last in map(spans.__getitem__, found)]
        shared = np.bincount(np.concatenate([nothing, *parts]), minlength=LONGEST * count)
        overlap = shared.reshape(LONGEST, count)  # (n, U)
        total = sizes + sizes[:, place : place + 1]  # (n, U)
        yield (2 * overlap / np.maximum(total, 1)).mean(axis=0)  # (U,)


def _occurrences(words: tuple[str, ...]) -> list[tuple[Ngram, int]]:
    """Each n-gram with its how-manieth occurrence: what two captions share is then a set."""
    seen: Counter[Ngram] = Counter()
    found = []
    for n in range(1, LONGEST + 1):
        for gram in ngrams(list(words), n):
            seen[gram] += 1
            found.append((gram, seen[gram]))
    return found
