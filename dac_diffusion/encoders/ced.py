"""CED (Dinkel et al. 2023, arXiv 2308.11957): a vision transformer on a 64-band mel spectrogram.

Written from the published layouts of ced-tiny, -mini, -small and -base. Unlike with the published
code, decibels are clamped clip by clip, a clip's features do not depend on its batch or on the
padding there, and the parts of a long clip follow one another without a gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.audio.ced_mel import CedMel
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.patch_features import (
    SAMPLING_RATE,
    FrequencyPooling,
    check_frequency_pooling,
    own_samples,
    padded_length,
    patch_features,
)
from dac_diffusion.encoders.published_weights import build_empty, check_entries, fill, read_weights
from dac_diffusion.errors import CheckpointError, ConfigError

LAYER_NORM_EPS = 1e-6
HEAD_WIDTH = 64  # of every published size, whose files do not say how many heads they have
BANK_TOLERANCE = 1e-3  # between the filter bank in a file and ours; torchaudio's is off by 5e-6


class CedEncoder(ModelMixin, ConfigMixin):
    """16 kHz waveform of any length -> features (B, S, 768), 25 a second, pooled their mean.

    Satisfies `encoders.base.AudioEncoder`. A patch is 16 frames of 10 ms by 16 of the 64 bands, so
    that S = 4 * ((1 + num_samples // 160) // 16): 248 for 10 s, which are 1001 frames.
    frequency_pooling="mean" leaves one feature per 160 ms, 6.25 a second and 62 for 10 s. A clip
    shorter than a patch (2400 samples, 150 ms) is lengthened to it by silence.

    The transformer sees `time_patches` (63, which are 10.08 s) at once, a longer clip in parts.
    Features come time-major, (b t f), where the published code has them frequency-major within a
    part, (b f t). The defaults are ced-base; window_seconds is the longest audio the captioner
    gives it at once. The input's statistics stay those of the weights in training mode as well.
    Raises ConfigError for sizes that do not divide one another and for unknown names.
    """

    @register_to_config
    def __init__(
        self,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        patch_size: int = 16,
        num_mels: int = 64,
        time_patches: int = 63,
        window_seconds: float = 10.0,
        frequency_pooling: FrequencyPooling = "none",
    ) -> None:
        super().__init__()
        check_frequency_pooling(frequency_pooling)
        if embed_dim % num_heads or num_mels % patch_size:
            raise ConfigError(
                f"a width of {embed_dim} and {num_mels} bands cannot be divided into {num_heads} "
                f"attention heads and patches of {patch_size}"
            )
        self.sampling_rate, self.window_seconds = SAMPLING_RATE, window_seconds
        self.feature_dim = self.pooled_dim = embed_dim
        self.patch_size, self.bands = patch_size, num_mels // patch_size
        self.frequency_pooling = frequency_pooling
        self.time_patches = time_patches
        self.mel = CedMel(num_mels, SAMPLING_RATE)
        self.init_bn = FixedBatchNorm(num_mels)
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(1, embed_dim, kernel_size=patch_size, stride=patch_size)}
        )
        self.time_pos_embed = nn.Parameter(0.02 * torch.randn(1, embed_dim, 1, time_patches))
        self.freq_pos_embed = nn.Parameter(0.02 * torch.randn(1, embed_dim, self.bands, 1))
        self.blocks = nn.ModuleList(CedBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)

    @classmethod
    def from_published(
        cls,
        path: str | Path,
        window_seconds: float | None = None,
        frequency_pooling: FrequencyPooling = "none",
    ) -> CedEncoder:
        """The encoder of a published file, its size told from the shapes of its weights.

        Takes the original .pt, the Hugging Face layout (file or folder) and the one of LOAE with
        separate query, key and value; the classifier is left out. Raises CheckpointError for a
        file that cannot be read, or whose entries are not exactly those of a CED.
        """
        weights = _own_weights(read_weights(path), path)
        settings = _sizes(weights, path)
        if window_seconds is not None:
            settings["window_seconds"] = window_seconds
        settings["frequency_pooling"] = frequency_pooling
        encoder = build_empty(lambda: cls(**settings), path)
        _check_front_end(weights, encoder, path)
        shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
        check_entries(weights, shapes, path, "CED")
        return fill(encoder, weights)

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: its own in whole seconds, rounded up."""
        return padded_length(num_samples)

    def num_time_patches(self, num_samples: Tensor) -> Tensor:
        """How many patches in time a clip of so many samples has, at least one, (B,) -> (B,)."""
        frames = self.mel.num_frames(num_samples)
        return torch.div(frames, self.patch_size, rounding_mode="floor").clamp(min=1)

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many features hold audio, (B,) -> (B,)."""
        bands = self.bands if self.frequency_pooling == "none" else 1
        return self.num_time_patches(num_samples) * bands

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which `num_samples` (B,) are audio, the rest ignored."""
        shortest = self.mel.samples_of(self.patch_size)
        waveform, num_samples = own_samples(waveform, num_samples, shortest)
        decibels = self.mel(waveform, num_samples)  # (B, F, M)
        x = self.init_bn(decibels.transpose(1, 2))  # (B, M, F)
        x = x.unsqueeze(1).to(self.norm.weight.dtype)  # (B, 1, M, F)
        num_time_patches = self.num_time_patches(num_samples)  # (B,)
        parts = [
            self._encode_part(part, num_time_patches - index * self.time_patches)
            for index, part in enumerate(x.split(self.time_patches * self.patch_size, dim=-1))
            if part.shape[-1] >= self.patch_size
        ]
        return patch_features(torch.cat(parts, dim=1), num_time_patches, self.frequency_pooling)

    def _encode_part(self, x: Tensor, num_time_patches: Tensor) -> Tensor:
        """Part of a spectrogram (B, 1, M, F), the patches of it that are audio -> (B, t, f, W)."""
        x = self.patch_embed["proj"](x)  # (B, W, f, t)
        length = x.shape[-1]
        x = x + self.time_pos_embed[..., :length] + self.freq_pos_embed
        x = rearrange(x, "b w f t -> b (t f) w")
        # A clip that ended before this part hears one patch of padding; the result is not used.
        places = torch.arange(x.shape[1], device=x.device)
        mask = places < (num_time_patches.clamp(min=1) * self.bands)[:, None]  # (B, N)
        for block in self.blocks:
            x = block(x, mask)
        return rearrange(self.norm(x), "b (t f) w -> b t f w", t=length)


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation (B, M, F) -> (B, M, F) by the statistics of the weights, in float32.

    In training mode too: the statistics of a batch would hold its padding, and would go on
    changing an encoder whose weights are frozen. And whatever the module's or autocast's type:
    the three digits of bfloat16 are not enough for decibels.
    """

    def forward(self, decibels: Tensor) -> Tensor:
        """Decibels (B, M, F) to normalised ones (B, M, F)."""
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        with torch.autocast(decibels.device.type, enabled=False):
            mean, var, weight, bias = (t.float() for t in tensors if t is not None)
            return F.batch_norm(decibels, mean, var, weight, bias, training=False, eps=self.eps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move(tensor: Tensor) -> Tensor:  # only the device may change
            moved = fn(tensor)
            return moved if tensor.is_meta or moved.is_meta else tensor.to(moved.device)

        return super()._apply(move, recurse)  # type: ignore[no-untyped-call, unused-ignore]


class CedBlock(nn.Module):
    """Pre-norm self-attention and MLP of a vision transformer."""

    def __init__(self, width: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.heads = heads
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, mlp_dim), "fc2": nn.Linear(mlp_dim, width)}
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, N, W), mask (B, N) True on real audio -> (B, N, W)."""
        qkv = self.attn["qkv"](self.norm1(x))  # (B, N, 3W)
        q, k, v = rearrange(qkv, "b n (p h c) -> p b h n c", p=3, h=self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.attn["proj"](rearrange(attended, "b h n c -> b n (h c)"))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def _own_weights(content: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The entries of any published layout under the names of CedEncoder, without the classifier."""
    own: dict[str, Any] = {}
    for name, value in content.items():
        name = str(name).removeprefix("encoder.").replace("init_bn.1.", "init_bn.")
        if name in own:
            raise CheckpointError(f"{path}: is not a published CED: it has {name} twice")
        if not name.startswith("outputlayer."):
            own[name] = value
    for query in [name for name in own if ".attn.q_proj." in name]:
        names = [query.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        parts = [own[name] for name in names if isinstance(own.get(name), Tensor)]
        if len(parts) == 3 and parts[0].shape == parts[1].shape == parts[2].shape:
            own[query.replace(".q_proj.", ".qkv.")] = torch.cat([own.pop(name) for name in names])
    return own


def _sizes(weights: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The settings of CedEncoder that the shapes of published weights stand for."""
    tells = {"time_pos_embed": 4, "init_bn.weight": 1, "patch_embed.proj.weight": 4,
             "blocks.0.mlp.fc1.weight": 2}  # fmt: skip
    for name, dimensions in tells.items():
        if not isinstance(weights.get(name), Tensor) or weights[name].dim() != dimensions:
            raise CheckpointError(
                f"{path}: is not a published CED: it has no {name} of {dimensions} dimensions; "
                f"it holds {', '.join(list(weights)[:4])}"
            )
    width = weights["time_pos_embed"].shape[1]
    if width < 1 or width % HEAD_WIDTH:
        raise CheckpointError(
            f"{path}: is not a published CED: its width {width} is no multiple of {HEAD_WIDTH}"
        )
    blocks = {int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}
    return {
        "embed_dim": width,
        "depth": min(max(blocks) + 1, len(weights)),  # no more than a file could fill
        "num_heads": width // HEAD_WIDTH,
        "mlp_dim": weights["blocks.0.mlp.fc1.weight"].shape[0],
        "patch_size": weights["patch_embed.proj.weight"].shape[2],
        "num_mels": weights["init_bn.weight"].shape[0],
        "time_patches": weights["time_pos_embed"].shape[3],
    }


def _check_front_end(weights: dict[str, Any], encoder: CedEncoder, path: str | Path) -> None:
    """Takes the window and filter bank of the original layout out and compares them with ours."""
    tables = {
        "front_end.0.spectrogram.window": encoder.mel.window,
        "front_end.0.mel_scale.fb": encoder.mel.filter_bank,
    }
    for name, own in tables.items():
        table = weights.pop(name, own)
        same = isinstance(table, Tensor) and table.shape == own.shape
        if not same or not (table.float() - own).abs().max() <= BANK_TOLERANCE:
            raise CheckpointError(
                f"{path}: was trained on another mel spectrogram than CED's: {name} differs"
            )
