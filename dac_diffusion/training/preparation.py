"""What a captioner's training starts from: a frozen encoder, a scorer, words, and batches."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.captioning.pretrained import BUILTIN, find_checkpoint
from dac_diffusion.data.feature_preparation import FeatureSettings, prepare_features
from dac_diffusion.data.published.loading import read_dataset
from dac_diffusion.data.scene_cache import ScenePool, load_or_render_pool
from dac_diffusion.data.scene_features import Hearings, load_or_encode_pool
from dac_diffusion.data.soundscapes.dataset import Split
from dac_diffusion.data.soundscapes.prepare import prepare_soundscapes
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import load_encoder, random_encoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder, make_folder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.training.building import Words, make_words
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CachedCaptions,
    CaptionSource,
    FrozenParts,
    SceneCaptions,
    open_caches,
)
from dac_diffusion.training.encoder import EncoderTask, EncoderTrainer
from dac_diffusion.training.loop import fit
from dac_diffusion.training.scorer import ScorerTask, ScorerTrainer
from dac_diffusion.training.settings import DataConfig, DatasetConfig, TrainingConfig
from dac_diffusion.training.task import LoopConfig

RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class Prepared:
    """parts and batches for the captioner's training; captions: of the training clips."""

    parts: FrozenParts
    words: Words
    training: CaptionSource
    validation: CaptionSource
    captions: list[str]


def prepare(config: TrainingConfig, progress: bool) -> Prepared:
    """Everything before the captioner's own training; what is there already is used again.

    Scenes with the small encoder are heard with augmentation and captioned anew in every batch.
    Other encoders, and data sets, go through feature caches. Raises ConfigError and what the
    readers of data and weights raise.
    """
    if config.encoder.name == "small" and not config.data.training:
        return _prepare_scenes(config, progress)
    return _prepare_recordings(config, progress)


def _prepare_scenes(config: TrainingConfig, progress: bool) -> Prepared:
    pools = render_pools(config, progress)
    captions = [text for group in pools[0].captions for text in group]
    words = make_words(config.text, captions, config.seed)
    if config.encoder.pretrained is None:
        folder = _train_encoder(config, pools, words.tokenizer, progress)
    else:
        folder = encoder_stage_folder(config.encoder.pretrained)
    parts = load_encoder_stage(folder)
    if words.bert is None:  # its tokenizer is the one that its scorer was trained with
        words = Words(parts.tokenizer)
    folder = scene_folder(config)
    views = config.captioner_training.feature_views
    augmented = Hearings(views, config.feature_augmentation, config.seed)
    features = load_or_encode_pool(folder, parts.encoder, pools[0], augmented, progress)
    heard = load_or_encode_pool(folder, parts.encoder, pools[1], Hearings(), progress)
    shape = _batch_shape(config)
    training = SceneCaptions(pools[0], features, words.tokenizer, shape, config.seed)
    validation = SceneCaptions(pools[1], heard, words.tokenizer, shape, config.seed)
    if _vocabulary(parts.tokenizer) != _vocabulary(words.tokenizer):
        small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
        scorer = _train_scorer(
            config,
            dataclasses.replace(training, shape=small),
            validation,
            parts.encoder.pooled_dim,
            progress,
        )
        parts = FrozenParts(parts.encoder, scorer, words.tokenizer)
    return Prepared(parts, words, training, validation, captions)


def _prepare_recordings(config: TrainingConfig, progress: bool) -> Prepared:
    data = config.data if config.data.training else _scenes_as_files(config, progress)
    if not data.validation:
        raise ConfigError("data.validation: name at least one data set to validate on")
    weights = _encoder_weights(config)
    folders = [
        [_prepare_dataset(config, data, weights, dataset, progress) for dataset in group]
        for group in (data.training, data.validation)
    ]
    encoder = _load(config, weights)
    caches = [open_caches(group) for group in folders]
    captions = [
        text for cache in caches[0] for i in range(len(cache)) for text in cache.captions(i)
    ]
    words = make_words(config.text, captions, config.seed)
    shape = _batch_shape(config)
    training, validation = (
        CachedCaptions(group, words.tokenizer, shape, config.seed) for group in caches
    )
    small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
    scorer = _train_scorer(
        config, dataclasses.replace(training, shape=small), validation, encoder.pooled_dim, progress
    )
    parts = FrozenParts(encoder, scorer, words.tokenizer)
    return Prepared(parts, words, training, validation, captions)


def scene_folder(config: TrainingConfig) -> Path:
    """Where rendered scenes and their features are kept."""
    return make_folder(config.cache_dir or Path(config.output_dir) / "scenes")


def render_pools(config: TrainingConfig, progress: bool) -> tuple[ScenePool, ScenePool]:
    """The training and the validation scenes, rendered once."""
    folder, workers = scene_folder(config), config.render_workers
    training = load_or_render_pool(
        folder, config.soundscapes, "train", config.training_scenes, workers, progress
    )
    validation = load_or_render_pool(
        folder, config.soundscapes, "validation", config.validation_scenes, workers, progress
    )
    return training, validation


def _train_encoder(
    config: TrainingConfig,
    pools: tuple[ScenePool, ScenePool],
    tokenizer: PreTrainedTokenizerFast,
    progress: bool,
) -> Path:
    """Train the small encoder; returns the folder of the finished stage."""
    torch.manual_seed(config.seed)
    folder = Path(config.output_dir) / "encoder"
    sizes = config.encoder
    encoder = ConvolutionalEncoder(
        sampling_rate=config.soundscapes.sampling_rate,
        window_seconds=config.soundscapes.longest_seconds,
        channels=sizes.channels,
        width=sizes.width,
        depth=sizes.depth,
        dropout=sizes.dropout,
    )
    scorer = AudioTextScorer(len(tokenizer), encoder.pooled_dim, max_length=config.text.max_length)
    trainer = EncoderTrainer(encoder, scorer, config.encoder_training)
    task = EncoderTask(trainer, tokenizer, *pools, seed=config.seed)
    fit(task, capped(config.encoder_loop, config), folder, progress=progress)
    return folder / "model"


def encoder_stage_folder(name: str) -> Path:
    """The folder of a finished encoder stage: given by its path, or "builtin"."""
    return find_checkpoint(BUILTIN) if name == BUILTIN else Path(name)


def load_encoder_stage(folder: Path) -> FrozenParts:
    """Encoder, scorer and tokenizer of a finished encoder stage."""
    if not (folder / "encoder" / "config.json").exists():
        raise ConfigError(f"{folder}: holds no trained encoder; name the `model` folder of one")
    return FrozenParts(
        ConvolutionalEncoder.from_pretrained(folder / "encoder").eval().requires_grad_(False),
        AudioTextScorer.from_pretrained(folder / "scorer").eval().requires_grad_(False),
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
    )


def _train_scorer(
    config: TrainingConfig,
    training: CaptionSource,
    validation: CaptionSource,
    pooled_dim: int,
    progress: bool,
) -> AudioTextScorer:
    torch.manual_seed(config.seed)
    folder, sizes = Path(config.output_dir) / "scorer", config.scorer
    scorer = AudioTextScorer(
        len(training.tokenizer),
        pooled_dim,
        sizes.width,
        sizes.depth,
        sizes.heads,
        config.text.max_length,
        sizes.embedding_dim,
        training.tokenizer.pad_token_id,
        sizes.dropout,
    )
    task = ScorerTask(ScorerTrainer(scorer), training, validation)
    fit(task, capped(config.scorer_loop, config), folder, progress=progress)
    trained: AudioTextScorer = AudioTextScorer.from_pretrained(folder / "model")
    return trained.eval().requires_grad_(False)


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
    folder = make_folder(config.output_dir) / "random_encoder"
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            random_encoder(encoder.name, config.seed).save_pretrained(partial)
    return str(folder)


def _load(config: TrainingConfig, weights: str) -> Any:
    pooling = None if config.encoder.name == "small" else config.encoder.frequency_pooling
    return load_encoder(config.encoder.name, weights, config.encoder.window_seconds, pooling)


def _prepare_dataset(
    config: TrainingConfig,
    data: DataConfig,
    weights: str,
    dataset: DatasetConfig,
    progress: bool,
) -> str:
    """Compute the features of a data set, unless they are there; returns the cache's folder."""
    clips = read_dataset(dataset.name, dataset.captions, dataset.audio, dataset.wavcaps)
    folder = make_folder(data.features_dir or Path(config.output_dir) / "features")
    place = folder / f"{dataset.name}-{Path(dataset.captions).stem}"
    pooling = None if config.encoder.name == "small" else config.encoder.frequency_pooling
    settings = FeatureSettings(
        encoder=config.encoder.name,
        weights=weights,
        window_seconds=config.encoder.window_seconds,
        frequency_pooling=pooling,
        device=data.device,
        processes=data.processes,
    )
    prepared = prepare_features(clips, place, settings, progress)
    for line in [*clips.problems[:10], *prepared.errors]:
        print(f"dac-diffusion: warning: {line}", file=sys.stderr)
    if len(clips.problems) > 10:
        more = f"{len(clips.problems) - 10} more problems in {dataset.captions}"
        print(f"dac-diffusion: warning: {more}", file=sys.stderr)
    return str(place)


def _scenes_as_files(config: TrainingConfig, progress: bool) -> DataConfig:
    """The built-in scenes as recordings in Clotho's layout, for encoders from elsewhere."""
    folder = scene_folder(config)
    splits: list[tuple[Split, str, int]] = [
        ("train", "development", config.training_scenes),
        ("validation", "validation", config.validation_scenes),
    ]
    sets = []
    for split, name, count in splits:
        table = folder / f"clotho_captions_{name}.csv"
        if not table.exists():
            clips, seed = config.soundscapes.clips, config.soundscapes.seed
            prepare_soundscapes(folder, clips, count, split, seed, progress)
        sets.append((DatasetConfig("clotho", str(table), str(folder)),))
    return dataclasses.replace(config.data, training=sets[0], validation=sets[1])


def _batch_shape(config: TrainingConfig) -> BatchShape:
    training = config.captioner_training
    return BatchShape(training.clips_per_batch, training.captions_per_clip, config.text.max_length)


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def capped(loop: LoopConfig, config: TrainingConfig) -> LoopConfig:
    """The loop with no more steps than the config's own cap."""
    if config.max_steps is None:
        return loop
    return dataclasses.replace(loop, max_steps=min(loop.max_steps, config.max_steps))
