"""Settings of a call that stand in for a checkpoint's defaults."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from dac_diffusion.errors import CheckpointError
from dac_diffusion.ranking.detectors import load_detector
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.hybrid import Normalisation, RankingWeights
from dac_diffusion.ranking.settings import RankingSettings

T = TypeVar("T")


def given_or(value: T | None, default: T) -> T:
    """The value of a call, or where the call says nothing the default."""
    return default if value is None else value


def ranking_of_call(
    config: Any,
    audio_text_weight: float | None,
    likelihood_weight: float | None,
    agreement_weight: float | None,
    score_normalisation: Normalisation | None,
    error_threshold: float | None,
    error_detector: ErrorDetector | None,
    redundancy_weight: float | None,
    device: torch.device,
    default_weights: RankingWeights | None = None,
) -> RankingSettings:
    """How a call ranks; what is None comes from the checkpoint's `config`.

    default_weights: instead of the checkpoint's. A detector without a threshold has the usual one,
    a threshold without a detector the one that the checkpoint names, which runs on `device`.
    Raises ConfigError for values that make no sense, CheckpointError where the files of that
    detector are missing or damaged.
    """
    weights = default_weights or RankingWeights(
        config.audio_text_weight, config.likelihood_weight, config.agreement_weight
    )
    threshold = given_or(error_threshold, config.error_threshold)
    if threshold is None and error_detector is not None:
        threshold = ERROR_THRESHOLD
    if threshold is not None and error_detector is None:
        error_detector = _own_detector(config, device)
    settings = RankingSettings(
        RankingWeights(
            given_or(audio_text_weight, weights.audio_text),
            given_or(likelihood_weight, weights.likelihood),
            given_or(agreement_weight, weights.agreement),
        ),
        given_or(score_normalisation, config.score_normalisation),
        threshold,
        error_detector,
        given_or(redundancy_weight, config.redundancy_weight),
    )
    settings.check()
    return settings


def _own_detector(config: Any, device: torch.device) -> ErrorDetector:
    try:
        return load_detector(config.error_detector, config.error_encoder, str(device))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; this captioner's own settings name it, give another error_detector (rules)"
        ) from error
