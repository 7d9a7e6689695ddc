"""The audio side of every denoiser: features in, keys and values of all blocks out, once a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.stable_linear import StableLinear
from dac_diffusion.diffusion.transformer import sinusoids
from dac_diffusion.encoders.base import AudioFeatures


@dataclass(frozen=True)
class AudioMemory:
    """What the denoiser needs of B clips, computed once for all steps and captions.

    keys, values: of every block's cross-attention, (B, H, S + 1, W/H) each;
    mask: (B, 1, 1, S + 1) bool, True where a query may look;
    condition: (B, W), added to the time embedding.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    condition: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def select(self, clips: Tensor | slice | list[int]) -> AudioMemory:
        """The memory of some of the clips."""
        return AudioMemory(
            keys=tuple(keys[clips] for keys in self.keys),
            values=tuple(values[clips] for values in self.values),
            mask=self.mask[clips],
            condition=self.condition[clips],
        )


class AudioConditionedDenoiser(ModelMixin, ConfigMixin):
    """What caption denoisers share: layer norm and projection of the audio, and the null condition.

    psi of the paper (DAC, section 2.2): "linear and layer-norm layers". `batch_invariant` says
    whether a clip's result is the same bit for bit whichever clips come with it.
    """

    batch_invariant = False
    depth: int
    heads: int

    def build_audio_side(
        self, audio_dim: int, pooled_dim: int, width: int, depth: int, heads: int
    ) -> None:
        """Make the layers of the audio side; called once, in the constructor."""
        self.depth, self.heads = depth, heads
        self.audio_norm = nn.LayerNorm(audio_dim)
        self.audio_in = StableLinear(audio_dim, width)
        self.pooled_norm = nn.LayerNorm(pooled_dim)
        self.pooled_in = StableLinear(pooled_dim, width)
        self.frame_time_scale = nn.Parameter(torch.full((width,), 0.5))
        self.null_token = nn.Parameter(0.02 * torch.randn(width))
        self.condition_in = StableLinear(width, width)
        self.audio_keys_values = StableLinear(width, depth * 2 * width)

    def prepare_audio(self, audio: AudioFeatures, drop: Tensor | None = None) -> AudioMemory:
        """Keys and values of every block, once per clip.

        audio: features (B, S, audio_dim), mask (B, S), pooled (B, pooled_dim). Masked frames have
        no influence. drop: (B,) bool, True for clips that get the learned null condition instead.
        """
        frames = self.audio_in(self.audio_norm(audio.features))  # (B, S, W)
        pooled = self.pooled_in(self.pooled_norm(audio.pooled))  # (B, W)
        place = torch.arange(frames.shape[1], device=frames.device)
        times = sinusoids(place, frames.shape[2], shortest=4.0, longest=400.0)  # (S, W)
        frames = frames + (self.frame_time_scale * times).to(frames.dtype)
        tokens = torch.cat([pooled[:, None], frames], dim=1)  # (B, S + 1, W)
        mask = F.pad(audio.mask, (1, 0), value=True)  # (B, S + 1)
        if drop is not None:
            tokens = torch.where(drop[:, None, None], self.null_token.to(tokens.dtype), tokens)
            # Only the first token is seen, as in null_memory.
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = torch.where(drop[:, None], first, mask)
        return self._memory(tokens, mask)

    def null_memory(self, batch: int) -> AudioMemory:
        """The memory of `batch` clips without audio, for classifier-free guidance."""
        tokens = self.null_token.expand(batch, 1, -1)  # (B, 1, W)
        return self._memory(tokens, torch.ones(batch, 1, dtype=torch.bool, device=tokens.device))

    def _memory(self, tokens: Tensor, mask: Tensor) -> AudioMemory:
        # Rows of the padding go through as well; the mask keeps them out of every sum.
        projected = self.audio_keys_values(tokens)  # (B, S + 1, depth 2 W)
        blocks = rearrange(projected, "b s (d h c) -> d b h s c", d=2 * self.depth, h=self.heads)
        every = blocks.contiguous().unbind(0)  # (B, H, S + 1, W/H) each
        condition = self.condition_in(tokens[:, 0])  # (B, W)
        mask = rearrange(mask, "b s -> b 1 1 s")
        return AudioMemory(every[: self.depth], every[self.depth :], mask, condition)
