"""What a captioner's training starts from: a frozen encoder, a scorer, words, and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.scene_cache import ScenePool, load_or_render_pool
from dac_diffusion.data.scene_features import (
    Hearings,
    MelEncoder,
    SceneFeatures,
    load_or_encode_pool,
)
from dac_diffusion.data.soundscapes.dataset import Split
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.building import Words, make_words, words_of
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CachedCaptions,
    CaptionSource,
    FrozenParts,
    SceneCaptions,
    open_caches,
)
from dac_diffusion.training.codes import code_scenes, with_code_encoder
from dac_diffusion.training.encoder import EncoderTask, EncoderTrainer
from dac_diffusion.training.loop import fit
from dac_diffusion.training.recordings import (
    encoder_stage_folder,
    prepare_caches,
    scene_folder,
    waveform_captions,
)
from dac_diffusion.training.scorer import ScorerTask, ScorerTrainer
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.task import LoopConfig
from dac_diffusion.training.text_only import (
    JointAudio,
    Material,
    TextOnlyCaptions,
    clap_material,
    embed_captions,
    read_tables,
    small_space,
)


@dataclass(frozen=True)
class Prepared:
    """parts and batches for the captioner's training; captions: of the training clips.

    validation_texts: the validation clips by their captions' vectors (training/text_only.py).
    """

    parts: FrozenParts
    words: Words
    training: CaptionSource
    validation: CaptionSource
    captions: list[str]
    validation_texts: CaptionSource | None = None


def prepare(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    """Everything before the captioner's own training; what is there already is used again.

    Scenes with the small encoder are heard with augmentation and captioned anew in every batch.
    Other encoders, and data sets, go through feature caches. Of several processes (accelerator:
    training/surroundings.py) the main one goes first, so that the others find its files. Raises
    ConfigError and what the readers of data and weights raise.
    """
    if config.text_only.enabled:
        return _prepare_text_only(config, accelerator, progress)
    if config.encoder.name == "small" and not config.data.training and _from_features(config):
        return _prepare_scenes(config, accelerator, progress)
    return _prepare_recordings(config, accelerator, progress)


def _prepare_scenes(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    with accelerator.main_process_first():
        pools = render_pools(config, progress)
    captions = [text for group in pools[0].captions for text in group]
    words = words_of(config, captions)
    parts, words = _encoder_stage(config, pools, words, progress)
    folder = scene_folder(config)
    views = config.captioner_training.feature_views
    augmented = Hearings(views, config.feature_augmentation, config.seed)

    def encode(encoder: MelEncoder) -> tuple[SceneFeatures, SceneFeatures]:
        return (
            load_or_encode_pool(folder, encoder, pools[0], augmented, progress),
            load_or_encode_pool(folder, encoder, pools[1], Hearings(), progress),
        )

    with accelerator.main_process_first():
        features, heard = encode(parts.encoder)
        if config.system == "enclap":
            coded = code_scenes(config, parts.encoder, features, heard, encode, progress)
            parts = dataclasses.replace(parts, encoder=coded.encoder)
            features, heard = coded.training, coded.validation
    shape, plain = _batch_shape(config), _normalised(config)
    training = SceneCaptions(pools[0], features, words.tokenizer, shape, config.seed, plain)
    validation = SceneCaptions(pools[1], heard, words.tokenizer, shape, config.seed, plain)
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


def _prepare_recordings(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    with accelerator.main_process_first():
        if config.system == "enclap":
            config = with_code_encoder(config, progress, accelerator.is_main_process)
        encoder, folders = prepare_caches(config, progress, accelerator.is_main_process)
    caches = [open_caches(group) for group in folders]
    captions = [
        text for cache in caches[0] for i in range(len(cache)) for text in cache.captions(i)
    ]
    words = words_of(config, captions)
    shape, plain = _batch_shape(config), _normalised(config)
    training, validation = (
        CachedCaptions(group, words.tokenizer, shape, config.seed, plain) for group in caches
    )
    small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
    scorer = _train_scorer(
        config, dataclasses.replace(training, shape=small), validation, encoder.pooled_dim, progress
    )
    parts = FrozenParts(encoder, scorer, words.tokenizer)
    if config.system == "prefix" and config.prefix.train_encoder:
        heard = waveform_captions(config, parts, shape, progress)
        return Prepared(parts, words, *heard, captions)
    return Prepared(parts, words, training, validation, captions)


def _prepare_text_only(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    """Captions alone for the captioner; audio, where there is some, to validate on."""
    settings, shape = config.text_only, _batch_shape(config)
    if not settings.other_captions:
        shape = dataclasses.replace(shape, captions=1)
    make_material = _small_material if config.encoder.name == "small" else clap_material
    material = make_material(config, shape, accelerator, progress)
    space, words = material.space, material.words
    training, texts = (
        TextOnlyCaptions(
            embed_captions(groups, space.embed_texts, progress),
            words.tokenizer,
            shape,
            config.seed,
            settings.noise_variance,
            settings.renormalise,
        )
        for groups in (material.groups, material.held_out)
    )
    validation, scorer = material.audio or texts, space.scorer
    if space.tokenizer is None or _vocabulary(space.tokenizer) != _vocabulary(words.tokenizer):
        small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
        noisy = dataclasses.replace(training, shape=small)
        scorer = _train_scorer(config, noisy, validation, space.encoder.pooled_dim, progress)
    assert scorer is not None
    parts = FrozenParts(space.encoder, scorer, words.tokenizer)
    captions = [text for own in material.groups for text in own]
    also = texts if material.audio else None
    return Prepared(parts, words, training, validation, captions, also)


def _small_material(
    config: TrainingConfig, shape: BatchShape, accelerator: Any, progress: bool
) -> Material:
    """The small encoder's space; captions of tables or scenes, and the scenes' sound.

    Scenes are rendered for what is left to do for them only.
    """
    settings, trained = config.text_only, config.encoder.pretrained is not None
    groups: Sequence[Sequence[str]] = read_tables(settings.captions)
    held_out = read_tables(settings.validation_captions)
    with accelerator.main_process_first():
        scenes = None if groups and trained else _render(config, "train", progress)
        heard = None if held_out and trained else _render(config, "validation", progress)
    of_scenes = [] if scenes is None else scenes.captions
    texts = [text for own in (*groups, *of_scenes) for text in own]
    words = make_words(config.text, texts, config.seed)
    parts, words = _encoder_stage(config, (scenes, heard), words, progress)
    space = small_space(parts)
    if held_out:
        return Material(space, words, groups or of_scenes, held_out, None)
    assert heard is not None
    with accelerator.main_process_first():
        features = load_or_encode_pool(
            scene_folder(config), parts.encoder, heard, Hearings(), progress
        )
    source = SceneCaptions(heard, features, words.tokenizer, shape, config.seed)
    audio = JointAudio(source, space.embed_pooled)
    return Material(space, words, groups or of_scenes, heard.captions, audio)


def render_pools(config: TrainingConfig, progress: bool) -> tuple[ScenePool, ScenePool]:
    """The training and the validation scenes, rendered once."""
    return _render(config, "train", progress), _render(config, "validation", progress)


def _render(config: TrainingConfig, split: Split, progress: bool) -> ScenePool:
    count = config.training_scenes if split == "train" else config.validation_scenes
    folder, workers = scene_folder(config), config.render_workers
    return load_or_render_pool(folder, config.soundscapes, split, count, workers, progress)


def _encoder_stage(
    config: TrainingConfig,
    pools: tuple[ScenePool | None, ScenePool | None],
    words: Words,
    progress: bool,
) -> tuple[FrozenParts, Words]:
    """The small encoder, trained on these scenes or taken over, and the words to go on with."""
    if config.encoder.pretrained is None:
        assert pools[0] is not None
        assert pools[1] is not None
        folder = _train_encoder(config, (pools[0], pools[1]), words.tokenizer, progress)
    else:
        folder = encoder_stage_folder(config.encoder.pretrained)
    parts = load_encoder_stage(folder)
    # Without a published model the tokenizer is the one that the encoder's scorer was trained with.
    return parts, words if words.given else Words(parts.tokenizer)


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


def load_encoder_stage(folder: Path) -> FrozenParts:
    """Encoder, scorer and tokenizer of a finished encoder stage."""
    if not (folder / "encoder" / "config.json").exists():
        raise ConfigError(f"{folder}: holds no trained encoder; name the `model` folder of one")
    return FrozenParts(
        ConvolutionalEncoder.from_published(folder / "encoder").requires_grad_(False),
        load_saved_model(AudioTextScorer, folder / "scorer").requires_grad_(False),
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
    trained: AudioTextScorer = load_saved_model(AudioTextScorer, folder / "model")
    return trained.requires_grad_(False)


def _from_features(config: TrainingConfig) -> bool:
    """Whether the system is made of the small encoder's features, which scenes have in memory."""
    if config.system == "enclap":
        return config.codec.name == "rvq" and config.codec.sequence != "sequence_encoder"
    return not (config.system == "prefix" and config.prefix.train_encoder)


def _normalised(config: TrainingConfig) -> bool:
    return config.system == "prefix" and config.prefix.normalise_captions


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
