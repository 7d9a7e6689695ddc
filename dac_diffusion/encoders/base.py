"""What every audio encoder takes and returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AudioFeatures:
    """Features of B windows of audio.

    features: (B, S, D), or codes (B, S, N) of type long from N codebooks; mask: (B, S) bool and
    True on real audio; pooled: (B, P).
    """

    features: Tensor
    mask: Tensor
    pooled: Tensor

    def select(self, indices: Tensor | slice | list[int]) -> AudioFeatures:
        """The features of some of the windows, (len(indices), ...)."""
        return AudioFeatures(self.features[indices], self.mask[indices], self.pooled[indices])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> AudioFeatures:
        """The same on another device or in another floating-point type; codes stay long."""
        kept = dtype if self.features.is_floating_point() else None
        return AudioFeatures(
            self.features.to(device=device, dtype=kept),
            self.mask.to(device=device),
            self.pooled.to(device=device, dtype=dtype),
        )


class AudioEncoder(Protocol):
    """Anything that turns padded waveforms into AudioFeatures, each clip on its own.

    A clip's features must not depend on the other clips of its batch: `canvas_samples` gives the
    padded length of a window as a function of that window's own length only, and the caller puts
    windows of one canvas into one batch. An encoder that cannot hear more than `window_seconds` at
    a time has an attribute `window_is_limit` that is True; others hear somewhat longer windows.
    An encoder whose features are codes has `num_codebooks`, which is its `feature_dim`, and
    `codebook_size`: its codes are 0 to codebook_size - 1.
    """

    sampling_rate: int
    window_seconds: float
    feature_dim: int
    pooled_dim: int

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length, in samples, of a window of `num_samples`."""

    def __call__(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights, their names and types; the same for the same features."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(data.shape)} {data.dtype}".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
