"""What the two neural codecs share: whole frames of each clip's own samples, and full precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.patch_features import own_samples

WINDOW_SECONDS = 30.0  # the longest clips of Clotho


def canvas_unit(sampling_rate: int, hop_length: int) -> int:
    """The samples of about one second in whole frames: clips of many lengths make few batches."""
    return max(1, round(sampling_rate / hop_length)) * hop_length


def padded_length(num_samples: int, unit: int) -> int:
    """A number of samples rounded up to whole units, at least one."""
    return max(1, math.ceil(num_samples / unit)) * unit


def clips_in_frames(
    waveform: Tensor, num_samples: Tensor, hop_length: int, at_least: int
) -> tuple[Tensor, Tensor]:
    """Waveforms (B, T) as whole frames (B, S * hop), and which frames hold audio (B, S).

    Behind each clip is silence, whatever was there; a frame that the clip fills in part counts.
    """
    length = padded_length(max(waveform.shape[1], at_least), hop_length)
    waveform, _ = own_samples(waveform, num_samples, length)  # (B, S * hop)
    frames = torch.arange(length // hop_length, device=waveform.device)
    return waveform, frames * hop_length < num_samples[:, None]


def code_features(codes: Tensor, mask: Tensor) -> AudioFeatures:
    """Codes (B, S, N) as features, 0 behind the clips; pooled is (B, 1), the constant 1."""
    pooled = torch.ones(len(codes), 1, device=codes.device)
    return AudioFeatures(codes.masked_fill(~mask[..., None], 0), mask, pooled)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast off: in bfloat16 the nearest entry of a codebook is often another one."""
    return torch.autocast(device.type, enabled=False)
