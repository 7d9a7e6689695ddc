"""Audio encoders by name, with published weights from a local file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch

from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import is_saved, load_saved_model

EncoderName = Literal["small", "beats", "ced", "htsat", "laion_clap", "mel", "codes", "paired"]


def load_encoder(
    name: str,
    weights: str | Path,
    window_seconds: float | None = None,
    frequency_pooling: Literal["none", "mean"] | None = None,
) -> Any:  # an AudioEncoder that is an nn.Module
    """An audio encoder in evaluation mode, its weights frozen.

    name: "small" (the one trained here: a folder with its config.json, or "builtin"), "beats" and
    "ced" (the published .pt files), "htsat" (a transformers ClapModel folder or Hub id),
    "laion_clap" (the original .pt files, needs the extra `laion-clap`), "codes", "paired" and "mel"
    (what save_pretrained made of codecs/code_encoder.py, of paired.py and of the spectrogram,
    mel_patches.py). Instead of published weights, `weights` may be the `encoder` folder of a saved
    captioner.
    window_seconds: the longest audio it takes at once; frequency_pooling: of those on spectrogram
    patches; both as they are if None.
    Raises ConfigError for another name or setting, CheckpointError for weights that are missing,
    damaged or of another model.
    """
    if name == "small" and frequency_pooling is not None:
        raise ConfigError("frequency_pooling: the small encoder has no such setting; remove it")
    if name == "mel" and frequency_pooling is not None:
        raise ConfigError("frequency_pooling: the spectrogram has no such setting; remove it")
    if name == "codes" and frequency_pooling is not None:
        raise ConfigError(
            "frequency_pooling: codes have no such setting; it belongs to the encoder whose "
            "features are quantised; remove it"
        )
    if name == "paired" and frequency_pooling is not None:
        raise ConfigError(
            "frequency_pooling: a pair has no such setting; it belongs to the encoder whose "
            "features are in it; remove it"
        )
    cls = encoder_class(name)
    if name != "small" and is_saved(Path(weights), cls.__name__):
        given = {"window_seconds": window_seconds, "frequency_pooling": frequency_pooling}
        settings = {key: value for key, value in given.items() if value is not None}
        encoder = load_saved_model(cls, Path(weights), settings)
    else:
        encoder = cls.from_published(weights, window_seconds)
        if frequency_pooling is not None:
            encoder.frequency_pooling = frequency_pooling
            encoder.register_to_config(frequency_pooling=frequency_pooling)
    return encoder.eval().requires_grad_(False)


def random_encoder(name: str, seed: int = 0) -> Any:
    """A small untrained encoder of a kind, for trials from nothing; raises ConfigError."""
    cls = encoder_class(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "beats":
            encoder = cls(
                encoder_layers=2,
                encoder_embed_dim=48,
                encoder_ffn_embed_dim=96,
                encoder_attention_heads=4,
                embed_dim=32,
                conv_pos_groups=4,
            )
        elif name == "ced":
            encoder = cls(embed_dim=48, depth=2, num_heads=4, mlp_dim=96)
        elif name == "htsat":
            encoder = cls(clap_config=_small_htsat())
        elif name == "mel":
            encoder = cls()
        elif name == "codes":
            from dac_diffusion.codecs.loading import random_codec

            encoder = cls.from_parts(random_codec("encodec", seed), random_encoder("htsat", seed))
        elif name == "paired":
            encoder = cls.from_parts(random_encoder("beats", seed), random_encoder("htsat", seed))
        else:
            raise ConfigError(f"encoder.weights=random: not possible for {name}; give its weights")
    return encoder.eval().requires_grad_(False)


def _small_htsat() -> dict[str, Any]:
    return {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "projection_dim": 32,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        "enable_fusion": False,
    }


def encoder_name(encoder: Any) -> str:
    """The name under which an encoder's class is known here. Raises ConfigError."""
    for name in get_args(EncoderName):
        if type(encoder) is encoder_class(name):
            return str(name)
    names = ", ".join(get_args(EncoderName))
    raise ConfigError(f"{type(encoder).__name__} is none of the encoders {names}")


def settings_of(model: Any) -> dict[str, Any]:
    """The settings that a diffusers model was made with."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def encoder_class(name: str) -> Any:
    """The class of an encoder by its name; raises ConfigError."""
    if name == "beats":
        from dac_diffusion.encoders.beats import BeatsEncoder

        return BeatsEncoder
    if name == "ced":
        from dac_diffusion.encoders.ced import CedEncoder

        return CedEncoder
    if name == "htsat":
        from dac_diffusion.encoders.htsat import HtsatEncoder

        return HtsatEncoder
    if name == "laion_clap":
        from dac_diffusion.encoders.laion_clap import LaionClapEncoder

        return LaionClapEncoder
    if name == "small":
        from dac_diffusion.encoders.convolutional import ConvolutionalEncoder

        return ConvolutionalEncoder
    if name == "mel":
        from dac_diffusion.encoders.mel_patches import MelPatchEncoder

        return MelPatchEncoder
    if name == "codes":
        from dac_diffusion.codecs.code_encoder import CodeEncoder

        return CodeEncoder
    if name == "paired":
        from dac_diffusion.encoders.paired import PairedEncoder

        return PairedEncoder
    names = ", ".join(get_args(EncoderName))
    raise ConfigError(f"encoder={name!r} is unknown: use one of {names}")
