"""Features of one encoder with the vectors of another: the audio side of RECAP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clips import (
    common_canvas,
    encode_clips,
    join_clips,
    resample_clip,
    window_vectors,
)
from dac_diffusion.encoders.loading import encoder_class, encoder_name, settings_of
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model


class PairedEncoder(ModelMixin, ConfigMixin):
    """Features of one encoder and the pooled vectors of another; satisfies `AudioEncoder`.

    features (B, S, D), mask (B, S): of the features encoder; pooled (B, P): of the vectors encoder,
    to the bit what the two give for the same clip alone.

    features_name, vectors_name: of encoders/loading.py; features_config, vectors_config: settings
    that differ from the defaults. window_seconds: the longest audio at once (None: that of the
    features encoder). Of a clip longer than the vectors encoder's own window, the vector is the
    mean of its windows' vectors, weighted by their lengths.

    sampling_rate is the higher one of the two; every clip is resampled by itself for the other.
    Raises ConfigError for codes, which have a vector beside them already (codecs/code_encoder.py),
    for a pair within the pair, and for settings that do not fit.
    Source: RECAP, arXiv 2309.09836: features of a CLAP with fusion, retrieval by one without.
    """

    @register_to_config
    def __init__(
        self,
        features_name: str,
        vectors_name: str,
        features_config: dict[str, Any] | None = None,
        vectors_config: dict[str, Any] | None = None,
        window_seconds: float | None = None,
    ) -> None:
        super().__init__()
        for setting, name in (("features_name", features_name), ("vectors_name", vectors_name)):
            if name in ("codes", "paired"):
                raise ConfigError(f"{setting}={name!r}: give an encoder of features by itself")
        settings = dict(features_config or {})
        if window_seconds is not None:
            settings["window_seconds"] = window_seconds
        self.features_encoder: Any = encoder_class(features_name)(**settings)
        self.vectors_encoder: Any = encoder_class(vectors_name)(**(vectors_config or {}))
        self.sampling_rate: int = max(part.sampling_rate for part in self._parts())
        self.window_seconds: float = self.features_encoder.window_seconds
        self.window_is_limit: bool = getattr(self.features_encoder, "window_is_limit", False)
        self.feature_dim: int = self.features_encoder.feature_dim
        self.pooled_dim: int = self.vectors_encoder.pooled_dim

    @classmethod
    def from_parts(cls, features_encoder: Any, vectors_encoder: Any) -> PairedEncoder:
        """Copies of two encoders, in evaluation mode, without gradients. Raises ConfigError."""
        names = encoder_name(features_encoder), encoder_name(vectors_encoder)
        pair = cls(*names, settings_of(features_encoder), settings_of(vectors_encoder))
        pair.features_encoder.load_state_dict(features_encoder.state_dict())
        pair.vectors_encoder.load_state_dict(vectors_encoder.state_dict())
        return pair.eval().requires_grad_(False)

    @classmethod
    def from_published(cls, path: str | Path, window_seconds: float | None = None) -> PairedEncoder:
        """The pair in a folder that save_pretrained made. Raises CheckpointError."""
        given = {} if window_seconds is None else {"window_seconds": window_seconds}
        pair: PairedEncoder = load_saved_model(cls, Path(path), given)
        return pair

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window; see common_canvas."""
        return common_canvas(self._parts(), num_samples, self.sampling_rate)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        clips = [row[:count] for row, count in zip(waveform, num_samples.tolist(), strict=True)]
        own, others = (
            [resample_clip(clip, self.sampling_rate, part.sampling_rate) for clip in clips]
            for part in self._parts()
        )
        audio = join_clips(encode_clips(self.features_encoder, own, len(clips)))
        pooled = window_vectors(self.vectors_encoder, others)
        return AudioFeatures(audio.features, audio.mask, pooled.to(audio.pooled.dtype))

    def _parts(self) -> tuple[Any, Any]:
        return self.features_encoder, self.vectors_encoder
