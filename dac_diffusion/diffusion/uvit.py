"""The paper's U-ViT: a transformer with long skips, with cross-attention to the audio.

DAC (arXiv 2409.09401, section 2.3): six layers on the way down and six on the way up, here with
one between them; after Bao et al. 2023 ("All are worth words"), over the tokens of a caption. The
noise level is one more token. What is two-dimensional about it in the paper is not known.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.attention_layers import CrossAttention, FeedForward, SelfAttention
from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.transformer import sinusoids

TIME_FEATURES = 256
INITIAL_STD = 0.02


class UViTBlock(nn.Module):
    """Self-attention, cross-attention and perceptron; on the way up, a skip comes in first."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, dropout: float, skip: bool
    ) -> None:
        super().__init__()
        self.join = nn.Linear(2 * width, width) if skip else None
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, int(width * mlp_ratio))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden: Tensor,
        skip: Tensor | None,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """hidden and, on the way up, skip (B K, 1 + L, W) -> (B K, 1 + L, W)."""
        if self.join is not None and skip is not None:
            hidden = self.join(torch.cat([hidden, skip], dim=-1))  # (B K, 1 + L, W)
        hidden = hidden + self.dropout(self.self_attention(self.self_norm(hidden)))
        heard = self.cross_attention(self.cross_norm(hidden), keys, values, mask)
        hidden = hidden + self.dropout(heard)
        return hidden + self.dropout(self.feed_forward(self.feed_norm(hidden)))


class UViTDenoiser(AudioConditionedDenoiser):
    """U-ViT over the L latents of a caption; called like CaptionDenoiser (diffusion/denoiser.py).

    depth: layers on each way, with one in the middle. It is told the log noise-to-signal ratio in
    place of a timestep. pooled_condition: the clip's pooled vector is added to the time token.
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int,
        audio_dim: int,
        pooled_dim: int,
        width: int = 768,
        depth: int = 6,
        heads: int = 12,
        max_length: int = 40,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        pooled_condition: bool = True,
    ) -> None:
        super().__init__()
        self.latent_in = nn.Linear(latent_dim, width)
        self.self_condition_in = nn.Linear(latent_dim, width, bias=False)
        self.positions = nn.Parameter(INITIAL_STD * torch.randn(1 + max_length, width))
        self.time_in = nn.Sequential(
            nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        sizes = (width, heads, mlp_ratio, dropout)
        self.down = nn.ModuleList(UViTBlock(*sizes, skip=False) for _ in range(depth))
        self.middle = UViTBlock(*sizes, skip=False)
        self.up = nn.ModuleList(UViTBlock(*sizes, skip=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.latent_out = nn.Linear(width, latent_dim)
        self.pooled_condition = pooled_condition
        self.build_audio_side(audio_dim, pooled_dim, width, 2 * depth + 1, heads)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.self_condition_in.weight)

    def forward(
        self,
        noisy: Tensor,
        log_nsr: Tensor,
        self_condition: Tensor | None,
        memory: AudioMemory,
    ) -> Tensor:
        """noisy, self_condition (B, K, L, D), log_nsr (B, K) -> the output, (B, K, L, D)."""
        clips = len(noisy)
        hidden = self.latent_in(noisy)  # (B, K, L, W)
        if self_condition is not None:
            hidden = hidden + self.self_condition_in(self_condition)
        features = sinusoids(log_nsr, TIME_FEATURES, shortest=1.0, longest=100.0)  # (B, K, F)
        time = self.time_in(features.to(self.positions.dtype))  # (B, K, W)
        if self.pooled_condition:
            time = time + memory.condition[:, None]
        hidden = torch.cat([time[:, :, None], hidden], dim=2)  # (B, K, 1 + L, W)
        hidden = hidden + self.positions[: hidden.shape[2]].to(hidden.dtype)
        hidden = self._blocks(rearrange(hidden, "b k l w -> (b k) l w"), memory)
        output = self.latent_out(self.norm(hidden[:, 1:]))  # (B K, L, D)
        return rearrange(output, "(b k) l d -> b k l d", b=clips)

    def _blocks(self, hidden: Tensor, memory: AudioMemory) -> Tensor:
        """hidden (B K, 1 + L, W) down, through the middle, and up again with the skips."""
        audio = iter(zip(memory.keys, memory.values, strict=True))
        skips = []
        for block in self.down:
            hidden = block(hidden, None, *next(audio), memory.mask)
            skips.append(hidden)
        hidden = self.middle(hidden, None, *next(audio), memory.mask)
        for block in self.up:
            hidden = block(hidden, skips.pop(), *next(audio), memory.mask)
        return hidden
