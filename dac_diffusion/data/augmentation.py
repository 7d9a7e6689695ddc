"""Augmentation of log-mel frames, so that a few hundred recordings stay new for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_MEL_FLOOR = 1e-5  # what LogMel adds before the logarithm


@dataclass(frozen=True)
class AugmentationConfig:
    """Strengths; a zero switches that augmentation off."""

    gain_decibels: float = 10.0
    equaliser_decibels: float = 6.0
    equaliser_knots: int = 5
    frequency_masks: int = 2
    frequency_mask_bands: int = 10
    time_masks: int = 2
    time_mask_frames: int = 50
    noise_floor_decibels: float | None = -45.0  # the loudest added noise, as log-mel power
    mel_shift_bands: int = 0  # up to so many mel bands up or down, as if pitched differently


def augment_log_mel(
    log_mel: Tensor, config: AugmentationConfig, generator: torch.Generator
) -> Tensor:
    """Another hearing of the same scenes, (B, T, M) -> (B, T, M)."""
    batch, _, mels = log_mel.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device).to(log_mel.device)

    to_log = torch.tensor(10.0).log().item() / 10
    gain = (2 * uniform(batch, 1, 1) - 1) * config.gain_decibels * to_log
    knots = (2 * uniform(batch, 1, config.equaliser_knots) - 1) * config.equaliser_decibels * to_log
    equaliser = F.interpolate(knots, size=mels, mode="linear", align_corners=True)  # (B, 1, M)
    shift = ((2 * uniform(batch, 1) - 1) * config.mel_shift_bands).round().long()
    bands = (torch.arange(mels, device=log_mel.device) - shift).clamp(0, mels - 1)  # (B, M)
    log_mel = log_mel.gather(2, bands[:, None].expand_as(log_mel))
    power = (log_mel.exp() - LOG_MEL_FLOOR).clamp_min(0) * (gain + equaliser).exp()
    if config.noise_floor_decibels is not None:
        level = torch.exp((config.noise_floor_decibels - 40 * uniform(batch, 1, 1)) * to_log)
        power = power + level * uniform(batch, 1, 1).round()  # on every other clip
    return _mask_bands_and_frames((power + LOG_MEL_FLOOR).log(), config, uniform)


def _mask_bands_and_frames(
    log_mel: Tensor, config: AugmentationConfig, uniform: Callable[..., Tensor]
) -> Tensor:
    """SpecAugment (arXiv 1904.08779) without time warping; masked cells take the clip's mean."""
    batch, frames, mels = log_mel.shape
    masked = torch.zeros(batch, frames, mels, dtype=torch.bool, device=log_mel.device)
    for count, size, widest, axis in (
        (config.frequency_masks, mels, config.frequency_mask_bands, 2),
        (config.time_masks, frames, config.time_mask_frames, 1),
    ):
        places = torch.arange(size, device=log_mel.device)
        for _ in range(count):
            width = uniform(batch, 1) * widest
            start = uniform(batch, 1) * (size - width)
            hit = (places >= start) & (places < start + width)  # (B, size)
            masked |= hit[:, None, :] if axis == 2 else hit[:, :, None]
    mean = log_mel.mean(dim=(1, 2), keepdim=True)
    return torch.where(masked, mean, log_mel)
