"""What the two CLAP encoders share: the order of HTSAT's features, which are real, the window."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.patch_features import FrequencyPooling
from dac_diffusion.errors import ConfigError

RealFrames = Literal["all", "first_copy"]


def clap_features(
    hidden: Tensor,
    embedding: Tensor,
    num_samples: Tensor,
    input_samples: int,
    frequency_pooling: FrequencyPooling,
    real_frames: RealFrames,
) -> AudioFeatures:
    """HTSAT's map (B, D, bands, time) of `input_samples` and CLAP's embedding (B, P) as features.

    frequency_pooling "none": (B, time * bands, D), time-major; "mean": (B, time, D), the mean of
    the bands. real_frames "all": every feature is real; "first_copy": those whose stretch of time
    begins within the clip's own `num_samples` (B,). pooled is the embedding at unit length.
    """
    time_frames = hidden.shape[-1]
    if frequency_pooling == "mean":
        hidden = hidden.mean(dim=2, keepdim=True)  # (B, D, 1, time)
    mask = torch.ones(len(hidden), time_frames, dtype=torch.bool, device=hidden.device)
    if real_frames == "first_copy":
        frame = torch.arange(time_frames, device=hidden.device)
        mask = frame * input_samples < num_samples[:, None] * time_frames  # (B, time)
    mask = mask.repeat_interleave(hidden.shape[2], dim=1)  # (B, S)
    features = rearrange(hidden, "b d f t -> b (t f) d")
    # Normalised in float32, where a square of bfloat16 would keep two digits.
    pooled = torch.nn.functional.normalize(embedding.float(), dim=-1)
    return AudioFeatures(features, mask, pooled.to(embedding.dtype))


def check_window(window_seconds: float | None, input_seconds: float) -> None:
    """Raises ConfigError for a window that does not fit the encoder's input."""
    if window_seconds is not None and not 0 < window_seconds <= input_seconds:
        raise ConfigError(
            f"window_seconds={window_seconds}: CLAP takes up to {input_seconds:g} s at once; "
            "longer recordings are cut into windows"
        )


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raises ConfigError for a value that is none of a Literal's."""
    if value not in get_args(choices):
        names = " or ".join(map(repr, get_args(choices)))
        raise ConfigError(f"{name}={value!r} is unknown: use {names}")
