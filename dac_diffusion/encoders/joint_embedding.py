"""A clip's vector in a joint audio-text space as its only feature.

For captioners that learn from captions alone (training/text_only.py): in training a caption's
vector from the same space stands where a clip's vector stands afterwards.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.errors import ConfigError


class JointEmbeddingEncoder(ModelMixin, ConfigMixin):
    """An audio encoder reduced to the joint audio-text embedding; satisfies `AudioEncoder`.

    features: (B, 1, E), mask: (B, 1), always True, pooled: (B, E), the same vector. It is the unit
    vector of the joint space times sqrt(E), so that its elements have about unit variance.

    encoder_name "small": a ConvolutionalEncoder, behind it a projection to `embedding_dim` of the
    form that AudioTextScorer has for audio. "htsat": an HtsatEncoder, whose pooled vector is CLAP's
    joint embedding already; `embedding_dim` is not used. encoder_config: the settings of the
    encoder inside that differ from its defaults. Raises ConfigError for another encoder.
    """

    @register_to_config
    def __init__(
        self,
        encoder_name: Literal["small", "htsat"] = "small",
        encoder_config: dict[str, Any] | None = None,
        embedding_dim: int = 256,
    ) -> None:
        super().__init__()
        settings = encoder_config or {}
        encoder: ConvolutionalEncoder | HtsatEncoder
        if encoder_name == "small":
            encoder = ConvolutionalEncoder(**settings)
            self.project: nn.Module = nn.Sequential(
                nn.Linear(encoder.pooled_dim, embedding_dim),
                nn.GELU(),
                nn.Linear(embedding_dim, embedding_dim),
            )
        elif encoder_name == "htsat":
            encoder = HtsatEncoder(**settings)
            self.project, embedding_dim = nn.Identity(), encoder.pooled_dim
        else:
            raise ConfigError(f"encoder_name={encoder_name!r} is unknown: use 'small' or 'htsat'")
        self.encoder = encoder
        self.sampling_rate = encoder.sampling_rate
        self.window_seconds = encoder.window_seconds
        self.window_is_limit = getattr(encoder, "window_is_limit", False)
        self.feature_dim = self.pooled_dim = embedding_dim

    @classmethod
    def from_encoder(
        cls, encoder: ConvolutionalEncoder | HtsatEncoder, projection: nn.Module | None = None
    ) -> JointEmbeddingEncoder:
        """A copy of an encoder, of a small one with its projection to the joint space.

        projection: Linear, GELU, Linear, as AudioTextScorer has it. In evaluation mode.
        """
        settings = {k: v for k, v in encoder.config.items() if not k.startswith("_")}
        if projection is None:
            joint = cls("htsat", settings)
        else:
            joint = cls("small", settings, len(projection.state_dict()["2.bias"]))
            joint.project.load_state_dict(projection.state_dict())
        joint.encoder.load_state_dict(encoder.state_dict())
        return joint.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window, as the encoder inside wants it."""
        return self.encoder.canvas_samples(num_samples)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        pooled = self.project(self.encoder(waveform, num_samples).pooled)  # (B, E)
        # Normalised in float32, where a square of bfloat16 would keep two digits.
        return joint_features(F.normalize(pooled.float(), dim=-1)).to(dtype=pooled.dtype)


def joint_features(vectors: Tensor) -> AudioFeatures:
    """Vectors (B, E) of the joint space as the features (B, 1, E) of B clips, times sqrt(E)."""
    pooled = vectors * vectors.shape[-1] ** 0.5
    mask = torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
    return AudioFeatures(pooled[:, None], mask, pooled)  # (B, 1, E)
