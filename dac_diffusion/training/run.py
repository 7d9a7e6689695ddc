"""`dac-diffusion train CONFIG`: encoder stage, then captioner stage, from one config file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.network import AudioProjection, build_network
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.configuration import load_config, save_config
from dac_diffusion.data.scene_cache import ScenePool, load_or_render_pool
from dac_diffusion.data.scene_features import Hearings, SceneFeatures, load_or_encode_pool
from dac_diffusion.data.tables import read_captions
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import make_folder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.contextual_space import ContextualSpace, load_sentence_encoder
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import train_tokenizer
from dac_diffusion.training.autoregressive import AutoregressiveTask, AutoregressiveTrainer
from dac_diffusion.training.captioner import CaptionerTask, CaptionerTrainer, LatentSpaceModule
from dac_diffusion.training.encoder import EncoderTask, EncoderTrainer
from dac_diffusion.training.loop import FitResult, LoopConfig, fit
from dac_diffusion.training.scene_captions import FrozenParts
from dac_diffusion.training.settings import ScheduleConfig, TextConfig, TrainingConfig
from dac_diffusion.training.task import Task


def train(
    config_path: str | Path, overrides: Sequence[str] = (), progress: bool = True
) -> FitResult:
    """Train what a config file describes; the captioner ends up in `output_dir`/model.

    A run that was stopped goes on where it was when the same command is given again.
    Raises ConfigError, DataError, CheckpointError and MissingExtraError, each in one line.
    """
    config = load_config(TrainingConfig, config_path, overrides)
    output = make_folder(config.output_dir)
    save_config(config, output / "config.yaml")
    pools = render_pools(config, progress)
    parts = train_encoder_stage(config, pools, progress)
    return train_captioner_stage(config, pools, parts, progress)


def scene_folder(config: TrainingConfig) -> Path:
    """Where rendered scenes and their features are kept."""
    return make_folder(config.cache_dir or Path(config.output_dir) / "scenes")


def render_pools(config: TrainingConfig, progress: bool) -> tuple[ScenePool, ScenePool]:
    """The training and the validation scenes, rendered once."""
    folder = scene_folder(config)
    workers = config.render_workers
    training = load_or_render_pool(
        folder, config.soundscapes, "train", config.training_scenes, workers, progress
    )
    validation = load_or_render_pool(
        folder, config.soundscapes, "validation", config.validation_scenes, workers, progress
    )
    return training, validation


def make_tokenizer(config: TextConfig, pool: ScenePool) -> PreTrainedTokenizerFast:
    """A tokenizer of the scenes' captions and of any caption files named in the config."""
    captions = [text for group in pool.captions for text in group]
    for path in config.caption_files:
        captions += [text for group in read_captions(path).values() for text in group]
    return train_tokenizer(captions, config.vocabulary_size)


def train_encoder_stage(
    config: TrainingConfig, pools: tuple[ScenePool, ScenePool], progress: bool
) -> FrozenParts:
    """Train the audio encoder, or load the one named in the config."""
    if config.encoder.pretrained is not None:
        return load_encoder_stage(Path(config.encoder.pretrained))
    torch.manual_seed(config.seed)
    folder = Path(config.output_dir) / "encoder"
    tokenizer = make_tokenizer(config.text, pools[0])
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
    fit(task, _capped(config.encoder_loop, config), folder, progress=progress)
    return load_encoder_stage(folder / "model")


def load_encoder_stage(folder: Path) -> FrozenParts:
    """Encoder, scorer and tokenizer of a finished encoder stage."""
    if not (folder / "encoder" / "config.json").exists():
        raise ConfigError(f"{folder}: holds no trained encoder; name the `model` folder of one")
    return FrozenParts(
        ConvolutionalEncoder.from_pretrained(folder / "encoder").eval().requires_grad_(False),
        AudioTextScorer.from_pretrained(folder / "scorer").eval().requires_grad_(False),
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
    )


def train_captioner_stage(
    config: TrainingConfig,
    pools: tuple[ScenePool, ScenePool],
    parts: FrozenParts,
    progress: bool,
) -> FitResult:
    """Train the captioner that the config names on the frozen encoder's features."""
    views = config.captioner_training.feature_views
    augmented = Hearings(views, config.feature_augmentation, config.seed)
    folder = scene_folder(config)
    features = load_or_encode_pool(folder, parts.encoder, pools[0], augmented, progress)
    validation = load_or_encode_pool(folder, parts.encoder, pools[1], Hearings(), progress)
    torch.manual_seed(config.seed + 1)
    make_task = autoregressive_task if config.system == "autoregressive" else diffusion_task
    task = make_task(config, parts, (pools[0], features), (pools[1], validation))
    return fit(task, _capped(config.loop, config), config.output_dir, progress=progress)


def diffusion_task(
    config: TrainingConfig,
    parts: FrozenParts,
    training: tuple[ScenePool, SceneFeatures],
    validation: tuple[ScenePool, SceneFeatures],
) -> Task:
    """The training of denoiser and latent space."""
    space = make_latent_space(config.text, parts.tokenizer, training[0])
    denoiser = CaptionDenoiser(
        latent_dim=space.latent_dim,
        audio_dim=parts.encoder.feature_dim,
        pooled_dim=parts.encoder.pooled_dim,
        max_length=config.text.max_length,
        **dataclasses.asdict(config.denoiser),
    )
    if config.initial_model is not None:
        take_over_weights(config.initial_model, denoiser, space)
    trainer = CaptionerTrainer(
        denoiser,
        space,
        _schedule(config.schedule),
        config.objective,
        parts.tokenizer.pad_token_id,
        config.captioner_training.compile_denoiser,
    )
    settings = config.captioner_training
    return CaptionerTask(trainer, settings, parts, training, validation, config.seed)


def autoregressive_task(
    config: TrainingConfig,
    parts: FrozenParts,
    training: tuple[ScenePool, SceneFeatures],
    validation: tuple[ScenePool, SceneFeatures],
) -> Task:
    """The training of the plain autoregressive captioner."""
    if config.initial_model is not None:
        raise ConfigError("initial_model: only for system=diffusion; remove it")
    sizes = config.autoregressive
    encoder = parts.encoder
    trainer = AutoregressiveTrainer(
        AudioProjection(encoder.feature_dim, encoder.pooled_dim, sizes.width),
        build_network(sizes, len(parts.tokenizer)),
        config.label_smoothing,
    )
    settings, length = config.captioner_training, config.text.max_length
    return AutoregressiveTask(trainer, settings, parts, training, validation, length, config.seed)


def take_over_weights(name: str, denoiser: CaptionDenoiser, space: LatentSpaceModule) -> None:
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


def make_latent_space(
    config: TextConfig, tokenizer: PreTrainedTokenizerFast, pool: ScenePool
) -> LatentSpaceModule:
    """The latent space that the config names."""
    if config.latent_space == "embedding":
        return EmbeddingSpace(
            len(tokenizer), config.latent_dim, config.embedding_std, config.likelihood
        )
    space = ContextualSpace(len(tokenizer), max_length=config.max_length)
    space.attach_encoder(load_sentence_encoder(), tokenizer)
    space.fit_statistics([group[0] for group in pool.captions[:5000]])
    return space


def _schedule(config: ScheduleConfig) -> NoiseSchedule:
    if config.kind == "tangent":
        return NoiseSchedule.tangent(config.tangent_strength)
    return NoiseSchedule.gumbel(config.location, config.scale)


def _capped(loop: LoopConfig, config: TrainingConfig) -> LoopConfig:
    if config.max_steps is None:
        return loop
    return dataclasses.replace(loop, max_steps=min(loop.max_steps, config.max_steps))
