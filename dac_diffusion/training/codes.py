"""What turns audio into codes for a training: published codecs, or k-means on features.

Only for system=enclap. The k-means is fitted before the captioner is trained, on training clips.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.loading import random_codec
from dac_diffusion.data.scene_features import SceneFeatures, quantize_scenes
from dac_diffusion.encoders.base import weights_digest
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.training.quantizers import (
    given_quantizer,
    join_quantizer,
    quantized_encoder,
    quantizer_of_scenes,
)
from dac_diffusion.training.recordings import RANDOM_WEIGHTS, frozen_encoder
from dac_diffusion.training.settings import CodecConfig, EncoderConfig, TrainingConfig


@dataclass(frozen=True)
class CodedScenes:
    """An encoder of codes, and the codes of the training and of the validation scenes."""

    encoder: CodeEncoder
    training: SceneFeatures
    validation: SceneFeatures


def with_code_encoder(config: TrainingConfig, progress: bool, is_main: bool) -> TrainingConfig:
    """The config with an encoder of codes in place of its encoder; it is made if it is not there.

    With encoder.name=codes there is one already. Of several processes only the main one makes it.
    Raises what prepare_caches and the codecs do.
    """
    if config.encoder.name == "codes":
        return config
    settings = config.codec
    if settings.features == "mel":
        raise ConfigError(
            "codec.features=mel: is for codec.name=rvq with the small encoder on built-in scenes; "
            "here set encoder.name=mel and encoder.weights=random instead"
        )
    folder = _place(config, "code_encoder", _weights_behind(config))
    if is_main and not folder.is_dir():
        codec = _codec(config, progress)
        sequence = None
        if settings.sequence == "encoder":
            sequence = frozen_encoder(config)
        elif settings.sequence == "sequence_encoder":
            sequence = frozen_encoder(
                dataclasses.replace(config, encoder=settings.sequence_encoder)
            )
        encoder = CodeEncoder.from_parts(codec, sequence, settings.window_seconds)
        with atomic_folder(folder) as partial, quiet_libraries():
            encoder.save_pretrained(partial)
    return dataclasses.replace(config, encoder=EncoderConfig(name="codes", weights=str(folder)))


def code_scenes(
    config: TrainingConfig,
    encoder: Any,
    training: SceneFeatures,
    validation: SceneFeatures,
    encode: Callable[[MelPatchEncoder], tuple[SceneFeatures, SceneFeatures]],
    progress: bool,
) -> CodedScenes:
    """Codes of scenes by k-means on features of theirs; the k-means is kept on disk.

    encoder, training, validation: the small encoder and its features, which give the vectors and,
    unless the config says mel, the codes. encode: the features that another encoder has of both.
    Without a sequence vector every scene's is the constant 1, as the encoder's is. Raises
    ConfigError for a quantiser of other features.
    """
    coded, features = encoder, (training, validation)
    if config.codec.features == "mel":
        coded = spectrogram_of(encoder)
        features = encode(coded)
    quantizer = given_quantizer(config)
    if quantizer is None:
        decides = [
            weights_digest(coded),
            dataclasses.asdict(config.soundscapes),
            dataclasses.asdict(config.feature_augmentation),
            training.num_views,
        ]
        folder = _place(config, "quantizer", decides)
        quantizer = quantizer_of_scenes(config, coded, features[0], folder, progress)
    codec = join_quantizer(config, coded, quantizer)
    sequence = encoder if config.codec.sequence == "encoder" else None
    heard = []
    for own, vectors in zip(features, (training.pooled, validation.pooled), strict=True):
        codes = quantize_scenes(own, quantizer, progress)
        pooled = vectors if sequence is not None else vectors.new_ones(*vectors.shape[:2], 1)
        heard.append(dataclasses.replace(codes, pooled=pooled))  # (V, N, P or 1)
    return CodedScenes(CodeEncoder.from_parts(codec, sequence, config.codec.window_seconds), *heard)


def check_codec_of_scenes(config: TrainingConfig) -> None:
    """Raise ConfigError for a codec that cannot code scenes, before anything is made for it."""
    window, longest = config.codec.window_seconds, config.soundscapes.longest_seconds
    if window is not None and window < longest:
        raise ConfigError(
            f"codec.window_seconds={window:g}: built-in scenes of up to {longest:g} s are heard "
            f"whole; set it to {longest:g} or more, or soundscapes.longest_seconds to less"
        )
    given_quantizer(config)


def spectrogram_of(encoder: Any) -> MelPatchEncoder:
    """The spectrogram that a small encoder hears, as features."""
    settings = encoder.config
    return MelPatchEncoder(
        settings.sampling_rate, settings.window_seconds, settings.num_mels, settings.hop_length
    )


def _codec(config: TrainingConfig, progress: bool) -> Any:
    settings = config.codec
    if settings.name == "rvq":
        return quantized_encoder(config, progress)
    if settings.weights is None:
        raise ConfigError(
            f"codec.weights: name the published weights of {settings.name}, a file, folder or Hub "
            "id, or `random` for a small untrained one"
        )
    if settings.name == "beats_tokenizer":
        return _beats_tokenizer(settings, settings.weights, config.seed)
    if settings.weights == RANDOM_WEIGHTS:
        return random_codec(settings.name, config.seed, settings.num_codebooks)
    if settings.name == "descript":
        from dac_diffusion.codecs.descript import DescriptCodec

        return DescriptCodec.from_published(settings.weights, settings.num_codebooks)
    from dac_diffusion.codecs.encodec import EncodecCodec, bandwidth_of

    return EncodecCodec.from_published(settings.weights, bandwidth_of(settings.num_codebooks))


def _beats_tokenizer(settings: CodecConfig, weights: str, seed: int) -> BeatsTokenizer:
    """Its weights decide how many codebooks and entries there are, so others are refused."""
    if settings.num_codebooks not in (None, 1):
        raise ConfigError(
            f"codec.num_codebooks={settings.num_codebooks}: a BEATs tokenizer has one; set it to 1"
        )
    tokenizer: BeatsTokenizer
    if weights == RANDOM_WEIGHTS:
        tokenizer = random_codec(settings.name, seed)
    else:
        tokenizer = BeatsTokenizer.from_published(weights)
    if settings.codebook_size != tokenizer.codebook_size:
        raise ConfigError(
            f"codec.codebook_size={settings.codebook_size}: the codebook of {weights} has "
            f"{tokenizer.codebook_size} entries; set it to that"
        )
    return tokenizer


def _weights_behind(config: TrainingConfig) -> list[str]:
    """Digests of the weights that codes by k-means depend on."""
    if config.codec.name != "rvq":
        return []
    given = given_quantizer(config)
    return [weights_digest(part) for part in (frozen_encoder(config), given) if part is not None]


def _place(config: TrainingConfig, kind: str, more: list[Any]) -> Path:
    """A folder in output_dir whose name is made of everything that decides what is in it.

    more: what decides it beside the config's own settings of codec, encoder and data.
    """
    decides = [
        dataclasses.asdict(config.codec),
        dataclasses.asdict(config.encoder),
        [dataclasses.asdict(dataset) for dataset in config.data.training],
        [config.training_scenes, config.seed],
        more,
    ]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
    return make_folder(config.output_dir) / f"{kind}-{digest}"
