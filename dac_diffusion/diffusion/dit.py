"""The paper's DiT: a transformer modulated by the noise level, with cross-attention to the audio.

DAC (arXiv 2409.09401, section 2.3): 12 layers, hidden 768, 12 heads, cross-attention in every
block. Blocks after Peebles and Xie 2023 (adaLN-Zero, every block with a modulation of its own);
cross-attention between attention and perceptron, unmodulated and silent at first, as in
PixArt-alpha (Chen et al. 2023).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.attention_layers import CrossAttention, FeedForward, SelfAttention
from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.transformer import modulate, sinusoids

TIME_FEATURES = 256


class DiTBlock(nn.Module):
    """Self-attention, cross-attention and perceptron; the identity as long as its gates are 0."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, heads)
        self.feed_forward = FeedForward(width, int(width * mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Tensor, condition: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """hidden (B K, L, W), condition (B K, W) -> (B K, L, W)."""
        six = rearrange(self.modulation(F.silu(condition)), "n (m w) -> m n 1 w", m=6)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = six.unbind(0)  # (B K, 1, W) each
        attended = self.self_attention(modulate(hidden, shift, 1.0 + scale))
        hidden = hidden + gate * self.dropout(attended)
        heard = self.cross_attention(self.cross_norm(hidden), keys, values, mask)
        hidden = hidden + self.dropout(heard)
        transformed = self.feed_forward(modulate(hidden, mlp_shift, 1.0 + mlp_scale))
        return hidden + mlp_gate * self.dropout(transformed)


class DiTDenoiser(AudioConditionedDenoiser):
    """DiT over the L latents of a caption; called like CaptionDenoiser (diffusion/denoiser.py).

    It is told the log noise-to-signal ratio in place of a timestep, which it stands for one to
    one. pooled_condition: the clip's pooled vector joins the noise level in the modulation.
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int,
        audio_dim: int,
        pooled_dim: int,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        max_length: int = 40,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        pooled_condition: bool = True,
    ) -> None:
        super().__init__()
        self.latent_in = nn.Linear(latent_dim, width)
        self.self_condition_in = nn.Linear(latent_dim, width, bias=False)
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, width))
        self.time_in = nn.Sequential(
            nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(
            DiTBlock(width, heads, mlp_ratio, dropout) for _ in range(depth)
        )
        self.final_modulation = nn.Linear(width, 2 * width)
        self.latent_out = nn.Linear(width, latent_dim)
        self.pooled_condition = pooled_condition
        self.build_audio_side(audio_dim, pooled_dim, width, depth, heads)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.blocks:
            if isinstance(module, DiTBlock):
                nn.init.zeros_(module.modulation.weight)
                nn.init.zeros_(module.cross_attention.out.weight)
        for layer in (self.self_condition_in, self.final_modulation, self.latent_out):
            nn.init.zeros_(layer.weight)

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
        hidden = hidden + self.positions[: noisy.shape[2]].to(hidden.dtype)
        hidden = rearrange(hidden, "b k l w -> (b k) l w")
        features = sinusoids(log_nsr, TIME_FEATURES, shortest=1.0, longest=100.0)  # (B, K, F)
        condition = self.time_in(features.to(self.positions.dtype))  # (B, K, W)
        if self.pooled_condition:
            condition = condition + memory.condition[:, None]
        condition = rearrange(condition, "b k w -> (b k) w")
        for block, keys, values in zip(self.blocks, memory.keys, memory.values, strict=True):
            hidden = block(hidden, condition, keys, values, memory.mask)
        final = self.final_modulation(F.silu(condition))
        shift, scale = rearrange(final, "n (p w) -> p n 1 w", p=2)
        output = self.latent_out(modulate(hidden, shift, 1.0 + scale))  # (B K, L, D)
        return rearrange(output, "(b k) l d -> b k l d", b=clips)
