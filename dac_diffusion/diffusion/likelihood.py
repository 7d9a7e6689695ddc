"""How likely the diffusion model itself finds a caption: the part of its bound that ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.scheduler import log_nsr_at, randn_per_item
from dac_diffusion.text.latent_space import (
    LatentSpace,
    cross_entropy,
    position_weights,
    signal_and_noise,
)

# Shares of the noise schedule at which a caption is hidden and guessed again. Little noise tells
# nothing, as every caption is guessed; with much noise all depends on the audio alone.
TIMES = (0.3, 0.5, 0.7)


@torch.no_grad()
def denoising_log_likelihood(
    denoiser: AudioConditionedDenoiser,
    space: LatentSpace,
    scheduler: Any,
    memory: AudioMemory,
    token_ids: Tensor,
    generators: Sequence[torch.Generator],
    pad_id: int,
) -> Tensor:
    """Mean log-probability per token of captions guessed back from noise, (B, K), in nats.

    token_ids: (B, K, L), the captions of the B clips of `memory`. Noise is added at a few levels
    (one network call each), the same for all captions of a clip so that only the captions differ.
    This is the cross-entropy term of the variational bound (Kingma et al. 2021, section 3.4) with
    another weighting of the noise levels: it ranks captions of one clip and is no likelihood of
    text that could be compared between models.
    """
    clean = space.encode(token_ids)  # (B, K, L, D)
    weights = position_weights(token_ids, pad_id, 0.0)  # (B, K, L)
    shape = (len(clean), 1, *clean.shape[2:])
    total = torch.zeros(token_ids.shape[:2], device=clean.device)  # (B, K)
    for time in TIMES:
        level = log_nsr_at(scheduler, time * len(scheduler.alphas_cumprod) - 1)
        log_nsr = torch.full(token_ids.shape[:2], level, device=clean.device)  # (B, K)
        alpha, sigma = signal_and_noise(log_nsr[..., None, None])
        noise = randn_per_item(shape, list(generators), clean.device)  # (B, 1, L, D)
        noisy = alpha * clean + sigma * noise
        output = denoiser(noisy.to(denoiser.dtype), log_nsr, None, memory)
        logits = space.predict(output, noisy, log_nsr).logits
        assert logits is not None
        total -= cross_entropy(logits, token_ids, weights)
    return total / len(TIMES)
