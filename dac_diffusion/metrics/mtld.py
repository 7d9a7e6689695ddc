"""MTLD: how many words a text runs before its type-token ratio has fallen to .72.

McCarthy and Jarvis 2010 (Behavior Research Methods 42, page 384): reading the text, a factor is
closed and a new one begun where the ratio of different words to words has fallen to .72; what is
left at the end counts as the part (1 - ratio) / (1 - .72) of a factor; the text's length divided
by the number of factors, forwards and backwards, averaged.

Programs differ in four points, which `MtldRules` names. `PAPER` reads the article, whose worked
example closes a factor of six words, and equals the package lexicalrichness 0.5.1. `TEN_WORDS`
equals the package lexical-diversity 0.1.1, which lets no factor be shorter than ten words; it gives
0 to a text in which no word occurs twice, so its mean over short captions says little.

One caption is far too short for MTLD, so captions are joined, and then their order counts: the
order is that of the list, and the spread over shuffles is given with it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dac_diffusion.text.words import tokenize

THRESHOLD = 0.72


@dataclass(frozen=True)
class MtldRules:
    """The points in which implementations of MTLD differ.

    shortest_factor: a factor of fewer words is never closed.
    closes_at_threshold: a ratio of exactly .72 closes a factor; otherwise only one below it.
    closes_at_end: the last word can close a factor; otherwise what it ends always counts as a
        part, which is then more than 1 where the ratio lies below the threshold.
    unrepeated_is_length: a text in which no word occurs twice scores its length, otherwise 0.
    """

    shortest_factor: int
    closes_at_threshold: bool
    closes_at_end: bool
    unrepeated_is_length: bool


PAPER = MtldRules(1, closes_at_threshold=True, closes_at_end=True, unrepeated_is_length=True)
TEN_WORDS = MtldRules(
    10, closes_at_threshold=False, closes_at_end=False, unrepeated_is_length=False
)


@dataclass(frozen=True)
class CaptionMtld:
    """MTLD of a list of captions, in words.

    in_order: of the captions joined in the order of the list.
    shuffled_mean, shuffled_std: over seeded shuffles of the captions (sample standard deviation).
    per_caption: the mean of every caption's own MTLD; 0 for a caption without words.
    """

    in_order: float
    shuffled_mean: float
    shuffled_std: float
    per_caption: float


def mtld(words: Sequence[str], rules: MtldRules = PAPER) -> float:
    """MTLD of a text that is cut into words, forwards and backwards averaged; 0 without words."""
    return (_one_way(words, rules) + _one_way(words[::-1], rules)) / 2


def mtld_of_captions(
    captions: Sequence[str], rules: MtldRules = PAPER, shuffles: int = 20, seed: int = 0
) -> CaptionMtld:
    """MTLD of captions joined in the order given, its spread over shuffles, and caption by caption.

    shuffles: at least 2. All zero for an empty list.
    """
    cut = [tokenize(caption) for caption in captions]
    generator = random.Random(seed)
    shuffled = []
    order = list(cut)
    for _ in range(shuffles):
        generator.shuffle(order)
        shuffled.append(mtld(_join(order), rules))
    return CaptionMtld(
        in_order=mtld(_join(cut), rules),
        shuffled_mean=statistics.fmean(shuffled),
        shuffled_std=statistics.stdev(shuffled),
        per_caption=statistics.fmean(mtld(words, rules) for words in cut) if cut else 0.0,
    )


def _one_way(words: Sequence[str], rules: MtldRules) -> float:
    factors, length, ratio = 0.0, 0, 1.0
    types: set[str] = set()
    for position, word in enumerate(words, start=1):
        types.add(word)
        length += 1
        ratio = len(types) / length
        low = ratio < THRESHOLD or (rules.closes_at_threshold and ratio == THRESHOLD)
        may_close = rules.closes_at_end or position < len(words)
        if low and may_close and length >= rules.shortest_factor:
            factors, length = factors + 1, 0
            types.clear()
    if length:
        factors += (1 - ratio) / (1 - THRESHOLD)
    if factors == 0:
        return float(len(words)) if rules.unrepeated_is_length else 0.0
    return len(words) / factors


def _join(captions: Sequence[Sequence[str]]) -> list[str]:
    return [word for caption in captions for word in caption]
