"""The Descript codec, the neural audio codec of EnCLAP++, through transformers' DacModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
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
)
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

KIND = CodecKind("DacModel", "dac", "descript/dac_24khz")
# What `descript_config` may set: names of transformers' DacConfig. Its defaults are another
# model's, so those of descript/dac_24khz stand here.
DESCRIPT_SETTINGS: dict[str, Any] = {
    "encoder_hidden_size": 64,
    "downsampling_ratios": [2, 4, 5, 8],
    "decoder_hidden_size": 1536,
    "n_codebooks": 32,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "sampling_rate": 24000,
}
CLIPS_AT_ONCE = 8  # 30 s of them take 1.5 GB for each activation of the first layers


class DescriptCodec(ModelMixin, ConfigMixin):
    """The Descript codec's codes of mono audio, satisfying `AudioEncoder`.

    features: codes (B, S, N), long, 0 to 1023; 75 frames a second. mask (B, S): frames of the
    clip, the last one perhaps filled up with silence. pooled (B, 1): the constant 1, as codes have
    no vector of their own. num_codebooks: the first N of the model's 32 (None: all); each codes
    what those before it have left.

    The network looks ahead, and silence behind a clip would change up to 9 of its last frames. So
    every layer is shown nothing behind a clip, as if the clip, in whole frames, were alone; its
    codes are those of DacModel for it alone.

    descript_config: settings of DacConfig that differ from those of descript/dac_24khz.
    Raises ConfigError for settings that make no model.
    Source: Kumar et al., arXiv 2306.06546.
    """

    @register_to_config
    def __init__(
        self,
        descript_config: dict[str, Any] | None = None,
        num_codebooks: int | None = None,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        super().__init__()
        from transformers import DacConfig
        from transformers.models.dac.modeling_dac import DacEncoder, DacResidualVectorQuantizer

        given = {**DESCRIPT_SETTINGS, **(descript_config or {})}
        config = make_config(DacConfig, given, DESCRIPT_SETTINGS, "descript_config")
        count = config.n_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= config.n_codebooks:
            raise ConfigError(f"num_codebooks={count}: this codec has 1 to {config.n_codebooks}")
        self.sampling_rate, self.window_seconds = config.sampling_rate, window_seconds
        self.hop_length = config.hop_length
        self.encoder = DacEncoder(config)
        self.quantizer = DacResidualVectorQuantizer(config)
        self.num_codebooks, self.codebook_size = count, config.codebook_size
        self.feature_dim, self.pooled_dim = count, 1
        self._unit = canvas_unit(self.sampling_rate, self.hop_length)

    @classmethod
    def from_published(
        cls,
        path_or_hub_id: str | Path,
        num_codebooks: int | None = None,
        window_seconds: float = WINDOW_SECONDS,
    ) -> DescriptCodec:
        """The encoder of a DacModel: a folder with config.json and weights, or a Hub id.

        Raises CheckpointError for a folder that is missing, damaged or of another model,
        ConfigError for more codebooks than the model has.
        """
        from transformers import DacConfig

        folder = find_codec_folder(path_or_hub_id, KIND)
        settings = read_codec_settings(folder, KIND, DacConfig, DESCRIPT_SETTINGS)
        codec = cls(settings, num_codebooks, window_seconds)
        load_codec_weights(codec, folder, KIND)
        return codec.eval()

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: its own in whole seconds, rounded up."""
        return padded_length(num_samples, self._unit)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Code waveforms (B, T) of which `num_samples` (B,) are audio, the rest ignored."""
        waveform, mask = clips_in_frames(waveform, num_samples, self.hop_length, self._unit)
        with full_precision(waveform.device):
            parts = [
                self._codes(part.to(self.dtype), heard)
                for part, heard in zip(
                    waveform.split(CLIPS_AT_ONCE), mask.split(CLIPS_AT_ONCE), strict=True
                )
            ]
        return code_features(torch.cat(parts), mask)

    def _codes(self, waveform: Tensor, mask: Tensor) -> Tensor:
        """Codes (B, S, N) of waveforms (B, S * hop), of which frames in mask (B, S) are audio."""
        residual = self._hidden(waveform, mask)  # (B, D, S)
        codes = []
        for layer in self.quantizer.quantizers[: self.num_codebooks]:
            quantized, _, _, indices, _ = layer(residual)  # (B, D, S), (B, S)
            residual = residual - quantized
            codes.append(indices)
        return torch.stack(codes, dim=-1)  # (B, S, N)

    def _hidden(self, waveform: Tensor, mask: Tensor) -> Tensor:
        """DacEncoder's output (B, D, S), every convolution given zeros behind the clips.

        Zeros are what a convolution pads with, so each clip is computed as if it ended there. The
        waveforms have silence there already.
        """
        encoder: Any = self.encoder

        def hide(x: Tensor) -> Tensor:
            """Zeros behind the clips, at whatever rate `x` (B, C, T) has."""
            samples = x.shape[-1] // mask.shape[-1]
            return x * mask.repeat_interleave(samples, dim=-1)[:, None].to(x.dtype)

        x = encoder.conv1(waveform[:, None])  # (B, C, T)
        for block in encoder.block:
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                inner = unit.conv1(hide(unit.snake1(x)))
                x = x + unit.conv2(unit.snake2(inner))
            x = block.conv1(hide(block.snake1(x)))  # (B, 2 C, T / stride)
        hidden: Tensor = encoder.conv2(hide(encoder.snake1(x)))  # (B, D, S)
        return hidden
