"""Quantisers that make codes of features: named by the config, or fitted before the training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.quantizer_fitting import fit_quantizer
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.feature_encoding import describe_encoder
from dac_diffusion.data.feature_quantizer import BATCH_FRAMES, CacheFrames
from dac_diffusion.data.scene_features import SceneFeatures, real_frames
from dac_diffusion.encoders.loading import encoder_name
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.recordings import frozen_encoder, prepare_sample
from dac_diffusion.training.settings import TrainingConfig

RVQ_CODEBOOKS = 16  # CLAP-ART's


def quantized_encoder(config: TrainingConfig, progress: bool) -> QuantizedEncoder:
    """The config's encoder with its quantiser, or with k-means on some training recordings.

    Raises ConfigError for a quantiser that does not fit, and what prepare_caches does.
    """
    given = given_quantizer(config)
    if given is not None:
        return join_quantizer(config, frozen_encoder(config), given)
    encoder, folders = prepare_sample(config, config.codec.fit_clips, progress)
    caches = [FeatureCache.open(folder) for folder in folders]
    quantizer = _new_quantizer(config, encoder.feature_dim, caches[0].encoder)
    _fit(quantizer, _InTurn(caches, config.codec.fitting.seed), config, progress)
    return QuantizedEncoder.from_parts(encoder, quantizer)


def quantizer_of_scenes(
    config: TrainingConfig, encoder: Any, features: SceneFeatures, folder: Path, progress: bool
) -> ResidualQuantizer:
    """k-means on an encoder's features of scenes, written into a folder, or what is there."""
    if folder.is_dir():
        kept: ResidualQuantizer = load_saved_model(ResidualQuantizer, folder)
        return kept
    fitted_on = describe_encoder(encoder_name(encoder), encoder)
    quantizer = _new_quantizer(config, encoder.feature_dim, fitted_on)
    frames = real_frames(features, BATCH_FRAMES, config.codec.fitting.seed)
    _fit(quantizer, frames, config, progress)
    with atomic_folder(folder) as partial, quiet_libraries():
        quantizer.save_pretrained(partial)
    return quantizer


def given_quantizer(config: TrainingConfig) -> ResidualQuantizer | None:
    """The quantiser that codec.weights names, if it names one.

    Raises ConfigError for one of other sizes than the config's, CheckpointError for a damaged one.
    """
    settings = config.codec
    if settings.weights is None:
        return None
    if not Path(settings.weights).is_dir():
        raise ConfigError(
            f"codec.weights={settings.weights}: there is no such folder; name a quantiser that "
            "`dac-diffusion prepare quantizer` made, or set it to null to fit one here"
        )
    quantizer: ResidualQuantizer = load_saved_model(ResidualQuantizer, Path(settings.weights))
    for name in ("num_codebooks", "codebook_size", "normalise"):
        wanted, found = getattr(settings, name), quantizer.config[name]
        if wanted not in (None, found):
            raise ConfigError(
                f"codec.weights={settings.weights}: was fitted with {name}={found}, but "
                f"codec.{name} is {wanted}; set that to {found}, or name another quantiser"
            )
    return quantizer


def join_quantizer(
    config: TrainingConfig, encoder: Any, quantizer: ResidualQuantizer
) -> QuantizedEncoder:
    """An encoder and a quantiser of its features; ConfigError names one of other features."""
    try:
        return QuantizedEncoder.from_parts(encoder, quantizer)
    except ConfigError as error:
        raise ConfigError(f"codec.weights={config.codec.weights}: {error}") from error


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
    config: TrainingConfig, width: int, fitted_on: dict[str, Any]
) -> ResidualQuantizer:
    settings = config.codec
    books = RVQ_CODEBOOKS if settings.num_codebooks is None else settings.num_codebooks
    return ResidualQuantizer(width, books, settings.codebook_size, settings.normalise, fitted_on)


def _fit(
    quantizer: ResidualQuantizer, batches: Any, config: TrainingConfig, progress: bool
) -> None:
    left = fit_quantizer(quantizer.to(config.data.device), batches, config.codec.fitting, progress)
    quantizer.cpu()
    if progress:
        shares = ", ".join(f"{share:.1%}" for share in left)
        said = f"k-means: of the variance each codebook leaves {shares}"
        print(f"dac-diffusion: {said}", file=sys.stderr)
