"""Everything a training can be told: the fields of a config file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dac_diffusion.autoregressive.network import AutoregressiveConfig
from dac_diffusion.data.augmentation import AugmentationConfig
from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig
from dac_diffusion.diffusion.objective import ObjectiveConfig
from dac_diffusion.training.captioner import CaptionerTrainingConfig
from dac_diffusion.training.encoder import EncoderTrainingConfig
from dac_diffusion.training.task import LoopConfig


@dataclass(frozen=True)
class TextConfig:
    """The tokenizer, and which latent space captions live in."""

    vocabulary_size: int = 1500
    caption_files: tuple[str, ...] = ()  # further captions for the vocabulary: AudioCaps, Clotho
    max_length: int = 24
    latent_space: Literal["embedding", "contextual"] = "embedding"
    latent_dim: int = 128  # of the embedding space; the contextual one has its encoder's
    embedding_std: float = 0.1  # of the embeddings at the start; see text/embedding_space.py
    likelihood: Literal["off", "learned", "exact"] = "off"


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the audio encoder; `pretrained` is a folder of an earlier encoder stage."""

    pretrained: str | None = None
    channels: tuple[int, ...] = (32, 64, 160, 320)
    width: int = 256
    depth: int = 2
    dropout: float = 0.1


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser."""

    width: int = 256
    depth: int = 8
    heads: int = 4
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    local_reach: int = 2  # 0: attention alone tells which word stands beside which


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule that training starts from, before it is fitted to the loss."""

    kind: Literal["gumbel", "tangent"] = "gumbel"
    location: float = 3.0
    scale: float = 1.0
    tangent_strength: float = 7.0


@dataclass(frozen=True)
class TrainingConfig:
    """Everything `dac-diffusion train` can be told."""

    output_dir: str = "runs/soundscapes"
    seed: int = 0
    max_steps: int | None = None  # a cap on both stages, for trials
    initial_model: str | None = None  # a captioner to go on from: "builtin" or a folder
    training_scenes: int = 12000
    validation_scenes: int = 500
    render_workers: int = 2
    cache_dir: str | None = None  # for rendered scenes; default: inside output_dir
    soundscapes: SoundscapeConfig = field(default_factory=SoundscapeConfig)
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    encoder_training: EncoderTrainingConfig = field(default_factory=EncoderTrainingConfig)
    encoder_loop: LoopConfig = field(default_factory=lambda: LoopConfig(max_steps=3000))
    feature_augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    system: Literal["diffusion", "autoregressive"] = "diffusion"
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    autoregressive: AutoregressiveConfig = field(default_factory=AutoregressiveConfig)
    label_smoothing: float = 0.1  # of the autoregressive captioner's cross-entropy
    captioner_training: CaptionerTrainingConfig = field(default_factory=CaptionerTrainingConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(max_steps=10000))
