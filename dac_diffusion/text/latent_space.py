"""What a latent space of captions offers to the diffusion model, whichever arm it is.

Three exist: embedding_space.py (learned token embeddings), contextual_space.py (latents of a frozen
sentence encoder) and split_bert_space.py (the paper's, between two layers of a BERT). All turn
tokens into latents for training, and the denoiser's output into clean latents and token logits for
training and sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Prediction:
    """An estimate of clean captions: latents (..., L, D) and, if asked for, logits (..., L, V).

    error_scale: (..., 1, 1), what an error of `latents` is to be multiplied by to be the error of
    what the network put out, if that is something else than clean latents.
    """

    latents: Tensor
    logits: Tensor | None
    error_scale: Tensor | None = None


class LatentSpace(Protocol):
    """Tokens to latents and back; leading dimensions (...) are the caller's, such as (B, K)."""

    latent_dim: int
    vocabulary_size: int
    loss_weights: dict[str, float]

    def encode(self, token_ids: Tensor) -> Tensor:
        """Clean latents (..., L, D) of token ids (..., L), about unit variance per dimension."""

    def predict(
        self, output: Tensor, noisy: Tensor, log_nsr: Tensor, with_logits: bool = True
    ) -> Prediction:
        """Read the denoiser's output (..., L, D) for noisy (..., L, D) of log_nsr (...,)."""

    def losses(
        self,
        prediction: Prediction,
        token_ids: Tensor,
        clean: Tensor,
        position_weights: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Named losses per example (...,), each to be scaled by `loss_weights[name]` and averaged.

        token_ids and position_weights: (..., L); clean: (..., L, D). The generator draws whatever
        noise a loss adds of its own.
        """


def position_weights(token_ids: Tensor, pad_id: int, pad_weight: float) -> Tensor:
    """Weights (..., L): 1 on words and [EOS], `pad_weight` on [PAD].

    At a weight of .1 the model learns the end of captions badly and writes them half as long
    again as people do; .5 to 1 does not.
    """
    return torch.where(token_ids == pad_id, pad_weight, 1.0)


def cross_entropy(logits: Tensor, token_ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy per example (...,) of logits (..., L, V), in nats a position."""
    flat = functional.cross_entropy(
        logits.flatten(0, -2).float(), token_ids.flatten(), reduction="none"
    )  # (N * L,)
    return weighted_mean(flat.view(token_ids.shape), weights)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over the last dimension: values (..., L) with weights (..., L) give (...,)."""
    return (values * weights).sum(dim=-1) / weights.sum(dim=-1).clamp_min(1e-6)  # (...,)


def signal_and_noise(log_nsr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, shaped as log_nsr = log(sigma^2 / alpha^2), of variance-preserving noise."""
    return torch.sigmoid(-log_nsr).sqrt(), torch.sigmoid(log_nsr).sqrt()
