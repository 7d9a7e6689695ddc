"""The small audio encoder trained here: residual convolutions on log-mel, then a transformer."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.audio.log_mel import LogMel
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import CheckpointError
from dac_diffusion.saved_models import load_saved_model

LOG_MEL_MEAN, LOG_MEL_STD = -6.0, 4.0  # of the built-in scenes, about


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; `stride` 2 halves time and frequency."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, M) -> (B, C_out, T / stride, M / stride)."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        hidden = self.norm2(self.conv2(hidden))
        return F.relu(hidden + self.shortcut(self.pool(x)))


class FrameTransformerLayer(nn.Module):
    """Pre-norm self-attention over the audio frames and an MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, D), mask (B, S) True on real audio -> (B, S, D)."""
        q, k, v = rearrange(self.qkv(self.norm1(x)), "b s (n h d) -> n b h s d", n=3, h=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.dropout(self.out(rearrange(attended, "b h s d -> b s (h d)")))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))


class ConvolutionalEncoder(ModelMixin, ConfigMixin):
    """Log-mel -> residual convolutions (stride 16) -> transformer: 3.1 feature frames a second.

    Satisfies `encoders.base.AudioEncoder`. Only AudioFeatures leave it; tagging and contrastive
    heads live with their training (`training/encoder.py`) and ranking (`ranking/similarity.py`).
    """

    @register_to_config
    def __init__(
        self,
        sampling_rate: int = 32000,
        window_seconds: float = 10.0,
        canvas_seconds: float = 2.5,
        num_mels: int = 64,
        hop_length: int = 640,
        channels: tuple[int, ...] = (32, 64, 160, 320),
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.sampling_rate, self.window_seconds = sampling_rate, window_seconds
        self.feature_dim = self.pooled_dim = width
        self.hop_length = hop_length
        self.stride = 2 ** len(channels)  # log-mel frames per feature frame
        self._canvas_unit = round(canvas_seconds * sampling_rate)
        self.log_mel = LogMel(sampling_rate, hop_length=hop_length, num_mels=num_mels)
        stem = nn.Conv2d(1, channels[0], 3, stride=2, padding=1, bias=False)
        blocks: list[nn.Module] = [stem, nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for before, after in pairwise(channels):
            blocks.append(ResidualBlock(before, after, stride=2))
        # Channels last is twice as fast on CPUs with bfloat16 units, and never slower.
        self.convolutions = nn.Sequential(*blocks)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        bands = math.ceil(num_mels / self.stride)
        # Linear layers that sum over at most 512 inputs give the same bits for any number of rows
        # on the CPU, so the bands are projected one by one and added.
        self.project = nn.ModuleList(
            nn.Linear(channels[-1], width, bias=band == 0) for band in range(bands)
        )
        self.layers = nn.ModuleList(
            FrameTransformerLayer(width, heads, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.attention_pool = nn.Linear(width, 1)
        self.feature_dropout = nn.Dropout(dropout)

    @classmethod
    def from_published(
        cls, path: str | Path, window_seconds: float | None = None
    ) -> ConvolutionalEncoder:
        """The encoder in a folder with config.json and its weights; "builtin" is that shipped here.

        window_seconds: the longest audio it takes at once, if not its own. Raises CheckpointError
        for files that are missing, damaged, of another model or do not belong together.
        """
        builtin = Path(__file__).parents[1] / "builtin" / "encoder"
        folder = builtin if str(path) == "builtin" else Path(path)
        if not (folder / "config.json").is_file():
            inside = folder / "encoder"
            found = (inside / "config.json").is_file()
            hint = f"give {inside}" if found else "give such a folder, or builtin"
            raise CheckpointError(
                f"{folder}: is no folder of the small encoder, as it has no config.json; {hint}"
            )
        settings = {} if window_seconds is None else {"window_seconds": float(window_seconds)}
        encoder: ConvolutionalEncoder = load_saved_model(cls, folder, settings)
        return encoder

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: the next multiple of `canvas_seconds`."""
        return max(1, math.ceil(num_samples / self._canvas_unit)) * self._canvas_unit

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many feature frames hold audio, (B,) -> (B,)."""
        return torch.div(num_samples - 1, self.hop_length * self.stride, rounding_mode="floor") + 1

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which `num_samples` (B,) are audio, the rest zeros."""
        return self.encode_log_mel(self.log_mel(waveform), num_samples)

    def encode_log_mel(self, log_mel: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode log-mel frames (B, T, M); training augments them between the two halves."""
        x = ((log_mel - LOG_MEL_MEAN) / LOG_MEL_STD).unsqueeze(1)  # (B, 1, T, M)
        x = x.to(self.norm.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self.feature_dropout(self.convolutions(x))  # (B, C, S, bands)
        x = rearrange(x, "b c s m -> m b s c")  # (bands, B, S, C)
        hidden = sum(linear(band) for linear, band in zip(self.project, x, strict=True))  # (B,S,D)
        frames = torch.arange(hidden.shape[1], device=hidden.device)
        mask = frames < self.num_frames(num_samples)[:, None]  # (B, S)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        features = self.norm(hidden)
        weights = self.attention_pool(features).squeeze(-1)  # (B, S)
        weights = weights.float().masked_fill(~mask, -1e4).softmax(dim=-1)
        pooled = (features * weights.to(features.dtype)[..., None]).sum(dim=1)  # (B, D)
        return AudioFeatures(features, mask, pooled)
