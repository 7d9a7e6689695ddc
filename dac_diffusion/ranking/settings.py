"""How a call ranks its candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import get_args

from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.hybrid import Normalisation, RankingWeights


@dataclass(frozen=True)
class RankingSettings:
    """Weights and normalisation of the score (hybrid.py), and the filter (error_filter.py).

    error_threshold: None filters nothing; else candidates whose probability of an error is above
    it come last, and error_detector says what that probability is. redundancy_weight: how much a
    caption loses by its agreement with those chosen before it (captioning/selection.py).
    """

    weights: RankingWeights = field(default_factory=RankingWeights)
    normalisation: Normalisation = "none"
    error_threshold: float | None = None
    error_detector: ErrorDetector | None = None
    redundancy_weight: float = 0.0

    def check(self) -> None:
        """Raise ConfigError, naming the captioner's setting, for a value that makes no sense."""
        weights = {**vars(self.weights), "redundancy": self.redundancy_weight}
        for name, weight in weights.items():
            if not (isinstance(weight, int | float) and isfinite(weight)):
                raise ConfigError(f"{name}_weight={weight!r}: must be a finite number")
        known = get_args(Normalisation)
        if self.normalisation not in known:
            raise ConfigError(
                f"score_normalisation={self.normalisation!r}: must be one of {', '.join(known)}"
            )
        threshold = self.error_threshold
        if not (threshold is None or (isinstance(threshold, int | float) and 0 <= threshold <= 1)):
            raise ConfigError(f"error_threshold={threshold!r}: must be a number from 0 to 1")
        if not (self.error_detector is None or isinstance(self.error_detector, ErrorDetector)):
            raise ConfigError(
                f"error_detector: a {type(self.error_detector).__name__} has no method "
                "probabilities(captions), which a detector needs"
            )
        if threshold is not None and self.error_detector is None:
            raise ConfigError(f"error_threshold={threshold}: needs an error_detector to go with it")
