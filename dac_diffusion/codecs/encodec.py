"""EnCodec, the neural audio codec of EnCLAP, through transformers (facebook/encodec_24khz)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor

from dac_diffusion.codecs.codec_audio import (
    WINDOW_SECONDS,
    canvas_unit,
    clips_in_frames,
    code_features,
    full_precision,
    padded_length,
)
from dac_diffusion.codecs.codec_folder import (
    CodecKind,
    find_codec_folder,
    load_codec_weights,
    make_config,
    read_codec_settings,
    settings_make_no_codec,
)
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

KIND = CodecKind("EncodecModel", "encodec", "facebook/encodec_24khz")
# What `encodec_config` may set: the names of transformers' EncodecConfig, with its defaults.
ENCODEC_SETTINGS = (
    *("target_bandwidths", "sampling_rate", "audio_channels", "normalize", "chunk_length_s"),
    *("overlap", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios"),
    *("norm_type", "kernel_size", "last_kernel_size", "residual_kernel_size"),
    *("dilation_growth_rate", "use_causal_conv", "pad_mode", "compress", "num_lstm_layers"),
    *("trim_right_ratio", "codebook_size", "codebook_dim", "use_conv_shortcut"),
)
# Kilobits a second at 24 kHz for each number of codebooks.
BANDWIDTHS = {2: 1.5, 4: 3.0, 8: 6.0, 16: 12.0, 32: 24.0}
# Settings under which a clip's codes are its own, and those of all published 24 kHz models.
NEEDED = {
    "audio_channels": 1,
    "normalize": False,
    "chunk_length_s": None,
    "norm_type": "weight_norm",
    "use_causal_conv": True,
}


class EncodecCodec(ModelMixin, ConfigMixin):
    """EnCodec's codes of mono audio, satisfying `AudioEncoder`.

    features: codes (B, S, N), long, 0 to 1023; 75 frames a second. mask (B, S): frames of the
    clip, the last one perhaps filled up with silence. pooled (B, 1): the constant 1, as codes have
    no vector of their own. bandwidth, in kbit/s, decides N: 1.5, 3, 6, 12 and 24 give 2, 4, 8, 16
    and 32 codebooks, each of which codes what those before it have left.

    The network is causal, so nothing behind a clip reaches its frames. Its convolutions mirror the
    first frames of a clip to its left: a clip below 7 frames (93 ms) would be mirrored further
    than it reaches, so every clip is heard with silence up to one second at least.

    encodec_config: settings of EncodecConfig that differ from its defaults, the sizes of
    facebook/encodec_24khz. Raises ConfigError for a model that is not mono, not causal, or
    normalises over time, and for a bandwidth it has not.
    Source: Défossez et al., arXiv 2210.13438.
    """

    @register_to_config
    def __init__(
        self,
        encodec_config: dict[str, Any] | None = None,
        bandwidth: float = 12.0,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        super().__init__()
        from transformers import EncodecConfig
        from transformers.models.encodec.modeling_encodec import (
            EncodecEncoder,
            EncodecResidualVectorQuantizer,
        )

        config = make_config(
            EncodecConfig, encodec_config or {}, ENCODEC_SETTINGS, "encodec_config"
        )
        _check(config, bandwidth)
        self.sampling_rate, self.window_seconds = config.sampling_rate, window_seconds
        self.hop_length, self.bandwidth = config.hop_length, float(bandwidth)
        self.encoder = EncodecEncoder(config)
        self.quantizer = EncodecResidualVectorQuantizer(config)
        self.codebook_size = config.codebook_size
        self.num_codebooks: int = self.quantizer.get_num_quantizers_for_bandwidth(bandwidth)
        self.feature_dim, self.pooled_dim = self.num_codebooks, 1
        self._unit = canvas_unit(self.sampling_rate, self.hop_length)

    @classmethod
    def from_published(
        cls,
        path_or_hub_id: str | Path,
        bandwidth: float = 12.0,
        window_seconds: float = WINDOW_SECONDS,
    ) -> EncodecCodec:
        """The encoder of an EncodecModel: a folder with config.json and weights, or a Hub id.

        Raises CheckpointError for a folder that is missing, damaged or of another model,
        ConfigError for a bandwidth that the model has not.
        """
        from transformers import EncodecConfig

        folder = find_codec_folder(path_or_hub_id, KIND)
        settings = read_codec_settings(folder, KIND, EncodecConfig, ENCODEC_SETTINGS)
        try:
            _check_needed(settings)
        except ConfigError as error:
            raise settings_make_no_codec(folder, KIND, error) from error
        codec = cls(settings, bandwidth, window_seconds)
        load_codec_weights(codec, folder, KIND)
        return codec.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: its own in whole seconds, rounded up."""
        return padded_length(num_samples, self._unit)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Code waveforms (B, T) of which `num_samples` (B,) are audio, the rest ignored."""
        waveform, mask = clips_in_frames(waveform, num_samples, self.hop_length, self._unit)
        with full_precision(waveform.device):
            hidden = self.encoder(waveform[:, None].to(self.dtype))  # (B, D, S)
            codes = self.quantizer.encode(hidden, self.bandwidth)  # (N, B, S)
        return code_features(rearrange(codes, "n b s -> b s n"), mask)


def bandwidth_of(num_codebooks: int | None) -> float:
    """The kilobits a second of so many codebooks at 24 kHz, of 16 if None. Raises ConfigError."""
    bandwidth = BANDWIDTHS.get(16 if num_codebooks is None else num_codebooks)
    if bandwidth is None:
        known = ", ".join(map(str, BANDWIDTHS))
        raise ConfigError(f"num_codebooks={num_codebooks}: EnCodec has {known}")
    return bandwidth


def _check(config: Any, bandwidth: float) -> None:
    _check_needed({name: getattr(config, name) for name in NEEDED})
    if float(bandwidth) not in map(float, config.target_bandwidths):
        known = ", ".join(f"{width:g}" for width in config.target_bandwidths)
        raise ConfigError(f"bandwidth={bandwidth}: EnCodec has {known} kbit/s")


def _check_needed(settings: dict[str, Any]) -> None:
    for name, needed in NEEDED.items():
        if settings[name] != needed:
            raise ConfigError(
                f"{name} is {settings[name]!r}, but only EnCodec models for mono audio of any "
                f"length, with {name}={needed!r}, are read here"
            )
