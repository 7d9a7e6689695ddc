"""Training of the small audio encoder: tagging, event activity, and audio-text contrast.

What the captioner keeps is the encoder and the AudioTextScorer; the tagging heads stay here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.augmentation import AugmentationConfig, augment_log_mel
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.soundscapes.captions import labels, write_captions
from dac_diffusion.data.soundscapes.scenes import Scene
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.files import atomic_folder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.batches import to_device


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """What the encoder learns from; the weights multiply the losses of the same names."""

    batch_size: int = 64
    tagging_weight: float = 1.0
    activity_weight: float = 1.0
    contrastive_weight: float = 1.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass(frozen=True)
class EncoderBatch:
    """log_mel (B, T, M), num_samples (B,), captions (2, B, L): right ones, then altered ones.

    activity (B, S, labels) in [0, 1], kinds (B,): equal numbers mean that captions may coincide.
    """

    log_mel: Tensor
    num_samples: Tensor
    captions: Tensor
    activity: Tensor
    kinds: Tensor


class EncoderTrainer(nn.Module):
    """Encoder, scorer and tagging heads with their losses."""

    def __init__(
        self, encoder: ConvolutionalEncoder, scorer: AudioTextScorer, config: EncoderTrainingConfig
    ) -> None:
        super().__init__()
        self.encoder, self.scorer, self.config = encoder, scorer, config
        self.tag_clip = nn.Linear(encoder.pooled_dim, len(labels()))
        self.tag_frames = nn.Linear(encoder.feature_dim, len(labels()))
        for head in (self.tag_clip, self.tag_frames):
            nn.init.constant_(head.bias, -4.0)  # most labels are absent from most scenes

    def forward(self, batch: EncoderBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The weighted loss and its parts for one batch."""
        log_mel = batch.log_mel
        if self.training:
            log_mel = augment_log_mel(log_mel, self.config.augmentation, generator)
        audio = self.encoder.encode_log_mel(log_mel, batch.num_samples)
        present = batch.activity.amax(dim=1)  # (B, labels)
        tagging = F.binary_cross_entropy_with_logits(
            self.tag_clip(audio.pooled).float(), present, reduction="none"
        ).sum(dim=-1)
        frames = F.binary_cross_entropy_with_logits(
            self.tag_frames(audio.features).float(), batch.activity, reduction="none"
        ).sum(dim=-1)  # (B, S)
        activity = (frames * audio.mask).sum() / audio.mask.sum()
        contrastive = self._contrast(audio.pooled, batch)
        config = self.config
        loss = (
            config.tagging_weight * tagging.mean()
            + config.activity_weight * activity
            + config.contrastive_weight * contrastive
        )
        return {
            "loss": loss,
            "tagging": tagging.mean(),
            "activity": activity,
            "contrastive": contrastive,
        }

    def _contrast(self, pooled: Tensor, batch: EncoderBatch) -> Tensor:
        """Symmetric InfoNCE; every clip also has one altered caption as a hard negative.

        Pairs of clips with the same events in the same relation are left out of the negatives.
        """
        audio = self.scorer.embed_audio(pooled)  # (B, E)
        right, altered = self.scorer.embed_text(batch.captions.flatten(0, 1)).chunk(2)
        scale = self.scorer.logit_scale.exp().clamp(max=100.0)
        same = batch.kinds[:, None] == batch.kinds[None, :]
        itself = torch.eye(len(pooled), dtype=torch.bool, device=pooled.device)
        logits = (scale * audio @ right.T).masked_fill(same & ~itself, -1e4)  # (B, B)
        hard = scale * (audio * altered).sum(dim=-1, keepdim=True)  # (B, 1)
        target = torch.arange(len(pooled), device=pooled.device)
        by_audio = F.cross_entropy(torch.cat([logits, hard], dim=1), target)
        return (by_audio + F.cross_entropy(logits.T, target)) / 2


def alter_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs in one fact: the order of a sequence, or one event's kind."""
    events = list(scene.events)
    if scene.relation.startswith("sequence") and rng.random() < 0.5:
        events[0], events[1] = events[1], events[0]
        return dataclasses.replace(scene, events=tuple(events))
    index = int(rng.integers(len(events)))
    others = [label for label in labels() if label not in {event.label for event in events}]
    label = others[int(rng.integers(len(others)))]
    events[index] = dataclasses.replace(events[index], label=label)
    return dataclasses.replace(scene, events=tuple(events))


def activity_targets(scene: Scene, num_frames: int, frames_per_second: float) -> np.ndarray:
    """Which label sounds in which feature frame, (S, labels) of 0 and 1."""
    columns = {label: column for column, label in enumerate(labels())}
    targets = np.zeros((num_frames, len(columns)), np.float32)
    for event in scene.events:
        first = int(event.onset * frames_per_second)
        last = int((event.onset + event.seconds) * frames_per_second)
        targets[first : last + 1, columns[event.label]] = 1
    return targets


class EncoderTask:
    """The encoder's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self,
        model: EncoderTrainer,
        tokenizer: PreTrainedTokenizerFast,
        pool: ScenePool,
        validation: ScenePool,
        seed: int,
    ) -> None:
        self.model: nn.Module = model  # what the loop trains
        self.trainer, self.tokenizer = model, tokenizer
        self.pool, self.validation, self.seed = pool, validation, seed
        self.frames = -(-pool.log_mel.shape[1] // model.encoder.stride)

    def batch(self, step: int, rank: int, world_size: int) -> EncoderBatch:
        """The batch of a step: random scenes of the pool with new captions."""
        rng = np.random.default_rng([self.seed, step, rank])
        chosen = rng.choice(len(self.pool), self.trainer.config.batch_size, replace=True)
        return self._collate(self.pool, np.sort(chosen), rng)

    def _collate(
        self, pool: ScenePool, indices: np.ndarray, rng: np.random.Generator
    ) -> EncoderBatch:
        scenes = [pool.scenes[int(index)] for index in indices]
        texts = [write_captions(scene, rng, 1)[0] for scene in scenes]
        texts += [write_captions(alter_scene(scene, rng), rng, 1)[0] for scene in scenes]
        length = self.trainer.scorer.config.max_length
        encoder = self.trainer.encoder
        frame_rate = encoder.sampling_rate / (encoder.config.hop_length * encoder.stride)
        activity = [activity_targets(scene, self.frames, frame_rate) for scene in scenes]
        names = dict.fromkeys(_kind(scene) for scene in scenes)
        kinds = {name: number for number, name in enumerate(names)}
        return EncoderBatch(
            torch.from_numpy(pool.log_mel[indices].astype(np.float32)),
            torch.from_numpy(pool.num_samples[indices]),
            encode_captions(self.tokenizer, texts, length).view(2, len(scenes), length),
            torch.from_numpy(np.stack(activity)),
            torch.tensor([kinds[_kind(scene)] for scene in scenes]),
        )

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Nothing to do between steps."""

    @torch.no_grad()
    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Tagging and retrieval on validation scenes."""
        trainer = self.trainer
        rng = np.random.default_rng([self.seed, 1])
        found, named, ranked, total = 0.0, 0.0, 0.0, 0
        size = trainer.config.batch_size
        generator = torch.Generator().manual_seed(0)
        losses = []
        for start in range(0, len(self.validation), size):
            indices = np.arange(start, min(start + size, len(self.validation)))
            batch = to_device(self._collate(self.validation, indices, rng), trainer.encoder.device)
            losses.append(float(trainer(batch, generator)["loss"]))
            audio = trainer.encoder.encode_log_mel(batch.log_mel, batch.num_samples)
            tags = trainer.tag_clip(audio.pooled)  # (B, labels)
            present = batch.activity.amax(dim=1)
            found += float(present.gather(1, tags.argmax(dim=1, keepdim=True)).sum())
            single = present.sum(dim=1, keepdim=True) == 1
            named += float((present.gather(1, tags.argmax(1, keepdim=True)) * single).sum())
            total += int(single.sum())
            vectors = trainer.scorer.embed_audio(audio.pooled)
            right, altered = trainer.scorer.embed_text(batch.captions.flatten(0, 1)).chunk(2)
            ranked += float(((vectors * right).sum(-1) > (vectors * altered).sum(-1)).sum())
        count = len(self.validation)
        return {
            "loss": float(np.mean(losses)),
            "top_tag_is_present": found / count,
            "single_event_accuracy": named / max(1, total),
            "right_above_altered": ranked / count,
        }

    def state(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the weights."""

    def export(self, folder: Path) -> None:
        """Write encoder, scorer and tokenizer for the captioner's training."""
        with atomic_folder(folder) as partial:
            self.trainer.encoder.save_pretrained(Path(partial) / "encoder")
            self.trainer.scorer.save_pretrained(Path(partial) / "scorer")
            self.tokenizer.save_pretrained(Path(partial) / "tokenizer")


def _kind(scene: Scene) -> str:
    """Scenes of one kind may have the same caption."""
    names = [event.label for event in scene.events]
    return f"{scene.relation}:{names if 'sequence' in scene.relation else sorted(names)}"
