"""What turns audio into codes for a training: published codecs, or k-means on features.

Only for system=enclap. The k-means is fitted before the captioner is trained, on training clips.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dac_diffusion.codecs.beats_tokenizer import BeatsTokenizer
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.loading import random_codec
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.quantizer_fitting import fit_quantizer
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.feature_quantizer import BATCH_FRAMES, CacheFrames
from dac_diffusion.data.scene_features import SceneFeatures, quantize_scenes, real_frames
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.recordings import RANDOM_WEIGHTS, frozen_encoder, prepare_sample
from dac_diffusion.training.settings import CodecConfig, EncoderConfig, TrainingConfig

RVQ_CODEBOOKS = 16  # CLAP-ART's
# Kilobits a second of EnCodec at 24 kHz for each number of codebooks.
ENCODEC_BANDWIDTHS = {2: 1.5, 4: 3.0, 8: 6.0, 16: 12.0, 32: 24.0}


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
    folder = _place(config, "code_encoder")
    if is_main and not folder.is_dir():
        codec, settings = _codec(config, progress), config.codec
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
    """
    coded, features = encoder, (training, validation)
    if config.codec.features == "mel":
        coded = spectrogram_of(encoder)
        features = encode(coded)
    folder = _place(config, "quantizer")
    if folder.is_dir():
        quantizer = load_saved_model(ResidualQuantizer, folder)
    else:
        quantizer = _new_quantizer(config, coded.feature_dim)
        frames = real_frames(features[0], BATCH_FRAMES, config.codec.fitting.seed)
        _fit(quantizer, frames, config, progress)
        with atomic_folder(folder) as partial, quiet_libraries():
            quantizer.save_pretrained(partial)
    codec = QuantizedEncoder.from_parts(coded, quantizer)
    sequence = encoder if config.codec.sequence == "encoder" else None
    codes = [quantize_scenes(each, quantizer, progress) for each in features]
    heard = [
        dataclasses.replace(own, pooled=vectors.pooled)
        for own, vectors in zip(codes, (training, validation), strict=True)
    ]
    return CodedScenes(CodeEncoder.from_parts(codec, sequence), *heard)


def spectrogram_of(encoder: Any) -> MelPatchEncoder:
    """The spectrogram that a small encoder hears, as features."""
    settings = encoder.config
    return MelPatchEncoder(
        settings.sampling_rate, settings.window_seconds, settings.num_mels, settings.hop_length
    )


def _codec(config: TrainingConfig, progress: bool) -> Any:
    settings = config.codec
    if settings.name == "rvq":
        return _quantized_encoder(config, progress)
    if settings.weights is None:
        raise ConfigError(
            f"codec.weights: name the published weights of {settings.name}, a file, folder or Hub "
            "id, or `random` for a small untrained one"
        )
    if settings.name == "beats_tokenizer":
        return _beats_tokenizer(settings, settings.weights, config.seed)
    if settings.weights == RANDOM_WEIGHTS:
        return random_codec(settings.name, config.seed)
    if settings.name == "descript":
        from dac_diffusion.codecs.descript import DescriptCodec

        return DescriptCodec.from_published(settings.weights, settings.num_codebooks)
    from dac_diffusion.codecs.encodec import EncodecCodec

    bandwidth = ENCODEC_BANDWIDTHS.get(settings.num_codebooks or 16)
    if bandwidth is None:
        known = ", ".join(map(str, ENCODEC_BANDWIDTHS))
        raise ConfigError(f"codec.num_codebooks={settings.num_codebooks}: EnCodec has {known}")
    return EncodecCodec.from_published(settings.weights, bandwidth)


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


def _quantized_encoder(config: TrainingConfig, progress: bool) -> QuantizedEncoder:
    """k-means on the features of some training clips."""
    encoder, folders = prepare_sample(config, config.codec.fit_clips, progress)
    caches = [FeatureCache.open(folder) for folder in folders]
    quantizer = _new_quantizer(config, encoder.feature_dim, caches[0].encoder)
    _fit(quantizer, _InTurn(caches, config.codec.fitting.seed), config, progress)
    return QuantizedEncoder.from_parts(encoder, quantizer)


@dataclass(frozen=True)
class _InTurn:
    """Batches of frames (R, D) from several caches in turn, until all are through."""

    caches: Sequence[FeatureCache]
    seed: int

    def __iter__(self) -> Iterator[Tensor]:
        streams = [iter(CacheFrames(cache, seed=self.seed)) for cache in self.caches]
        while streams:
            for stream in list(streams):
                batch = next(stream, None)
                if batch is None:
                    streams.remove(stream)
                else:
                    yield batch


def _new_quantizer(
    config: TrainingConfig, width: int, fitted_on: dict[str, Any] | None = None
) -> ResidualQuantizer:
    settings = config.codec
    books = settings.num_codebooks or RVQ_CODEBOOKS
    return ResidualQuantizer(width, books, settings.codebook_size, settings.normalise, fitted_on)


def _fit(
    quantizer: ResidualQuantizer, batches: Any, config: TrainingConfig, progress: bool
) -> None:
    left = fit_quantizer(quantizer.to(config.data.device), batches, config.codec.fitting, progress)
    quantizer.cpu()
    shares = " ".join(f"{share:.3f}" for share in left)
    logging.getLogger("dac_diffusion").info("variance left after each codebook: %s", shares)


def _place(config: TrainingConfig, kind: str) -> Path:
    """A folder in output_dir whose name is made of everything that decides what is in it."""
    decides = [
        dataclasses.asdict(config.codec),
        dataclasses.asdict(config.encoder),
        [dataclasses.asdict(dataset) for dataset in config.data.training],
        [config.training_scenes, config.seed],
    ]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
    return make_folder(config.output_dir) / f"{kind}-{digest}"
