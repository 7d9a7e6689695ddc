"""An audio encoder whose features are quantised: the codes of CLAP-ART."""

from __future__ import annotations

from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.encoders.base import AudioFeatures, weights_digest
from dac_diffusion.encoders.loading import encoder_class, encoder_name, settings_of
from dac_diffusion.errors import ConfigError


class QuantizedEncoder(ModelMixin, ConfigMixin):
    """The codes that a residual quantiser makes of an encoder's features; an `AudioEncoder`.

    features: codes (B, S, N), long, one set of N for each of the encoder's features, in their
    order; mask (B, S) and pooled (B, P): the encoder's own.

    encoder_name: one of encoders/loading.py; encoder_config, quantizer_config: the settings of
    the two that differ from their defaults. Raises ConfigError where they do not fit.
    Source: CLAP-ART, arXiv 2506.00800, with BEATs; the features are those of its last layer.
    """

    @register_to_config
    def __init__(
        self,
        encoder_name: str = "beats",
        encoder_config: dict[str, Any] | None = None,
        quantizer_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if encoder_name == "codes":
            raise ConfigError("encoder_name='codes': its features are codes already")
        self.encoder: Any = encoder_class(encoder_name)(**(encoder_config or {}))
        self.quantizer = ResidualQuantizer(**(quantizer_config or {}))
        if self.encoder.feature_dim != self.quantizer.feature_dim:
            raise ConfigError(
                f"the quantiser is for features of width {self.quantizer.feature_dim}, but those "
                f"of {encoder_name} are {self.encoder.feature_dim} wide"
            )
        self.sampling_rate = self.encoder.sampling_rate
        self.window_seconds = self.encoder.window_seconds
        self.window_is_limit = getattr(self.encoder, "window_is_limit", False)
        self.num_codebooks = self.quantizer.num_codebooks
        self.codebook_size = self.quantizer.codebook_size
        self.feature_dim, self.pooled_dim = self.num_codebooks, self.encoder.pooled_dim

    @classmethod
    def from_parts(cls, encoder: Any, quantizer: ResidualQuantizer) -> QuantizedEncoder:
        """Copies of an encoder and of a quantiser that was fitted on its features.

        In evaluation mode. Raises ConfigError for a quantiser that was fitted on the features of
        other weights, or of the same with another frequency_pooling.
        """
        _check_fitted_on(quantizer.config.fitted_on, encoder)
        quantized = cls(encoder_name(encoder), settings_of(encoder), settings_of(quantizer))
        quantized.encoder.load_state_dict(encoder.state_dict())
        quantized.quantizer.load_state_dict(quantizer.state_dict())
        return quantized.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window, as the encoder wants it."""
        canvas: int = self.encoder.canvas_samples(num_samples)
        return canvas

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Code waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        audio: AudioFeatures = self.encoder(waveform, num_samples)
        codes = self.quantizer.codes(audio.features)  # (B, S, N)
        codes = codes.masked_fill(~audio.mask[..., None], 0)
        return AudioFeatures(codes, audio.mask, audio.pooled)


def _check_fitted_on(fitted_on: dict[str, Any] | None, encoder: Any) -> None:
    """Raise ConfigError for a quantiser of other features; one that does not say is trusted."""
    if fitted_on is None:
        return
    name = encoder_name(encoder)
    pooling = encoder.config.get("frequency_pooling")
    theirs = fitted_on.get("settings", {}).get("frequency_pooling")
    if fitted_on.get("name") != name or theirs != pooling:
        raise ConfigError(
            f"the quantiser was fitted on features of {fitted_on.get('name')} with "
            f"frequency_pooling {theirs}, not of {name} with {pooling}; fit another one"
        )
    if fitted_on.get("weights_sha256") != weights_digest(encoder):
        raise ConfigError(
            f"the quantiser was fitted on features of {name} with other weights; give those, or "
            "fit another one"
        )
