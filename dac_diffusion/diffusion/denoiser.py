"""The network that looks at noisy caption latents and a recording, and proposes clean ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.stable_linear import StableLinear
from dac_diffusion.diffusion.transformer import (
    Block,
    Modulation,
    Perceptron,
    modulate,
    sinusoids,
)
from dac_diffusion.text.latent_space import signal_and_noise

TIME_FEATURES = 128
# Of the position embeddings at the start: small beside the latents, which come in at about 0.8, but
# large enough that places can be told apart from the first step on.
POSITION_STD = 0.3


class CaptionDenoiser(AudioConditionedDenoiser):
    """A transformer over the L latents of a caption, conditioned on noise level and audio.

    It returns (..., L, D) that a LatentSpace turns into clean latents. Inputs are expected with
    about unit variance per dimension when clean; `latent_variance` says so if they are not.
    Outside training, a clip's result is the same bit for bit in every batch (StableLinear).
    """

    batch_invariant = True

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
        self.build_audio_side(audio_dim, pooled_dim, width, depth, heads)
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
