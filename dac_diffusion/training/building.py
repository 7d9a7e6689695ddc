"""From a config to the parts that are trained: words, latent space, denoiser, schedule."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.bottleneck_gpt2 import load_gpt2
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.language_models import LanguageModel, load_language_model
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.data.tables import read_all_captions
from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.dit import DiTDenoiser
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.uvit import UViTDenoiser
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.text.bert import PretrainedBert, keep_used_tokens, load_bert, random_bert
from dac_diffusion.text.contextual_space import ContextualSpace, load_sentence_encoder
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.text.tokenizer import train_tokenizer
from dac_diffusion.training.captioner import LatentSpaceModule
from dac_diffusion.training.prefix import SMALL
from dac_diffusion.training.rounding_head import train_head
from dac_diffusion.training.settings import (
    DenoiserConfig,
    ScheduleConfig,
    SplitBertConfig,
    TextConfig,
    TrainingConfig,
)

RANDOM_BERT = "random"


@dataclass(frozen=True)
class Words:
    """The tokenizer of captions, and the BERT or language model it belongs to, if it is one's.

    given: they come from elsewhere than the captions, so that no other tokenizer will do.
    """

    tokenizer: PreTrainedTokenizerFast
    bert: PretrainedBert | None = None
    language_model: LanguageModel | None = None
    given: bool = True


def words_of(config: TrainingConfig, captions: Sequence[str]) -> Words:
    """The tokenizer that the system asks for.

    That of the autoregressive captioner to go on from, of the published language model, or what
    `make_words` makes.
    """
    if config.initial_model is not None and config.system != "diffusion":
        dtype = config.prefix.dtype if config.system == "prefix" else "float32"
        initial = AutoregressiveCaptioner.from_pretrained(config.initial_model, dtype)
        model = LanguageModel(initial.network.train(), initial.tokenizer)
        return Words(initial.tokenizer, language_model=model)
    name = published_language_model(config)
    if name is None:
        return make_words(config.text, captions, config.seed)
    if config.system == "recap":
        model = load_gpt2(name, config.recap.bottleneck, config.seed)
        return Words(model.tokenizer, language_model=model)
    dtype = config.prefix.dtype if config.system == "prefix" else "float32"
    model = load_language_model(name, getattr(torch, dtype))
    return Words(model.tokenizer, language_model=model)


def published_language_model(config: TrainingConfig) -> str | None:
    """The folder or Hub id of the language model that a system goes on from."""
    if config.system == "enclap":
        return config.enclap.bart
    if config.system == "recap":
        return config.recap.gpt2
    if config.system == "prefix" and config.prefix.language_model not in SMALL:
        return config.prefix.language_model
    return None


def make_words(config: TextConfig, captions: Sequence[str], seed: int) -> Words:
    """The tokenizer that the latent space asks for: a BERT's, or one trained on the captions."""
    if config.latent_space == "split_bert":
        bert = _make_bert(config, captions, seed)
        return Words(bert.tokenizer, bert)
    return Words(_train_tokenizer(config, captions), given=False)


def _make_bert(config: TextConfig, captions: Sequence[str], seed: int) -> PretrainedBert:
    name = config.split_bert.bert
    if name == RANDOM_BERT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return random_bert(_train_tokenizer(config, captions))
    bert = load_bert(name)
    if config.split_bert.vocabulary == "all":
        return bert
    return keep_used_tokens(bert, [*captions, *_further_captions(config)])


def _train_tokenizer(config: TextConfig, captions: Sequence[str]) -> PreTrainedTokenizerFast:
    return train_tokenizer([*captions, *_further_captions(config)], config.vocabulary_size)


def _further_captions(config: TextConfig) -> list[str]:
    return [text for path in config.caption_files for text in read_all_captions(path)]


def make_latent_space(
    config: TextConfig,
    words: Words,
    captions: Sequence[str],
    folder: Path,
    seed: int,
    bfloat16: bool = False,
    progress: bool = True,
) -> LatentSpaceModule:
    """The latent space that the config names.

    captions: of the training data. folder: where the split-BERT space is kept once its head has
    been trained (in bfloat16, if asked for), so that a resumed run has the same.
    """
    if config.latent_space == "embedding":
        return EmbeddingSpace(
            len(words.tokenizer), config.latent_dim, config.embedding_std, config.likelihood
        )
    if config.latent_space == "contextual":
        space = ContextualSpace(len(words.tokenizer), max_length=config.max_length)
        space.attach_encoder(load_sentence_encoder(), words.tokenizer)
        space.fit_statistics(captions[: config.split_bert.statistics_captions])
        return space
    return _split_bert_space(config, words, captions, folder, seed, bfloat16, progress)


def _split_bert_space(
    config: TextConfig,
    words: Words,
    captions: Sequence[str],
    folder: Path,
    seed: int,
    bfloat16: bool,
    progress: bool,
) -> SplitBertSpace:
    assert words.bert is not None
    settings, length = config.split_bert, config.max_length
    key = json.dumps([dataclasses.asdict(settings), length, seed, len(words.tokenizer)])
    kept = folder / f"latent_space-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if kept.is_dir():
        space: SplitBertSpace = load_saved_model(SplitBertSpace, kept)
        space.attach_encoder(words.bert)
        return space
    with torch.random.fork_rng(devices=[]):  # the same draws after it, whether it is made or read
        torch.manual_seed(seed)
        space = _untrained_space(settings, words.bert)
        space.fit_statistics(captions[: settings.statistics_captions], length)
        if settings.head.steps > 0:
            train_head(
                space, words.tokenizer, captions, length, settings.head, seed, bfloat16, progress
            )
    with atomic_folder(kept) as partial, quiet_libraries():
        space.save_pretrained(partial)
    return space


def _untrained_space(settings: SplitBertConfig, bert: PretrainedBert) -> SplitBertSpace:
    weights = settings.mse_weight, settings.cross_entropy_weight, settings.valid_token_weight
    return SplitBertSpace.from_bert(
        bert,
        settings.split_layer,
        settings.extra_linear_layers,
        settings.train_upper,
        settings.attend_to_padding,
        settings.prediction_type,
        settings.distance,
        weights,
    )


def make_denoiser(
    config: DenoiserConfig, latent_dim: int, audio_dim: int, pooled_dim: int, max_length: int
) -> AudioConditionedDenoiser:
    """The denoiser that the config names, between latents and features of these widths."""
    if config.kind == "caption":
        return CaptionDenoiser(
            latent_dim=latent_dim,
            audio_dim=audio_dim,
            pooled_dim=pooled_dim,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            max_length=max_length,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
            local_reach=config.local_reach,
        )
    papers = DiTDenoiser if config.kind == "dit" else UViTDenoiser
    return papers(
        latent_dim=latent_dim,
        audio_dim=audio_dim,
        pooled_dim=pooled_dim,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        max_length=max_length,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        pooled_condition=config.pooled_condition,
    )


def make_schedule(config: ScheduleConfig) -> NoiseSchedule:
    """The noise schedule that the config names."""
    if config.kind == "tangent":
        schedule = NoiseSchedule.tangent(config.tangent_strength)
    elif config.kind == "linear":
        schedule = NoiseSchedule.linear(config.timesteps, config.first_beta, config.last_beta)
    elif config.kind == "cosine":
        schedule = NoiseSchedule.cosine(config.timesteps)
    else:
        schedule = NoiseSchedule.gumbel(config.location, config.scale)
    if config.noise_variance != 1.0:
        schedule = schedule.with_more_noise(config.noise_variance)
    return schedule


def take_over_weights(
    name: str, denoiser: AudioConditionedDenoiser, space: LatentSpaceModule
) -> None:
    """Start from the weights of another captioner of the same sizes and vocabulary.

    Raises CheckpointError where it cannot be loaded, ConfigError where it is of other sizes.
    """
    initial = DiffusionCaptioner.from_pretrained(name, "float32")
    try:
        denoiser.load_state_dict(initial.denoiser.state_dict())
        space.load_state_dict(initial.latent_space.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"initial_model={name}: has other sizes than this config's denoiser, latent space or "
            "vocabulary; name its own encoder in encoder.pretrained and use its config"
        ) from error
