"""The spectrogram itself as features, for acoustic codes where no codec is at hand."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor

from dac_diffusion.audio.log_mel import LOG_FLOOR, LogMel
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import LOG_MEL_MEAN, LOG_MEL_STD
from dac_diffusion.saved_models import load_saved_model


class MelPatchEncoder(ModelMixin, ConfigMixin):
    """Log-mel frames, some of them joined to one feature; satisfies `AudioEncoder`.

    features: (B, S, frames_per_patch * num_mels), about of unit variance, S = 12.5 a second by
    default; pooled: their mean. Nothing in it is learned.
    """

    @register_to_config
    def __init__(
        self,
        sampling_rate: int = 32000,
        window_seconds: float = 10.0,
        num_mels: int = 64,
        hop_length: int = 640,
        frames_per_patch: int = 4,
    ) -> None:
        super().__init__()
        self.sampling_rate, self.window_seconds = sampling_rate, window_seconds
        self.frames_per_patch = frames_per_patch
        self.patch_samples = hop_length * frames_per_patch
        self.feature_dim = self.pooled_dim = frames_per_patch * num_mels
        self.log_mel = LogMel(sampling_rate, hop_length=hop_length, num_mels=num_mels)
        self.register_buffer("centre", torch.tensor(LOG_MEL_MEAN))
        self.register_buffer("scale", torch.tensor(LOG_MEL_STD))

    @classmethod
    def from_published(
        cls, path: str | Path, window_seconds: float | None = None
    ) -> MelPatchEncoder:
        """The encoder in a folder that save_pretrained made. Raises CheckpointError."""
        settings = {} if window_seconds is None else {"window_seconds": window_seconds}
        encoder: MelPatchEncoder = load_saved_model(cls, Path(path), settings)
        return encoder

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: whole patches."""
        return max(1, math.ceil(num_samples / self.patch_samples)) * self.patch_samples

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many features hold audio, (B,) -> (B,)."""
        return torch.div(num_samples - 1, self.patch_samples, rounding_mode="floor") + 1

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which `num_samples` (B,) are audio, the rest zeros."""
        return self.encode_log_mel(self.log_mel(waveform), num_samples)

    def encode_log_mel(self, log_mel: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode log-mel frames (B, T, M); training augments them between the two halves."""
        # The frame at the very end belongs to no patch; what a last patch lacks is silence.
        patches = math.ceil((log_mel.shape[1] - 1) / self.frames_per_patch)
        missing = patches * self.frames_per_patch - log_mel.shape[1]
        whole = F.pad(log_mel, (0, 0, 0, missing), value=math.log(LOG_FLOOR))
        scaled = (whole - self.centre.float()) / self.scale.float()
        features = rearrange(scaled, "b (s f) m -> b s (f m)", f=self.frames_per_patch)
        places = torch.arange(features.shape[1], device=features.device)
        mask = places < self.num_frames(num_samples)[:, None]  # (B, S)
        features = features.masked_fill(~mask[..., None], 0.0).to(self.centre.dtype)
        total = features.sum(dim=1, dtype=torch.float32)  # (B, D)
        pooled = total / mask.sum(dim=1, keepdim=True)
        return AudioFeatures(features, mask, pooled.to(features.dtype))
