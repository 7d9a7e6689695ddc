"""What a training from captions alone starts from (training/text_only.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dac_diffusion.data.scene_features import Hearings, load_or_encode_pool
from dac_diffusion.data.tables import read_captions
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import DataError
from dac_diffusion.text.words import tokenize
from dac_diffusion.training.building import Words, words_of
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CachedCaptions,
    FrozenParts,
    SceneCaptions,
    open_caches,
)
from dac_diffusion.training.clap_ranking import clap_scorer
from dac_diffusion.training.joint_spaces import JointSpace, clap_space, small_space
from dac_diffusion.training.recordings import prepare_caches, scene_folder
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import (
    Prepared,
    batch_shape,
    encoder_stage,
    normalises,
    render_scenes,
    same_words,
    train_scorer,
)
from dac_diffusion.training.text_only import JointAudio, TextOnlyCaptions, embed_captions
from dac_diffusion.training.text_only_settings import TextOnlyConfig


@dataclass(frozen=True)
class Material:
    """What a training from captions alone is made of.

    space, words: how captions become vectors and tokens. groups, held_out: the captions of every
    clip, to learn from and to validate on. audio: the sound of the held-out clips, if there is any.
    """

    space: JointSpace
    words: Words
    groups: Sequence[Sequence[str]]
    held_out: Sequence[Sequence[str]]
    audio: JointAudio | None


def prepare_text_only(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    """Captions alone for the captioner; audio, where there is some, to validate on.

    Raises ConfigError, and what the readers of tables, data and weights raise.
    """
    settings, shape = config.text_only, batch_shape(config)
    if not settings.other_captions:
        shape = dataclasses.replace(shape, captions=1)
    make_material = small_material if config.encoder.name == "small" else clap_material
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
            normalises(config),
        )
        for groups in (material.groups, material.held_out)
    )
    validation = material.audio or texts
    scorer: Any = space.scorer
    if config.scorer.clap is not None:
        scorer = clap_scorer(config, space.encoder)
    elif space.tokenizer is None or not same_words(space.tokenizer, words.tokenizer):
        small = dataclasses.replace(shape, clips=config.scorer.batch_size, captions=1)
        noisy = dataclasses.replace(training, shape=small)
        scorer = train_scorer(config, noisy, validation, space.encoder.pooled_dim, progress)
    parts = FrozenParts(space.encoder, scorer, words.tokenizer)
    captions = [text for own in material.groups for text in own]
    also = texts if material.audio else None
    return Prepared(parts, words, training, validation, captions, also)


def small_material(
    config: TrainingConfig, shape: BatchShape, accelerator: Any, progress: bool
) -> Material:
    """The small encoder's space; captions of tables or scenes, and the scenes' sound.

    Scenes are rendered for what is left to do for them only.
    """
    settings, trained = config.text_only, config.encoder.pretrained is not None
    groups: Sequence[Sequence[str]] = read_tables(settings.captions)
    held_out = read_tables(settings.validation_captions)
    with accelerator.main_process_first():
        scenes = None if groups and trained else render_scenes(config, "train", progress)
        heard = None if held_out and trained else render_scenes(config, "validation", progress)
    of_scenes = [] if scenes is None else scenes.captions
    texts = [text for own in (*groups, *of_scenes) for text in own]
    words = words_of(config, texts)
    parts, words = encoder_stage(config, (scenes, heard), words, progress)
    space = small_space(parts)
    if held_out:
        return Material(space, words, groups or of_scenes, held_out, None)
    assert heard is not None
    with accelerator.main_process_first():
        features = load_or_encode_pool(
            scene_folder(config), parts.encoder, heard, Hearings(), progress
        )
    source = SceneCaptions(heard, features, words.tokenizer, shape, config.seed, normalises(config))
    audio = JointAudio(source, space.embed_pooled)
    return Material(space, words, groups or of_scenes, heard.captions, audio)


def clap_material(
    config: TrainingConfig, shape: BatchShape, accelerator: Any, progress: bool
) -> Material:
    """CLAP's space and captions from tables; audio only of data.validation.

    Raises ConfigError, and what the readers of tables, data and weights raise.
    """
    wanted, settings = config.encoder, config.text_only
    groups = read_tables(settings.captions)
    words = words_of(config, [text for own in groups for text in own])
    held_out: Sequence[Sequence[str]]
    if not config.data.validation:
        held_out, source = read_tables(settings.validation_captions), None
        encoder = load_encoder(wanted.name, str(wanted.weights), wanted.window_seconds)
    else:
        # prepare_caches wants recordings to train on as well; the same ones cost nothing more.
        data = dataclasses.replace(config.data, training=config.data.validation)
        both = dataclasses.replace(config, data=data, text_only=TextOnlyConfig())
        with accelerator.main_process_first():
            encoder, folders = prepare_caches(both, progress, accelerator.is_main_process)
        caches = open_caches(folders[1])
        held_out = [cache.captions(i) for cache in caches for i in range(len(cache))]
        source = CachedCaptions(caches, words.tokenizer, shape, config.seed, normalises(config))
    space = clap_space(encoder, str(wanted.weights), config.data.device)
    audio = None if source is None else JointAudio(source, space.embed_pooled)
    return Material(space, words, groups, held_out, audio)


def read_tables(paths: Sequence[str]) -> list[list[str]]:
    """The captions of every clip of some tables, of all after one another.

    Raises DataError for a table that cannot be read or holds no captions.
    """
    groups: list[list[str]] = []
    for path in paths:
        found = [[text for text in own if tokenize(text)] for own in read_captions(path).values()]
        if not any(found):
            raise DataError(f"{path}: holds no captions; give a table that has some")
        groups += [own for own in found if own]
    return groups
