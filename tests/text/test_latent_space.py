"""The arithmetic that both latent spaces share."""

from __future__ import annotations

import math

import torch

from dac_diffusion.text.latent_space import (
    cross_entropy,
    position_weights,
    signal_and_noise,
    weighted_mean,
)


def test_position_weights_lower_the_padding_only() -> None:
    token_ids = torch.tensor([[7, 2, 0, 0], [2, 0, 0, 0]])
    weights = position_weights(token_ids, pad_id=0, pad_weight=0.5)
    assert weights.tolist() == [[1, 1, 0.5, 0.5], [1, 0.5, 0.5, 0.5]]
    assert weights.dtype == torch.float32


def test_weighted_mean() -> None:
    values = torch.tensor([[1.0, 4.0], [1.0, 4.0]])
    weights = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    torch.testing.assert_close(weighted_mean(values, weights), torch.tensor([2.0, 0.0]))


def test_cross_entropy_equals_the_sum_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)  # (B, K, L, V)
    token_ids = torch.randint(0, 5, (2, 3, 4), generator=generator)
    weights = torch.rand(2, 3, 4, generator=generator)
    result = cross_entropy(logits, token_ids, weights)
    assert result.shape == (2, 3)
    by_hand = 0.0
    for position in range(4):
        scores = [math.exp(value) for value in logits[1, 2, position].tolist()]
        probability = scores[token_ids[1, 2, position]] / sum(scores)
        by_hand -= weights[1, 2, position].item() * math.log(probability)
    assert abs(result[1, 2].item() - by_hand / weights[1, 2].sum().item()) < 1e-5


def test_signal_and_noise_preserve_variance() -> None:
    log_nsr = torch.tensor([-4.0, 0.0, 3.0])
    alpha, sigma = signal_and_noise(log_nsr)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3))
    torch.testing.assert_close(2 * torch.log(sigma / alpha), log_nsr)
