"""The stages before a captioner's own training: scenes, the small encoder, the scorer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.scene_cache import ScenePool, load_or_render_pool
from dac_diffusion.data.soundscapes.dataset import Split
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.building import Words
from dac_diffusion.training.caption_sources import BatchShape, CaptionSource, FrozenParts
from dac_diffusion.training.encoder import EncoderTask, EncoderTrainer
from dac_diffusion.training.loop import fit
from dac_diffusion.training.recordings import encoder_stage_folder, scene_folder
from dac_diffusion.training.scorer import ScorerTask, ScorerTrainer
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.task import LoopConfig


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


def render_pools(config: TrainingConfig, progress: bool) -> tuple[ScenePool, ScenePool]:
    """The training and the validation scenes, rendered once."""
    return render_scenes(config, "train", progress), render_scenes(config, "validation", progress)


def render_scenes(config: TrainingConfig, split: Split, progress: bool) -> ScenePool:
    """The built-in scenes of a split, rendered once."""
    count = config.training_scenes if split == "train" else config.validation_scenes
    folder, workers = scene_folder(config), config.render_workers
    return load_or_render_pool(folder, config.soundscapes, split, count, workers, progress)


def encoder_stage(
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


def train_scorer(
    config: TrainingConfig,
    training: CaptionSource,
    validation: CaptionSource,
    pooled_dim: int,
    progress: bool,
    folder: Path | None = None,
) -> AudioTextScorer:
    """A scorer of vectors that some encoder pools, trained or, where it is done, read again.

    folder: of this stage; by default `scorer` in output_dir.
    """
    torch.manual_seed(config.seed)
    folder, sizes = folder or Path(config.output_dir) / "scorer", config.scorer
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


def same_words(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> bool:
    """Whether two tokenizers have the same tokens, so that one scorer serves both."""
    return bool(first.get_vocab() == second.get_vocab())


def normalises(config: TrainingConfig) -> bool:
    """Whether the captioner learns captions without capitals and punctuation."""
    return config.system == "prefix" and config.prefix.normalise_captions


def batch_shape(config: TrainingConfig) -> BatchShape:
    """How many clips and captions the captioner's batches have."""
    training = config.captioner_training
    return BatchShape(training.clips_per_batch, training.captions_per_clip, config.text.max_length)


def capped(loop: LoopConfig, config: TrainingConfig) -> LoopConfig:
    """The loop with no more steps than the config's own cap."""
    if config.max_steps is None:
        return loop
    return dataclasses.replace(loop, max_steps=min(loop.max_steps, config.max_steps))
