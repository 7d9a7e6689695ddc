"""Codes of audio and one vector of the whole: the input of EnCLAP, EnCLAP++ and CLAP-ART."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.codec_audio import full_precision
from dac_diffusion.codecs.descript import DescriptCodec
from dac_diffusion.codecs.encodec import EncodecCodec
from dac_diffusion.codecs.loading import codec_class, codec_name
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.encoders.base import AudioFeatures, weights_digest
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

OF_THE_CODEC = "codec"  # as sequence_name: the vector of the encoder whose features are quantised


class CodeEncoder(ModelMixin, ConfigMixin):
    """A codec's codes, and as pooled vector that of a "sequence encoder"; an `AudioEncoder`.

    features: codes (B, S, N), long, 0 to codebook_size - 1; mask (B, S); pooled (B, P).

    codec_name: "encodec", "descript", "beats_tokenizer" or "rvq" (`QuantizedEncoder`);
    sequence_name: an encoder of encoders/loading.py, "codec" for the encoder inside of "rvq", which
    then runs once, or None. Without one, pooled is the constant 1, (B, 1), and what a model makes
    of it is the same for every clip. codec_config, sequence_config: settings that differ from the
    defaults.

    sampling_rate is the higher one of the two; every clip is resampled by itself for the other.
    Of a clip longer than the sequence encoder's window, the vector is the mean of its windows'
    vectors, weighted by their lengths. window_seconds: the longest audio at once (None: the
    codec's own). Cutting codes to a model's longest input is left to that model.

    Weights stay in float32 whatever type the module is cast to, because in bfloat16 many codes
    would be others; the pooled vector has the type asked for.
    Raises ConfigError for parts or settings that do not fit.
    Sources: EnCLAP (LAION-CLAP, EnCodec), EnCLAP++ arXiv 2409.01201 (a retrieval encoder, the
    Descript codec), CLAP-ART arXiv 2506.00800 (CLAP, quantised BEATs or its tokenizer).
    """

    @register_to_config
    def __init__(
        self,
        codec_name: str = "encodec",
        codec_config: dict[str, Any] | None = None,
        sequence_name: str | None = None,
        sequence_config: dict[str, Any] | None = None,
        window_seconds: float | None = None,
    ) -> None:
        super().__init__()
        if sequence_name == OF_THE_CODEC and codec_name != "rvq":
            raise ConfigError(f"sequence_name='codec': {codec_name} has no vector of its own")
        if sequence_name == "codes":
            raise ConfigError("sequence_name='codes': give an encoder of features")
        self.codec: Any = codec_class(codec_name)(**(codec_config or {}))
        self.sequence_encoder: Any = None
        if sequence_name not in (None, OF_THE_CODEC):
            self.sequence_encoder = encoder_class(sequence_name)(**(sequence_config or {}))
        self.sampling_rate: int = max(part.sampling_rate for part in self._parts())
        self.window_is_limit: bool = getattr(self.codec, "window_is_limit", False)
        self.window_seconds = _window(window_seconds, self.codec, self.window_is_limit)
        self.num_codebooks: int = self.codec.num_codebooks
        self.codebook_size: int = self.codec.codebook_size
        vectors = self.sequence_encoder or self.codec
        self.has_sequence_vector = sequence_name is not None
        self.feature_dim = self.num_codebooks
        self.pooled_dim: int = vectors.pooled_dim if self.has_sequence_vector else 1
        self._pooled_like = torch.zeros(0)  # of the type and on the device asked for

    @classmethod
    def from_parts(
        cls,
        codec: EncodecCodec | DescriptCodec | BeatsTokenizer | QuantizedEncoder,
        sequence_encoder: Any = None,
        window_seconds: float | None = None,
    ) -> CodeEncoder:
        """Copies of a codec and of a sequence encoder; of one that is inside the codec, none.

        In evaluation mode, without gradients. Raises ConfigError for a window that is too long.
        """
        name, settings = None, None
        if sequence_encoder is not None and _is_inside(sequence_encoder, codec):
            name, sequence_encoder = OF_THE_CODEC, None
        elif sequence_encoder is not None:
            name, settings = encoder_name(sequence_encoder), settings_of(sequence_encoder)
        encoder = cls(codec_name(codec), settings_of(codec), name, settings, window_seconds)
        encoder.codec.load_state_dict(codec.state_dict())
        if sequence_encoder is not None:
            encoder.sequence_encoder.load_state_dict(sequence_encoder.state_dict())
        return encoder.eval().requires_grad_(False)

    @classmethod
    def from_published(cls, path: str | Path, window_seconds: float | None = None) -> CodeEncoder:
        """The encoder in a folder that save_pretrained made. Raises CheckpointError."""
        given = {} if window_seconds is None else {"window_seconds": window_seconds}
        encoder: CodeEncoder = load_saved_model(cls, Path(path), given)
        return encoder

    @property
    def vectors_encoder(self) -> Any:
        """The encoder that the vectors are from; None without a sequence encoder."""
        return self.sequence_encoder or (self.codec.encoder if self.has_sequence_vector else None)

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window; see common_canvas."""
        return common_canvas(self._parts(), num_samples, self.sampling_rate)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Code waveforms (B, T) of which the first `num_samples` (B,) samples are audio."""
        clips = [row[:count] for row, count in zip(waveform, num_samples.tolist(), strict=True)]
        with full_precision(waveform.device):
            audio = join_clips(encode_clips(self.codec, self._for(self.codec, clips), len(clips)))
            if self.sequence_encoder is not None:
                heard = self._for(self.sequence_encoder, clips)
                pooled = window_vectors(self.sequence_encoder, heard)
            elif self.has_sequence_vector:
                pooled = audio.pooled
            else:
                pooled = torch.ones(len(clips), 1, device=waveform.device)
        return AudioFeatures(audio.features, audio.mask, pooled.to(self._pooled_like.dtype))

    def _parts(self) -> list[Any]:
        return [part for part in (self.codec, self.sequence_encoder) if part is not None]

    def _for(self, part: Any, clips: list[Tensor]) -> list[Tensor]:
        return [resample_clip(clip, self.sampling_rate, part.sampling_rate) for clip in clips]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CodeEncoder:
        """What .to() and its like do with every weight: here they move, but stay in float32."""
        self._pooled_like = fn(self._pooled_like)
        device = self._pooled_like.device
        moved: CodeEncoder = super()._apply(lambda tensor: tensor.to(device), recurse)
        return moved


def _window(window_seconds: float | None, codec: Any, is_limit: bool) -> float:
    longest: float = codec.window_seconds
    if window_seconds is None:
        return longest
    if window_seconds <= 0 or (is_limit and window_seconds > longest):
        upper = f" and at most {longest:g}, all that its encoder hears" if is_limit else ""
        raise ConfigError(f"window_seconds={window_seconds}: must be above 0{upper}")
    return window_seconds


def _is_inside(encoder: Any, codec: Any) -> bool:
    """Whether the encoder whose features a codec quantises is this one, weights and all."""
    if not isinstance(codec, QuantizedEncoder) or type(codec.encoder) is not type(encoder):
        return False
    ours, theirs = ({**settings_of(e), "window_seconds": None} for e in (codec.encoder, encoder))
    return ours == theirs and weights_digest(codec.encoder) == weights_digest(encoder)
