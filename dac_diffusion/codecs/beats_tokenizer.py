"""The acoustic tokenizer of BEATs: one codebook, in the variant "BEATs-AT" of CLAP-ART."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.codecs.codec_audio import code_features, full_precision
from dac_diffusion.codecs.residual_quantizer import nearest_entries
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.beats import (
    CFG_DEFAULTS,
    BeatsEncoder,
    cfg_settings,
    own_weights,
    published_shapes,
    read_published,
)
from dac_diffusion.encoders.published_weights import build_empty, check_entries, fill
from dac_diffusion.errors import CheckpointError, ConfigError

KIND = "BEATs tokenizer"  # in messages
# What the published code assumes where a file's cfg is silent.
QUANTIZER_DEFAULTS: dict[str, Any] = {"quant_n": 1024, "quant_dim": 256}
CODEBOOK, LAYERS = "quantize.embedding.weight", "quantize_layer."
# What only the tokenizer's own training reads.
TRAINING_STATE = (
    "quantize.cluster_size",
    "quantize.embedding.cluster_size",
    "quantize.embedding.embed_avg",
    "quantize.embedding.initted",
)


class BeatsTokenizer(ModelMixin, ConfigMixin):
    """16 kHz waveform of any length -> one code for each patch, 50 a second: an `AudioEncoder`.

    features: codes (B, S, 1), long, 0 to codebook_size - 1, of the patches that `BeatsEncoder` has
    features of, in their order: the bands of the first time patch, then those of the next, 496 for
    10 s. mask (B, S); pooled (B, 1): the constant 1, as codes have no vector of their own.

    Two linear layers with tanh between them make codebook_dim numbers of a patch's feature. They
    are brought to length 1, and the code is the nearest of the entries, which have length 1 in
    published files: the one with the largest cosine.

    beats_config: settings of BeatsEncoder that differ from its defaults. Raises ConfigError for
    sizes that make no model.
    Sources: BEATs, arXiv 2212.09058, and the code published with it (Tokenizers.py, quantizer.py);
    CLAP-ART, arXiv 2506.00800.
    """

    @register_to_config
    def __init__(
        self,
        beats_config: dict[str, Any] | None = None,
        codebook_size: int = 1024,
        codebook_dim: int = 256,
    ) -> None:
        super().__init__()
        for name, size in (("codebook_size", codebook_size), ("codebook_dim", codebook_dim)):
            if size < 1:
                raise ConfigError(f"{name}={size}: must be at least 1")
        self.encoder = BeatsEncoder(**(beats_config or {}))
        width = self.encoder.feature_dim
        self.quantize_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, codebook_dim)
        )
        codebook = torch.zeros(codebook_size, codebook_dim)  # (C, Q)
        self.codebook = nn.Parameter(codebook, requires_grad=False)
        self.sampling_rate = self.encoder.sampling_rate
        self.window_seconds = self.encoder.window_seconds
        self.num_codebooks, self.codebook_size = 1, codebook_size
        self.feature_dim = self.pooled_dim = 1

    @classmethod
    def from_published(
        cls, path: str | Path, window_seconds: float | None = None
    ) -> BeatsTokenizer:
        """The tokenizer of a published file: {"cfg": {...}, "model": its weights by name}.

        Raises CheckpointError for a file that cannot be read, has no codebook, or whose entries
        are not exactly those that its cfg asks for.
        """
        cfg, weights = read_published(path, KIND)
        if CODEBOOK not in weights:
            raise CheckpointError(
                f"{path}: is not a published {KIND}, it lacks {CODEBOOK}; files named BEATs_* have "
                "features, not codes: give a file such as Tokenizer_iter3_plus_AS2M.pt"
            )
        sizes = cfg_settings(cfg, QUANTIZER_DEFAULTS, path)
        settings = cfg_settings(cfg, CFG_DEFAULTS, path)
        if window_seconds is not None:
            settings["window_seconds"] = window_seconds
        tokenizer = build_empty(lambda: cls(settings, sizes["quant_n"], sizes["quant_dim"]), path)
        body = {name: value for name, value in weights.items() if name not in TRAINING_STATE}
        layers = {
            name: tensor.shape
            for name, tensor in tokenizer.state_dict().items()
            if name.startswith(LAYERS)
        }
        expected = {**published_shapes(tokenizer.encoder), **layers}
        check_entries(body, {**expected, CODEBOOK: tokenizer.codebook.shape}, path, KIND)
        own = {"codebook": body.pop(CODEBOOK), **{name: body.pop(name) for name in layers}}
        for name, value in own_weights(body, path, KIND).items():
            own[f"encoder.{name}"] = value
        return fill(tokenizer, own)

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window, as BEATs wants it."""
        return self.encoder.canvas_samples(num_samples)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Code waveforms (B, T) of which `num_samples` (B,) are audio, the rest ignored."""
        with full_precision(waveform.device):
            audio: AudioFeatures = self.encoder(waveform, num_samples)
            rows = rearrange(self.vectors(audio.features), "b s q -> (b s) q")
            codes = nearest_entries(rows, self.codebook.float())  # (B * S,)
        codes = rearrange(codes, "(b s) -> b s 1", b=len(waveform))
        return code_features(codes, audio.mask)

    def vectors(self, features: Tensor) -> Tensor:
        """What is compared with the codebook, float32: features (..., D) -> (..., Q)."""
        return F.normalize(self.quantize_layer(features).float(), dim=-1)
