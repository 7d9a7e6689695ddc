"""BEATs (Chen et al. 2022, arXiv 2212.09058): a transformer on patches of Kaldi log-mel frames.

Written from the published layout of its checkpoints (iter1 to iter3+, self-supervised or fine-tuned
on AudioSet). Unlike with the published code, a clip's features do not depend on the padding that
its batch needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.audio.kaldi_fbank import KaldiFilterBank
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.beats_transformer import BeatsTransformer
from dac_diffusion.encoders.patch_features import (
    SAMPLING_RATE,
    FrequencyPooling,
    check_frequency_pooling,
    own_samples,
    padded_length,
    patch_features,
)
from dac_diffusion.encoders.published_weights import build_empty, check_entries, fill, read_weights
from dac_diffusion.errors import CheckpointError, ConfigError

NUM_MELS = 128
# Of AudioSet's frames, from the published front end; twice the deviation is what it divides by.
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582
SIXTEEN_BIT = 2.0**15  # the frames were made of samples as integers

# What the published code assumes where a file's cfg is silent. Not the defaults of BeatsEncoder,
# which are what the cfg of BEATs_iter3+ says.
CFG_DEFAULTS: dict[str, Any] = {
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "embed_dim": 512,
    "input_patch_size": 16,
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
    "deep_norm": False,
    "layer_norm_first": False,
}
KIND = "BEATs"  # in messages
SHARED_BIAS = "encoder.relative_attention_bias.weight"


class BeatsEncoder(ModelMixin, ConfigMixin):
    """16 kHz waveform of any length -> features (B, S, 768), 50 a second, pooled their mean.

    Satisfies `encoders.base.AudioEncoder`. A patch is 16 frames of 10 ms by 16 of the 128 bands,
    so that S = 8 * (((num_samples - 400) // 160 + 1) // 16): 496 for 10 s, which are 998 frames.
    frequency_pooling="mean" leaves one feature per 160 ms, 6.25 a second and 62 for 10 s. A clip
    shorter than a patch (2800 samples, 175 ms) is lengthened to it by silence.

    The settings up to layer_norm_first are those that a checkpoint's cfg holds, with the values of
    BEATs_iter3+; window_seconds is the longest audio the captioner gives it at once.
    Raises ConfigError for sizes that do not divide one another and for unknown names.
    """

    @register_to_config
    def __init__(
        self,
        encoder_layers: int = 12,
        encoder_embed_dim: int = 768,
        encoder_ffn_embed_dim: int = 3072,
        encoder_attention_heads: int = 12,
        activation_fn: str = "gelu",
        embed_dim: int = 512,
        input_patch_size: int = 16,
        conv_bias: bool = False,
        conv_pos: int = 128,
        conv_pos_groups: int = 16,
        relative_position_embedding: bool = True,
        num_buckets: int = 320,
        max_distance: int = 800,
        gru_rel_pos: bool = True,
        deep_norm: bool = True,
        layer_norm_first: bool = False,
        window_seconds: float = 10.0,
        frequency_pooling: FrequencyPooling = "none",
    ) -> None:
        super().__init__()
        check_frequency_pooling(frequency_pooling)
        if not 1 <= input_patch_size <= NUM_MELS:
            raise ConfigError(f"input_patch_size={input_patch_size}: use 1 to {NUM_MELS} bands")
        self.sampling_rate, self.window_seconds = SAMPLING_RATE, window_seconds
        self.feature_dim = self.pooled_dim = encoder_embed_dim
        self.patch_size, self.bands = input_patch_size, NUM_MELS // input_patch_size
        self.frequency_pooling = frequency_pooling
        self.filter_bank = KaldiFilterBank(SAMPLING_RATE, NUM_MELS)
        self.patch_embedding = nn.Conv2d(
            1, embed_dim, input_patch_size, input_patch_size, bias=conv_bias
        )
        self.layer_norm = nn.LayerNorm(embed_dim)
        self.post_extract_proj = (
            nn.Linear(embed_dim, encoder_embed_dim)
            if embed_dim != encoder_embed_dim
            else nn.Identity()
        )
        self.encoder = BeatsTransformer(
            width=encoder_embed_dim,
            depth=encoder_layers,
            hidden=encoder_ffn_embed_dim,
            heads=encoder_attention_heads,
            activation=activation_fn,
            kernel=conv_pos,
            groups=conv_pos_groups,
            buckets=num_buckets if relative_position_embedding else None,
            max_distance=max_distance,
            gated=gru_rel_pos,
            deep_norm=deep_norm,
            norm_first=layer_norm_first,
        )

    @classmethod
    def from_published(
        cls,
        path: str | Path,
        window_seconds: float | None = None,
        frequency_pooling: FrequencyPooling = "none",
    ) -> BeatsEncoder:
        """The encoder of a published file: {"cfg": {...}, "model": its weights by name}.

        The classifier of fine-tuned files is left out. Raises CheckpointError for a file that
        cannot be read, or whose entries are not exactly those that its cfg asks for, such as a
        tokenizer of BEATs (codecs/beats_tokenizer.py).
        """
        cfg, weights = read_published(path, KIND)
        if any(name.startswith("quantize") for name in weights):
            raise CheckpointError(
                f"{path}: is a tokenizer of BEATs, which makes codes; give a file such as "
                "BEATs_iter3_plus_AS2M.pt here, or this one to the codec beats_tokenizer"
            )
        settings = cfg_settings(cfg, CFG_DEFAULTS, path)
        if window_seconds is not None:
            settings["window_seconds"] = window_seconds
        settings["frequency_pooling"] = frequency_pooling
        encoder = build_empty(lambda: cls(**settings), path)
        check_entries(weights, published_shapes(encoder), path, KIND)
        return fill(encoder, own_weights(weights, path, KIND))

    def canvas_samples(self, num_samples: int) -> int:
        """The padded length of a window: its own in whole seconds, rounded up."""
        return padded_length(num_samples)

    def num_time_patches(self, num_samples: Tensor) -> Tensor:
        """How many patches in time lie within so many samples, at least one, (B,) -> (B,)."""
        frames = self.filter_bank.num_frames(num_samples)
        return torch.div(frames, self.patch_size, rounding_mode="floor").clamp(min=1)

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many features hold audio, (B,) -> (B,)."""
        bands = self.bands if self.frequency_pooling == "none" else 1
        return self.num_time_patches(num_samples) * bands

    def forward(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Encode waveforms (B, T) of which `num_samples` (B,) are audio, the rest ignored."""
        shortest = self.filter_bank.samples_of(self.patch_size)
        waveform, num_samples = own_samples(waveform, num_samples, shortest)
        frames = self.filter_bank(waveform * SIXTEEN_BIT)  # (B, F, M)
        frames = (frames - FBANK_MEAN) / (2 * FBANK_STD)
        x = frames.unsqueeze(1).to(self.patch_embedding.weight.dtype)  # (B, 1, F, M)
        x = rearrange(self.patch_embedding(x), "b e t f -> b (t f) e")  # (B, N, E)
        x = self.post_extract_proj(self.layer_norm(x))  # (B, N, W)
        num_time_patches = self.num_time_patches(num_samples)  # (B,)
        places = torch.arange(x.shape[1], device=x.device)
        mask = places < (num_time_patches * self.bands)[:, None]  # (B, N)
        x = rearrange(self.encoder(x, mask), "b (t f) w -> b t f w", f=self.bands)
        return patch_features(x, num_time_patches, self.frequency_pooling)


def read_published(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cfg of a published file and its weights by their published names.

    kind: of the model, for messages. The classifier of fine-tuned files is left out. Raises
    CheckpointError for a file that cannot be read or has another layout.
    """
    content = read_weights(path)
    cfg, weights = content.get("cfg"), content.get("model")
    if not isinstance(cfg, dict) or not isinstance(weights, dict):
        raise CheckpointError(
            f"{path}: is not a published {kind}: that holds 'cfg' and 'model', this holds "
            f"{', '.join(map(str, list(content)[:4]))}"
        )
    return cfg, _published_names(weights)


def cfg_settings(cfg: dict[str, Any], defaults: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The settings of a published cfg, or their defaults; raises CheckpointError for others."""
    settings = {name: cfg.get(name, default) for name, default in defaults.items()}
    for name, value in settings.items():
        kind = type(defaults[name])
        if type(value) is not kind or (kind is int and value < 1):
            raise CheckpointError(f"{path}: its cfg has {name}={value!r}, which is not possible")
    return settings


def _published_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Without the classifier; a file saved again with a newer torch has other names for two."""
    names = {"parametrizations.weight.original0": "weight_g",
             "parametrizations.weight.original1": "weight_v"}  # fmt: skip
    renamed = {}
    for name, value in weights.items():
        for new, published in names.items():
            name = str(name).replace(f"pos_conv.0.{new}", f"pos_conv.0.{published}")
        if not name.startswith("predictor."):
            renamed[name] = value
    return renamed


def published_shapes(encoder: BeatsEncoder) -> dict[str, torch.Size]:
    """The entries of a published file of this size by name: 250 for the default sizes."""
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    kernel = shapes.pop("encoder.pos_conv.weight")
    shapes["encoder.pos_conv.0.bias"] = shapes.pop("encoder.pos_conv.bias")
    shapes["encoder.pos_conv.0.weight_g"] = torch.Size((1, 1, kernel[2]))
    shapes["encoder.pos_conv.0.weight_v"] = kernel
    if SHARED_BIAS in shapes:
        bias = shapes.pop(SHARED_BIAS)
        for layer in range(len(encoder.encoder.layers)):
            shapes[_layer_bias(layer)] = bias
    return shapes


def own_weights(weights: dict[str, Tensor], path: str | Path, kind: str) -> dict[str, Tensor]:
    """The entries of a published file under the names of BeatsEncoder.

    kind: of the model, for messages. Raises CheckpointError where the layers' biases differ.
    """
    own = dict(weights)
    own["encoder.pos_conv.bias"] = own.pop("encoder.pos_conv.0.bias")
    length = own.pop("encoder.pos_conv.0.weight_g").float()  # (1, 1, K)
    direction = own.pop("encoder.pos_conv.0.weight_v").float()  # (W, W / groups, K)
    # Weight normalisation: every tap of the kernel has a length and a direction.
    norm = direction.norm(dim=(0, 1), keepdim=True)  # (1, 1, K)
    own["encoder.pos_conv.weight"] = direction * (length / norm)
    biases = [own.pop(name) for name in list(own) if "relative_attention_bias" in name]
    if biases:
        own[SHARED_BIAS] = biases[0]
    if any(not torch.equal(bias, biases[0]) for bias in biases):
        raise CheckpointError(
            f"{path}: is not a published {kind}: its layers share one relative_attention_bias, "
            "here they differ"
        )
    return own


def _layer_bias(layer: int) -> str:
    return f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"
