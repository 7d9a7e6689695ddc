"""Data sets and encoders from elsewhere: features computed once, into caches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any, Literal

from dac_diffusion.captioning.pretrained import BUILTIN, find_checkpoint
from dac_diffusion.data.feature_encoding import FeatureSettings
from dac_diffusion.data.feature_preparation import prepare_features
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.data.published.loading import read_dataset
from dac_diffusion.data.published.wavcaps import WavCapsSettings
from dac_diffusion.data.soundscapes.dataset import Split
from dac_diffusion.data.soundscapes.prepare import prepare_soundscapes
from dac_diffusion.encoders.loading import load_encoder, random_encoder
from dac_diffusion.encoders.paired import PairedEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.training.recap import RetrievalEncoderConfig
from dac_diffusion.training.settings import DataConfig, DatasetConfig, EncoderConfig, TrainingConfig

RANDOM_WEIGHTS = "random"
PROBLEMS_SHOWN = 10
WITHOUT_POOLING = ("small", "mel", "codes", "paired")


def scene_folder(config: TrainingConfig) -> Path:
    """Where rendered scenes and their features are kept."""
    return make_folder(config.cache_dir or Path(config.output_dir) / "scenes")


def encoder_stage_folder(name: str) -> Path:
    """The folder of a finished encoder stage: given by its path, or "builtin"."""
    return find_checkpoint(BUILTIN) if name == BUILTIN else Path(name)


def prepare_caches(
    config: TrainingConfig, progress: bool, is_main: bool
) -> tuple[Any, tuple[list[str], list[str]]]:
    """The frozen encoder, and the folders of the feature caches for training and validation.

    Without data sets in the config, the built-in scenes are written as files first. Of several
    processes only the main one writes, and the others come after it. Raises ConfigError, and what
    the readers of data and weights raise.
    """
    data = config.data if config.data.training else _scenes_as_files(config, progress)
    _check_validation(data)
    weights = _encoder_weights(config)
    training, validation = (
        [_prepare_dataset(config, data, weights, dataset, progress, is_main) for dataset in group]
        for group in (data.training, data.validation)
    )
    return _load(config, weights), (training, validation)


def read_recordings(
    config: TrainingConfig, progress: bool
) -> tuple[list[CaptionDataset], list[CaptionDataset]]:
    """The recordings themselves, for training and validation of what hears them."""
    data = config.data if config.data.training else _scenes_as_files(config, progress)
    _check_validation(data)
    training, validation = (
        [_read(dataset) for dataset in group] for group in (data.training, data.validation)
    )
    return training, validation


def prepare_sample(config: TrainingConfig, count: int, progress: bool) -> tuple[Any, list[str]]:
    """The frozen encoder, and caches with features of about `count` of the training clips.

    As many of each data set, drawn by config.seed; for fitting something on them.
    """
    data = config.data if config.data.training else _scenes_as_files(config, progress)
    weights = _encoder_weights(config)
    each = -(-count // len(data.training))
    folders = [
        _prepare_dataset(config, data, weights, dataset, progress, True, each)
        for dataset in data.training
    ]
    return _load(config, weights), folders


def with_retrieval_encoder(config: TrainingConfig, is_main: bool) -> TrainingConfig:
    """The config with a pair of encoders in place of its encoder, if RECAP has a second one.

    The pair is made if it is not there, by the main one of several processes. Raises what
    load_encoder does.
    """
    second = config.recap.retrieval_encoder
    if second is None:
        return config
    parts = config.encoder, _as_encoder(second)
    decides = json.dumps([[dataclasses.asdict(part) for part in parts], config.seed])
    digest = hashlib.sha256(decides.encode()).hexdigest()[:12]
    folder = make_folder(config.output_dir) / f"paired_encoder-{digest}"
    if is_main and not folder.is_dir():
        features, vectors = (
            frozen_encoder(dataclasses.replace(config, encoder=part)) for part in parts
        )
        pair = PairedEncoder.from_parts(features, vectors)
        with atomic_folder(folder) as partial, quiet_libraries():
            pair.save_pretrained(partial)
    return dataclasses.replace(config, encoder=EncoderConfig("paired", str(folder)))


def _as_encoder(given: RetrievalEncoderConfig) -> EncoderConfig:
    if given.name == "small":
        return EncoderConfig("small", pretrained=given.weights)
    return EncoderConfig(given.name, given.weights)


def frozen_encoder(config: TrainingConfig) -> Any:
    """The encoder that the config names, with its weights."""
    return _load(config, _encoder_weights(config))


def _encoder_weights(config: TrainingConfig) -> str:
    """Where the frozen encoder's weights lie; a random one is written down first."""
    encoder = config.encoder
    if encoder.name == "small":
        if encoder.pretrained is None:
            raise ConfigError(
                "encoder.pretrained: the small encoder is trained on scenes only; for data sets "
                "name one that is trained, such as builtin"
            )
        folder = encoder_stage_folder(encoder.pretrained)
        return str(folder / "encoder" if (folder / "encoder").is_dir() else folder)
    if encoder.weights is None:
        raise ConfigError(
            f"encoder.weights: name the published weights of {encoder.name}, or `random` for a "
            "small untrained one"
        )
    if encoder.weights != RANDOM_WEIGHTS:
        return encoder.weights
    folder = make_folder(config.output_dir) / f"random_{encoder.name}"
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            random_encoder(encoder.name, config.seed).save_pretrained(partial)
    return str(folder)


def _load(config: TrainingConfig, weights: str) -> Any:
    encoder = config.encoder
    return load_encoder(encoder.name, weights, encoder.window_seconds, _pooling(encoder))


def _pooling(encoder: EncoderConfig) -> Literal["none", "mean"] | None:
    """Only encoders on patches have one."""
    return None if encoder.name in WITHOUT_POOLING else encoder.frequency_pooling


def _prepare_dataset(
    config: TrainingConfig,
    data: DataConfig,
    weights: str,
    dataset: DatasetConfig,
    progress: bool,
    is_main: bool,
    sample: int | None = None,
) -> str:
    """Compute the features of a data set, unless they are there; returns the cache's folder.

    sample: of so many of its clips only.
    """
    folder = make_folder(data.features_dir or Path(config.output_dir) / "features")
    # Two tables of one name may lie in different folders.
    digest = hashlib.sha256(f"{dataset.captions}\n{dataset.audio}".encode()).hexdigest()[:8]
    part = "" if sample is None else f"-{sample}"
    place = folder / f"{dataset.name}-{Path(dataset.captions).stem}-{digest}{part}"
    if not is_main:
        return str(place)
    clips = _read(dataset)
    if sample is not None:
        drawn = random.Random(config.seed).sample(clips.clips, min(sample, len(clips.clips)))
        clips = dataclasses.replace(clips, clips=tuple(drawn))
    settings = FeatureSettings(
        encoder=config.encoder.name,
        weights=weights,
        window_seconds=config.encoder.window_seconds,
        frequency_pooling=_pooling(config.encoder),
        device=data.device,
        processes=data.processes,
    )
    prepared = prepare_features(clips, place, settings, progress)
    for line in [*clips.problems[:PROBLEMS_SHOWN], *prepared.errors]:
        print(f"dac-diffusion: warning: {line}", file=sys.stderr)
    if len(clips.problems) > PROBLEMS_SHOWN:
        more = f"{len(clips.problems) - PROBLEMS_SHOWN} more problems in {dataset.captions}"
        print(f"dac-diffusion: warning: {more}", file=sys.stderr)
    return str(place)


def _check_validation(data: DataConfig) -> None:
    if not data.validation:
        raise ConfigError("data.validation: name at least one data set to validate on")


def _read(dataset: DatasetConfig) -> CaptionDataset:
    return read_dataset(dataset.name, dataset.captions, dataset.audio, _left_out(dataset))


def _left_out(dataset: DatasetConfig) -> WavCapsSettings | None:
    settings = WavCapsSettings(
        tuple(Path(path) for path in dataset.exclude),
        dataset.shortest_seconds,
        dataset.longest_seconds,
    )
    return None if settings == WavCapsSettings() else settings


def _scenes_as_files(config: TrainingConfig, progress: bool) -> DataConfig:
    """The built-in scenes as recordings in Clotho's layout, for encoders from elsewhere."""
    folder, left_out = scene_folder(config), config.soundscapes.held_out_labels
    if left_out:  # beside scenes with them, in a folder of their own
        digest = hashlib.sha256(" ".join(left_out).encode()).hexdigest()[:8]
        folder = make_folder(folder / f"without-{digest}")
    splits: list[tuple[Split, str, int]] = [
        ("train", "development", config.training_scenes),
        ("validation", "validation", config.validation_scenes),
    ]
    sets = []
    for split, name, count in splits:
        table = folder / f"clotho_captions_{name}.csv"
        if not table.exists():
            clips, seed = config.soundscapes.clips, config.soundscapes.seed
            prepare_soundscapes(folder, clips, count, split, seed, progress, left_out)
        sets.append((DatasetConfig("clotho", str(table), str(folder)),))
    return dataclasses.replace(config.data, training=sets[0], validation=sets[1])
