"""What the encoders on spectrogram patches share: the samples they hear, the features they give."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

SAMPLING_RATE = 16000
CANVAS_SECONDS = 1.0  # clips of many lengths make few batches, and a 10 s clip needs no padding

# "none": one feature per patch, time-major (the bands of the first time patch, then the next).
# "mean": one per time patch, the mean over its bands.
FrequencyPooling = Literal["none", "mean"]


def check_frequency_pooling(name: str) -> None:
    """Raises ConfigError for a frequency_pooling that does not exist."""
    if name not in get_args(FrequencyPooling):
        names = " or ".join(map(repr, get_args(FrequencyPooling)))
        raise ConfigError(f"frequency_pooling={name!r} is unknown: use {names}")


def padded_length(num_samples: int) -> int:
    """The samples of a 16 kHz clip rounded up to whole CANVAS_SECONDS, at least one."""
    canvas = round(CANVAS_SECONDS * SAMPLING_RATE)
    return max(1, math.ceil(num_samples / canvas)) * canvas


def own_samples(waveform: Tensor, num_samples: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    """Waveforms (B, T) in float32 with silence behind each clip, and the samples to hear (B,).

    A clip shorter than `at_least` samples is lengthened to them by silence.
    """
    missing = max(0, at_least - waveform.shape[1])
    waveform = F.pad(waveform.float(), (0, missing))  # (B, max(T, at_least))
    places = torch.arange(waveform.shape[1], device=waveform.device)
    waveform = waveform.masked_fill(places >= num_samples[:, None], 0.0)
    return waveform, num_samples.clamp(min=at_least)


def patch_features(
    patches: Tensor, num_time_patches: Tensor, frequency_pooling: str
) -> AudioFeatures:
    """Patches (B, time, bands, D), of which `num_time_patches` (B,) hold audio, as features.

    Features behind a clip are 0; pooled is the mean of the clip's own.
    """
    if frequency_pooling == "mean":
        patches = patches.mean(dim=2, keepdim=True)  # (B, time, 1, D)
    places = torch.arange(patches.shape[1], device=patches.device)
    heard = places < num_time_patches[:, None]  # (B, time)
    mask = heard.repeat_interleave(patches.shape[2], dim=1)  # (B, S)
    features = rearrange(patches, "b t f d -> b (t f) d")
    features = features.masked_fill(~mask[..., None], 0.0)
    total = features.sum(dim=1, dtype=torch.float32)  # (B, D)
    pooled = total / mask.sum(dim=1, keepdim=True)
    return AudioFeatures(features, mask, pooled.to(features.dtype))
