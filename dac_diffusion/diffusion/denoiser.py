"""The network that looks at noisy caption latents and a recording, and proposes clean ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.stable_linear import StableLinear
from dac_diffusion.diffusion.transformer import (
    Block,
    Modulation,
    Perceptron,
    modulate,
    sinusoids,
)
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.latent_space import signal_and_noise

TIME_FEATURES = 128
# Of the position embeddings at the start: small beside the latents, which come in at about 0.8, but
# large enough that places can be told apart from the first step on.
POSITION_STD = 0.3


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


class CaptionDenoiser(ModelMixin, ConfigMixin):
    """A transformer over the L latents of a caption, conditioned on noise level and audio.

    It returns (..., L, D) that a LatentSpace turns into clean latents. Inputs are expected with
    about unit variance per dimension when clean; `latent_variance` says so if they are not.
    Outside training, a clip's result is the same bit for bit in every batch (StableLinear).
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int,
        audio_dim: int,
        pooled_dim: int,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        max_length: int = 24,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        latent_variance: float = 1.0,
        local_reach: int = 0,
    ) -> None:
        super().__init__()
        self.depth, self.heads = depth, heads
        self.latent_in = StableLinear(latent_dim, width)
        self.self_condition_in = StableLinear(latent_dim, width, bias=False)
        self.positions = nn.Parameter(POSITION_STD * torch.randn(max_length, width))
        self.time_in = Perceptron(TIME_FEATURES, width, width)
        self.modulation = Modulation(width, depth)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, dropout, local_reach) for _ in range(depth)
        )
        self.final_modulation = StableLinear(width, 2 * width)
        self.latent_out = StableLinear(width, latent_dim)

        self.audio_norm = nn.LayerNorm(audio_dim)
        self.audio_in = StableLinear(audio_dim, width)
        self.pooled_norm = nn.LayerNorm(pooled_dim)
        self.pooled_in = StableLinear(pooled_dim, width)
        self.frame_time_scale = nn.Parameter(torch.full((width,), 0.5))
        self.null_token = nn.Parameter(0.02 * torch.randn(width))
        self.condition_in = StableLinear(width, width)
        self.audio_keys_values = StableLinear(width, depth * 2 * width)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Silent at first: blocks are identities, the output is 0, the estimate of the step
        # before and the modulation by time come in as they prove useful.
        for layer in (
            self.self_condition_in,
            self.modulation.shared,
            self.final_modulation,
            self.latent_out,
        ):
            nn.init.zeros_(layer.weight)

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

    def forward(
        self,
        noisy: Tensor,
        log_nsr: Tensor,
        self_condition: Tensor | None,
        memory: AudioMemory,
    ) -> Tensor:
        """noisy (B, K, L, D), log_nsr (B, K), self_condition (B, K, L, D) or None -> (B, K, L, D).

        self_condition is the estimate of the clean latents made at a noisier level; None and zeros
        mean there is none.
        """
        clips, captions, length, _ = noisy.shape
        variance = self.config.latent_variance
        if variance != 1.0:
            alpha, sigma = signal_and_noise(log_nsr)
            scale = (alpha.square() * variance + sigma.square()).rsqrt()
            noisy = noisy * scale[..., None, None]
            self_condition = None if self_condition is None else self_condition / variance**0.5
        hidden = self.latent_in(noisy)  # (B, K, L, W)
        if self_condition is not None:
            hidden = hidden + self.self_condition_in(self_condition)
        hidden = hidden + self.positions[:length].to(hidden.dtype)
        hidden = rearrange(hidden, "b k l w -> (b k) l w")
        condition = self._condition(log_nsr, memory)  # (B K, W)
        for index, (block, modulation) in enumerate(
            zip(self.blocks, self.modulation(condition), strict=True)
        ):
            hidden = block(
                hidden,
                modulation,
                memory.keys[index],
                memory.values[index],
                memory.mask,
            )
        shift, scale = rearrange(self.final_modulation(condition), "n (p w) -> p n 1 w", p=2)
        output = self.latent_out(modulate(hidden, shift, 1.0 + scale))  # (B K, L, D)
        return rearrange(output, "(b k) l d -> b k l d", b=clips, k=captions)

    def _condition(self, log_nsr: Tensor, memory: AudioMemory) -> Tensor:
        """The vector that modulates every block, after a ReLU: (B K, W)."""
        features = sinusoids(log_nsr, TIME_FEATURES, shortest=1.0, longest=100.0)  # (B, K, F)
        condition = (
            self.time_in(features.to(self.positions.dtype)) + memory.condition[:, None]
        )  # (B, K, W)
        return F.relu(rearrange(condition, "b k w -> (b k) w"))
