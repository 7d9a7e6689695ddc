"""Errors of language found by word order: words that do not belong behind the two before them.

A diffusion captioner writes all words at once, so its faults are words in the wrong place ("a
person is hoarsely", "wind blows before a wind snores"), which rules about repeated or missing words
do not see. `TrigramErrorDetector` knows the trigrams of captions without errors, such as those that
a captioner was trained on. Where a caption is broken, some word is far less likely behind the two
before it than anywhere: the detector looks at the lowest such ratio. Which ratio means an error is
fitted, as FENSE's detector was (arXiv 2110.04684), on captions that were spoilt on purpose.

Probabilities are interpolated as by Witten and Bell (1991): an unseen word is as likely as the
words that followed a context for the first time are many.

builtin_trigrams.json is `TrigramErrorDetector.fit` of the 70,000 captions of the training scenes of
configs/soundscapes.yaml, which stand in the scenes.jsonl of its cache.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dac_diffusion.errors import CheckpointError, DataError
from dac_diffusion.files import atomic_write
from dac_diffusion.saved_models import read_json
from dac_diffusion.text.words import tokenize

FORMAT = "dac-diffusion trigram error detector"
START, END = "<s>", "</s>"  # no words: tokenize leaves no brackets
LEAST_CAPTIONS = 200  # different ones
HELD_OUT = 10  # every so manieth caption is spoilt, to fit what an error looks like
NEWTON_STEPS = 30
LEAST_SLOPE = -1e-3  # a ratio that says next to nothing is no sign of an error
RIDGE = 1e-3  # keeps the fit finite where all spoilt captions are told from all others

Trigrams = Mapping[str, Mapping[str, int]]  # "two words" -> word behind them -> how often


class TrigramErrorDetector:
    """How likely a caption has an error, by trigrams of captions without; an `ErrorDetector`.

    probability = 1 / (1 + exp(-(slope * ratio + intercept))), where ratio is the least of
    ln(p(word | two before) / p(word)) over the caption's words and its end.
    """

    def __init__(self, trigrams: Trigrams, slope: float, intercept: float) -> None:
        self.trigrams, self.slope, self.intercept = trigrams, slope, intercept
        # Every place of a caption has one trigram, so that shorter runs are sums over these.
        self._following: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for context, words in trigrams.items():
            first, second = context.split(" ")
            for word, count in words.items():
                for known in ((first, second), (second,), ()):
                    self._following[known][word] += count
        self._totals = {known: words.total() for known, words in self._following.items()}

    @classmethod
    def fit(cls, captions: Sequence[str], seed: int = 0) -> TrigramErrorDetector:
        """Learn from captions without errors; the same captions and seed give the same detector.

        Raises DataError for fewer than 200 different ones, or where spoilt ones look no worse.
        """
        different = sorted({" ".join(tokenize(caption)) for caption in captions} - {""})
        if len(different) < LEAST_CAPTIONS:
            raise DataError(
                f"{len(different)} different captions: a detector needs at least {LEAST_CAPTIONS}"
            )
        order = random.Random(seed)
        order.shuffle(different)
        held_out = [caption.split(" ") for caption in different[::HELD_OUT]]
        known = set(different) - set(different[::HELD_OUT])
        words = [tokenize(caption) for caption in captions]
        others = cls(count_trigrams([each for each in words if " ".join(each) in known]), -1.0, 0.0)
        vocabulary = [word for caption in sorted(known) for word in caption.split(" ")]
        spoilt = [spoil(caption, vocabulary, order) for caption in held_out]
        slope, intercept = _logistic_fit(
            [others.least_ratio(caption) for caption in held_out],
            [others.least_ratio(caption) for caption in spoilt],
        )
        if slope > LEAST_SLOPE:
            raise DataError(
                f"{len(different)} different captions: spoilt ones look like the others, there are "
                "too few for a detector; give more of the same kind"
            )
        return cls(count_trigrams(words), slope, intercept)

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """The probability (0 to 1) of an error in each caption; 1 where it has no word."""
        return [self._probability(tokenize(caption)) for caption in captions]

    def _probability(self, words: list[str]) -> float:
        if not words:
            return 1.0
        return _sigmoid(self.slope * self.least_ratio(words) + self.intercept)

    def least_ratio(self, words: Sequence[str]) -> float:
        """The least ln(p(word | two before) / p(word)) of a caption's words and its end."""
        padded = [START, START, *words, END]
        return min(
            math.log(self._likelihood(word, (first, second)) / self._likelihood(word, ()))
            for first, second, word in zip(padded, padded[1:], padded[2:], strict=False)
        )

    def _likelihood(self, word: str, context: tuple[str, ...]) -> float:
        """p(word | context), interpolated with ever shorter contexts; unseen words have some."""
        shorter = self._likelihood(word, context[1:]) if context else 1 / (len(self._all) + 1)
        following = self._following.get(context)
        if following is None:
            return shorter
        kinds = len(following)
        return (following[word] + kinds * shorter) / (self._totals[context] + kinds)

    @property
    def _all(self) -> Counter[str]:
        return self._following[()]

    def save(self, path: str | Path) -> None:
        """Write the detector as JSON."""
        content = {
            "format": FORMAT,
            "slope": self.slope,
            "intercept": self.intercept,
            "trigrams": self.trigrams,
        }
        with atomic_write(path) as file:
            file.write(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> TrigramErrorDetector:
        """Read a detector. Raises CheckpointError for a file that is missing or damaged."""
        if not Path(path).is_file():
            raise CheckpointError(
                f"{path}: there is no such file; `dac-diffusion prepare detector` makes one"
            )
        content = read_json(Path(path))
        slope, intercept = content.get("slope"), content.get("intercept")
        trigrams = content.get("trigrams")
        if not (
            content.get("format") == FORMAT
            and isinstance(slope, float)
            and isinstance(intercept, float)
            and math.isfinite(slope + intercept)
            and isinstance(trigrams, dict)
            and trigrams
            and all(_is_context(*each) for each in trigrams.items())
        ):
            raise CheckpointError(
                f"{path}: is no error detector; `dac-diffusion prepare detector` makes one"
            )
        return cls(trigrams, slope, intercept)


def count_trigrams(captions: Sequence[Sequence[str]]) -> dict[str, dict[str, int]]:
    """How often each word, or the end, stands behind each pair of words or of starts."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words in captions:
        padded = [START, START, *words, END]
        for first, second, word in zip(padded, padded[1:], padded[2:], strict=False):
            counts[f"{first} {second}"][word] += 1
    return {context: dict(sorted(counts[context].items())) for context in sorted(counts)}


def spoil(words: Sequence[str], vocabulary: Sequence[str], order: random.Random) -> list[str]:
    """A caption with one word lost, moved, repeated, added or exchanged for another, at random."""
    spoilt = list(words)
    place = order.randrange(len(spoilt))
    kind = order.choice(("lose", "swap", "repeat", "add", "exchange"))
    if kind == "repeat":
        spoilt.insert(place, spoilt[place])
    elif kind == "exchange":
        spoilt[place] = order.choice(vocabulary)
    elif kind == "add" or len(spoilt) == 1:
        spoilt.insert(place, order.choice(vocabulary))
    elif kind == "lose":
        del spoilt[place]
    else:
        place = min(place, len(spoilt) - 2)
        spoilt[place], spoilt[place + 1] = spoilt[place + 1], spoilt[place]
    return spoilt


def _is_context(context: str, words: object) -> bool:
    """Whether an entry of a file is what count_trigrams makes."""
    if context.count(" ") != 1 or not isinstance(words, dict) or not words:
        return False
    return all(type(count) is int and count > 0 for count in words.values())


def _logistic_fit(good: Sequence[float], bad: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept by which a ratio becomes the probability of being among the bad ones."""
    inputs = np.column_stack([[*good, *bad], np.ones(len(good) + len(bad))])  # (N, 2)
    targets = np.repeat([0.0, 1.0], [len(good), len(bad)])  # (N,)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        found = 1 / (1 + np.exp(-inputs @ weights))  # (N,)
        gradient = inputs.T @ (found - targets) + RIDGE * weights  # (2,)
        curvature = (inputs.T * (found * (1 - found))) @ inputs + RIDGE * np.eye(2)  # (2, 2)
        weights -= np.linalg.solve(curvature, gradient)
    return float(weights[0]), float(weights[1])


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))
