"""HTSAT, the audio side of CLAP in transformers' form (laion/clap-htsat-fused and -unfused)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from dac_diffusion.audio.clap_mel import ClapLogMel, MelScale, Padding, repeat_pad
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clap_features import (
    RealFrames,
    check_choice,
    check_window,
    clap_features,
)
from dac_diffusion.encoders.clap_folder import (
    find_clap_folder,
    load_clap_weights,
    read_clap_config,
    read_extractor_settings,
)
from dac_diffusion.encoders.patch_features import FrequencyPooling
from dac_diffusion.errors import CheckpointError, ConfigError

# What `clap_config` may set: the names of transformers' ClapAudioConfig, with its defaults.
CLAP_SETTINGS = (
    *("window_size", "num_mel_bins", "spec_size", "hidden_act", "patch_size", "patch_stride"),
    *("num_classes", "hidden_size", "projection_dim", "depths", "num_attention_heads"),
    *("enable_fusion", "hidden_dropout_prob", "fusion_type", "patch_embed_input_channels"),
    *("flatten_patch_embeds", "patch_embeds_hidden_size", "enable_patch_layer_norm"),
    *("drop_path_rate", "attention_probs_dropout_prob", "qkv_bias", "mlp_ratio", "aff_block_r"),
    *("num_hidden_layers", "projection_hidden_act", "layer_norm_eps", "initializer_factor"),
)
# Our setting -> that of transformers' ClapFeatureExtractor.
EXTRACTOR_SETTINGS = {
    "sampling_rate": "sampling_rate",
    "input_seconds": "max_length_s",
    "fft_size": "fft_window_size",
    "hop_length": "hop_length",
    "f_min": "frequency_min",
    "f_max": "frequency_max",
    "padding": "padding",
}
FUSION_VIEWS = 4  # the whole clip and three crops of it; four times the clip up to 10 s


class HtsatEncoder(ModelMixin, ConfigMixin):
    """HTSAT features of 10 s of audio and CLAP's audio embedding, satisfying `AudioEncoder`.

    features: HTSAT's last hidden state. With the published sizes 32 frames of 2 frequency bands:
    (B, 64, 768) in the order time, then frequency (index 2 t + band, band 0 the lower 32 mels).
    One frame is 10 s / 32 = 0.3125 s, 3.2 frames a second (to 5 ms, because the 1001 log-mel
    frames are stretched to 1024). frequency_pooling: "mean" averages the bands, (B, 32, 768).
    pooled: the projected embedding of unit length, (B, 512), in the space of `ClapTextEncoder`.

    HTSAT always hears `input_seconds`: a shorter clip is filled up with itself (`padding`, see
    `audio.clap_mel.repeat_pad`), and nothing depends on other clips, on what follows the clip's
    own samples, or on chance. A window should be no longer than `window_seconds`. Of one longer
    than `input_seconds` (a caller may join a short rest to the last window) the first
    `input_seconds` are heard, so that a model with fusion never takes random crops: `is_longer`
    is always False, and the weights for such crops stay unused.

    real_frames: which frames the mask calls real. "all", as in published systems, though after
    the last whole copy of a clip come zeros (a clip of 6 s is one copy and 4 s of them).
    "first_copy": those where the clip itself lies, ceil(seconds / 0.3125) of 32; attention mixes
    the whole 10 s into them all the same.

    clap_config: settings of ClapAudioConfig that differ from its defaults, the sizes of
    laion/clap-htsat-unfused. mel_scale: if None, "htk" with fusion and "slaney" without, as
    published. Raises ConfigError for settings that contradict each other.
    Sources: Chen et al., arXiv 2202.00874 (HTSAT); Wu et al., arXiv 2211.06687 (CLAP).
    """

    window_is_limit = True

    @register_to_config
    def __init__(
        self,
        clap_config: dict[str, Any] | None = None,
        sampling_rate: int = 48000,
        window_seconds: float | None = None,
        input_seconds: float = 10.0,
        fft_size: int = 1024,
        hop_length: int = 480,
        f_min: float = 50.0,
        f_max: float = 14000.0,
        mel_scale: MelScale | None = None,
        padding: Padding = "repeatpad",
        frequency_pooling: FrequencyPooling = "none",
        real_frames: RealFrames = "all",
    ) -> None:
        super().__init__()
        from transformers import ClapAudioModelWithProjection

        config = _audio_config(clap_config or {})
        check_window(window_seconds, input_seconds)
        check_choice("padding", padding, Padding)
        check_choice("frequency_pooling", frequency_pooling, FrequencyPooling)
        check_choice("real_frames", real_frames, RealFrames)
        self.sampling_rate = sampling_rate
        self.window_seconds = input_seconds if window_seconds is None else window_seconds
        self.feature_dim, self.pooled_dim = config.hidden_size, config.projection_dim
        self.input_samples = round(input_seconds * sampling_rate)
        self.padding, self.frequency_pooling = padding, frequency_pooling
        self.real_frames = real_frames
        self.views = FUSION_VIEWS if config.enable_fusion else 1
        _check_frames(config, 1 + self.input_samples // hop_length)
        scale = mel_scale or ("htk" if config.enable_fusion else "slaney")
        self.log_mel = ClapLogMel(
            sampling_rate, fft_size, hop_length, config.num_mel_bins, f_min, f_max, scale
        )
        self.clap = ClapAudioModelWithProjection(config)

    @classmethod
    def from_published(
        cls, path_or_hub_id: str | Path, window_seconds: float | None = None
    ) -> HtsatEncoder:
        """The audio side of a ClapModel: a folder with config.json and weights, or a Hub id.

        The log-mel settings are those of the folder's feature extractor, else the published ones.
        window_seconds: at most the model's 10 s, its default. Raises CheckpointError for a folder
        that is missing, damaged or of another model, ConfigError for a longer window.
        """
        folder = find_clap_folder(path_or_hub_id)
        audio_config = read_clap_config(folder).audio_config
        clap_config = {name: getattr(audio_config, name) for name in CLAP_SETTINGS}
        settings = _log_mel_settings(folder)
        check_window(window_seconds, settings.get("input_seconds", 10.0))
        try:
            encoder = cls(clap_config=clap_config, window_seconds=window_seconds, **settings)
        except Exception as error:  # sizes that contradict each other, of any kind
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"{folder}: its settings make no CLAP ({type(error).__name__}: {reason}); "
                "download it again"
            ) from error
        load_clap_weights(encoder.clap, folder)
        return encoder.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: a multiple of the 10 s that HTSAT hears."""
        return max(1, math.ceil(num_samples / self.input_samples)) * self.input_samples

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        filled = repeat_pad(waveform, num_samples, self.input_samples, self.padding)  # (B, T_in)
        log_mel = self.log_mel(filled)  # (B, T_mel, M)
        views = log_mel[:, None].expand(-1, self.views, -1, -1)  # (B, V, T_mel, M)
        is_longer = torch.zeros(len(waveform), 1, dtype=torch.bool, device=waveform.device)
        found = self.clap.audio_model(input_features=views.to(self.dtype), is_longer=is_longer)
        return clap_features(
            found.last_hidden_state,
            self.clap.audio_projection(found.pooler_output),
            num_samples,
            self.input_samples,
            self.frequency_pooling,
            self.real_frames,
        )


def _log_mel_settings(folder: Path) -> dict[str, Any]:
    """What a folder says of its log-mel, as settings of HtsatEncoder."""
    found = read_extractor_settings(folder)
    settings = {ours: found[name] for ours, name in EXTRACTOR_SETTINGS.items() if name in found}
    for ours, value in settings.items():
        if not isinstance(value, str if ours == "padding" else int | float):
            raise CheckpointError(
                f"{folder}: its feature extractor's {EXTRACTOR_SETTINGS[ours]} is {value!r}; "
                "download it again"
            )
    if "truncation" in found:
        settings["mel_scale"] = "htk" if found["truncation"] == "fusion" else "slaney"
    return settings


def _audio_config(settings: dict[str, Any]) -> Any:  # a transformers ClapAudioConfig
    from transformers import ClapAudioConfig

    unknown = sorted(settings.keys() - set(CLAP_SETTINGS))
    if unknown:
        raise ConfigError(
            f"clap_config: {', '.join(unknown)} unknown; use the names of ClapAudioConfig: "
            f"{', '.join(CLAP_SETTINGS)}"
        )
    config = ClapAudioConfig(**settings)
    width = config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1)
    if config.hidden_size != width:
        raise ConfigError(
            f"clap_config: hidden_size is {config.hidden_size}, but patch_embeds_hidden_size "
            f"doubled {len(config.depths) - 1} times is {width}"
        )
    return config


def _check_frames(config: Any, frames: int) -> None:
    """HTSAT folds the log-mel into a square image of `spec_size`, stretch under stretch."""
    longest = config.spec_size * (config.spec_size // config.num_mel_bins)
    if frames > longest:
        raise ConfigError(
            f"{frames} log-mel frames do not fit HTSAT's image of {longest}; lower input_seconds "
            "or raise hop_length or spec_size"
        )
