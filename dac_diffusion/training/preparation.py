"""What a captioner's training starts from: a frozen encoder, a scorer, words, and batches."""

from __future__ import annotations

import dataclasses
from typing import Any

from dac_diffusion.data.scene_features import (
    Hearings,
    MelEncoder,
    SceneFeatures,
    load_or_encode_pool,
)
from dac_diffusion.training.building import words_of
from dac_diffusion.training.caption_sources import (
    CachedCaptions,
    FrozenParts,
    SceneCaptions,
    open_caches,
)
from dac_diffusion.training.clap_ranking import clap_scorer
from dac_diffusion.training.codes import check_codec_of_scenes, code_scenes, with_code_encoder
from dac_diffusion.training.encoder_vectors import prepare_waveforms, trains_encoder
from dac_diffusion.training.recordings import (
    frozen_encoder,
    prepare_caches,
    scene_folder,
    with_retrieval_encoder,
)
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import (
    Prepared,
    batch_shape,
    encoder_stage,
    normalises,
    render_pools,
    same_words,
    train_scorer,
)
from dac_diffusion.training.text_only_preparation import prepare_text_only


def prepare(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    """Everything before the captioner's own training; what is there already is used again.

    Scenes with the small encoder are heard with augmentation and captioned anew in every batch.
    Other encoders, and data sets, go through feature caches, or where the encoder is trained as
    well through training/encoder_vectors.py. Of several processes (accelerator:
    training/surroundings.py) the main one goes first, so that the others find its files. Raises
    ConfigError and what the readers of data and weights raise.
    """
    if config.text_only.enabled:
        return prepare_text_only(config, accelerator, progress)
    if trains_encoder(config):
        return prepare_waveforms(config, accelerator, progress)
    if config.encoder.name == "small" and not config.data.training and _from_features(config):
        return _prepare_scenes(config, accelerator, progress)
    return _prepare_recordings(config, accelerator, progress)


def _prepare_scenes(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    coded_scenes = config.system == "enclap"
    if coded_scenes:
        check_codec_of_scenes(config)
    with accelerator.main_process_first():
        pools = render_pools(config, progress)
    captions = [text for group in pools[0].captions for text in group]
    words = words_of(config, captions)
    parts, words = encoder_stage(config, pools, words, progress)
    folder = scene_folder(config)
    views = config.captioner_training.feature_views
    augmented = Hearings(views, config.feature_augmentation, config.seed)

    def encode(encoder: MelEncoder) -> tuple[SceneFeatures, SceneFeatures]:
        return (
            load_or_encode_pool(folder, encoder, pools[0], augmented, progress, not coded_scenes),
            load_or_encode_pool(folder, encoder, pools[1], Hearings(), progress, not coded_scenes),
        )

    with accelerator.main_process_first():
        features, heard = encode(parts.encoder)
        if coded_scenes:
            coded = code_scenes(config, parts.encoder, features, heard, encode, progress)
            parts = dataclasses.replace(parts, encoder=coded.encoder)
            features, heard = coded.training, coded.validation
    shape, plain = batch_shape(config), normalises(config)
    training = SceneCaptions(pools[0], features, words.tokenizer, shape, config.seed, plain)
    validation = SceneCaptions(pools[1], heard, words.tokenizer, shape, config.seed, plain)
    # The encoder's own scorer is for its own words and vectors, which a captioner may do without.
    of_its_vectors = parts.scorer.config.pooled_dim == parts.encoder.pooled_dim
    if not (same_words(parts.tokenizer, words.tokenizer) and of_its_vectors):
        small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
        scorer = train_scorer(
            config,
            dataclasses.replace(training, shape=small),
            validation,
            parts.encoder.pooled_dim,
            progress,
        )
        parts = FrozenParts(parts.encoder, scorer, words.tokenizer)
    return Prepared(parts, words, training, validation, captions)


def _prepare_recordings(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    with accelerator.main_process_first():
        if config.system == "enclap":
            config = with_code_encoder(config, progress, accelerator.is_main_process)
        elif config.system == "recap":
            config = with_retrieval_encoder(config, accelerator.is_main_process)
        scorer: Any = None
        if config.scorer.clap is not None:  # before the features, which take longer
            scorer = clap_scorer(config, frozen_encoder(config))
        encoder, folders = prepare_caches(config, progress, accelerator.is_main_process)
    caches = [open_caches(group) for group in folders]
    captions = [
        text for cache in caches[0] for i in range(len(cache)) for text in cache.captions(i)
    ]
    words = words_of(config, captions)
    shape, plain = batch_shape(config), normalises(config)
    training, validation = (
        CachedCaptions(group, words.tokenizer, shape, config.seed, plain) for group in caches
    )
    if scorer is None:
        small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
        drawn = dataclasses.replace(training, shape=small)
        scorer = train_scorer(config, drawn, validation, encoder.pooled_dim, progress)
    parts = FrozenParts(encoder, scorer, words.tokenizer)
    return Prepared(parts, words, training, validation, captions)


def _from_features(config: TrainingConfig) -> bool:
    """Whether the system is made of the small encoder's features, which scenes have in memory."""
    if config.system == "enclap":
        return config.codec.name == "rvq" and config.codec.sequence != "sequence_encoder"
    return not (config.system == "recap" and config.recap.retrieval_encoder)
