"""The audio that a decoder with cross-attention attends to: an encoder's features as they are."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dac_diffusion.encoders.base import AudioFeatures


class CrossAttentionFeatures(ModelMixin, ConfigMixin):
    """Features (B, S, D) in the width of a decoder, without positions or normalisation.

    Where D is the decoder's width, as of HTSAT and GPT-2 (768), they are taken as they are, which
    is what RECAP publishes (Ghosh et al., arXiv 2309.09836); else a Linear brings them to it. Its
    order of HTSAT's 64 features is frequency, then time, and ours time, then frequency, which
    cross-attention does not see.
    """

    @register_to_config
    def __init__(self, audio_dim: int, width: int) -> None:
        super().__init__()
        same = audio_dim == width
        self.features_in: nn.Module = nn.Identity() if same else nn.Linear(audio_dim, width)
        if same:  # a model without any number could not be saved
            self.register_buffer("one", torch.ones(()))

    def forward(self, audio: AudioFeatures) -> tuple[Tensor, Tensor]:
        """features (B, S, D) -> encoder_hidden_states (B, S, W), mask (B, S) of 0 and 1."""
        return self.features_in(audio.features), audio.mask.long()
