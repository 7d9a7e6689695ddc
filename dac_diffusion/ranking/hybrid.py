"""One score out of three: similarity, likelihood and agreement, weighted.

EnCLAP++ (arXiv 2409.01201) ranks sampled captions by 0.6 times the similarity of audio and text
plus 0.4 times the decoder's log-likelihood, that is RankingWeights(0.6, 0.4). How it normalises
the two is not known, hence a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["none", "z_score"]
SMALLEST_SPREAD = 1e-6  # of the largest value: below it, values differ by rounding only


@dataclass(frozen=True)
class RankingWeights:
    """How much each part counts in the score; all 0 leaves the order of drawing."""

    audio_text: float = 1.0
    likelihood: float = 0.0
    agreement: float = 0.0


def z_scores(values: Tensor) -> Tensor:
    """Values (N,) less their mean, in standard deviations (over N, not N - 1).

    Equal values, and a single one, have 0.
    """
    exact = values.double()
    spread = exact.std(correction=0)
    if spread <= SMALLEST_SPREAD * exact.abs().max():
        return torch.zeros_like(values)
    return ((exact - exact.mean()) / spread).to(values.dtype)


def hybrid_scores(
    weights: RankingWeights,
    normalisation: Normalisation,
    cosines: Tensor,
    log_likelihoods: Tensor | None,
    agreements: Tensor | None,
) -> Tensor:
    """Scores (N,) of N candidates: the weighted sum of their parts (N,), each normalised first.

    cosines: of audio and text. log_likelihoods: mean per token, in nats, so that long captions
    are not worse for their length. agreements: see agreement.py. normalisation: "none", or
    "z_score" over these N candidates, after which weights compare parts of equal spread. A part
    of weight 0 may be None. Raises ValueError where another one is.
    """
    normalise: Callable[[Tensor], Tensor] = z_scores if normalisation == "z_score" else _as_it_is
    total = torch.zeros_like(cosines)
    for name, weight, values in (
        ("audio_text", weights.audio_text, cosines),
        ("likelihood", weights.likelihood, log_likelihoods),
        ("agreement", weights.agreement, agreements),
    ):
        if weight == 0:
            continue
        if values is None:
            raise ValueError(f"{name} has the weight {weight}, but no values")
        total = total + weight * normalise(values)
    return total


def _as_it_is(values: Tensor) -> Tensor:
    return values
