"""Candidates with language errors come after all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD


@runtime_checkable
class ErrorDetector(Protocol):
    """Whatever says how likely a caption has an error of language."""

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """The probability (0 to 1) of an error in each caption."""


def error_probabilities(detector: ErrorDetector, captions: Sequence[str]) -> list[float]:
    """What a detector says of the N candidates of a window. Raises ConfigError for another N."""
    found = [float(probability) for probability in detector.probabilities(captions)]
    if len(found) != len(captions):
        raise ConfigError(
            f"error_detector: {type(detector).__name__} gave {len(found)} probabilities for "
            f"{len(captions)} captions; it must give one for each"
        )
    return found


def flag_errors(probabilities: Sequence[float], threshold: float = ERROR_THRESHOLD) -> list[bool]:
    """Which candidates stand after all others: those with a probability above the threshold.

    Where that is all of them, none is flagged, and the order is as without a detector.
    """
    flagged = [probability > threshold for probability in probabilities]
    return [False] * len(flagged) if all(flagged) else flagged
