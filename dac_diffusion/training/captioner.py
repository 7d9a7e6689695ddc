"""Training of the diffusion captioner on features of a frozen audio encoder."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import SceneFeatures
from dac_diffusion.data.soundscapes.captions import write_captions
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig, denoising_loss
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.files import atomic_folder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.contextual_space import ContextualSpace
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.detectors import report_samples

LatentSpaceModule = EmbeddingSpace | ContextualSpace
RECENT_STEPS = 50  # whose losses are logged by noise level at an evaluation
NOISE_LEVELS = 5


@dataclass(frozen=True)
class CaptionerTrainingConfig:
    """Batches, and how the noise schedule follows the loss."""

    clips_per_batch: int = 32
    captions_per_clip: int = 4
    feature_views: int = 3  # augmented hearings of each scene kept in memory
    fit_schedule_from: int = 500  # the first step at which the schedule is fitted to the loss
    fit_schedule_every: int = 500
    compile_denoiser: bool = False  # a quarter faster on CPUs, after a minute or two of compiling
    evaluation_clips: int = 100
    evaluation_steps: int = 8


@dataclass(frozen=True)
class FrozenParts:
    """What the captioner needs and this training leaves as it is."""

    encoder: ConvolutionalEncoder
    scorer: AudioTextScorer
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True)
class CaptionBatch:
    """Features of B clips and K captions of each, token_ids (B, K, L)."""

    audio: AudioFeatures
    token_ids: Tensor


class CaptionerTrainer(nn.Module):
    """Denoiser and latent space with their loss; the audio side is frozen and already encoded."""

    def __init__(
        self,
        denoiser: CaptionDenoiser,
        space: LatentSpaceModule,
        schedule: NoiseSchedule,
        config: ObjectiveConfig,
        pad_id: int,
        compile_denoiser: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser, self.space = denoiser, space
        # In a tuple, so that it is no second copy of the same weights in checkpoints. Only training
        # calls it: evaluation has other shapes, for which it would be compiled again.
        compiled = torch.compile(denoiser) if compile_denoiser else denoiser
        self._in_training = (cast(CaptionDenoiser, compiled),)
        self.schedule, self.config, self.pad_id = schedule, config, pad_id

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss, its parts, and per example (B*K,) the log-NSR and the cross-entropy."""
        result = denoising_loss(
            self._in_training[0],
            self.space,
            self.schedule,
            batch.token_ids,
            batch.audio,
            self.config,
            generator,
            self.pad_id,
        )
        per_example = {"log_nsr": result.log_nsr, "per_example": result.per_example}
        return {"loss": result.loss, **result.terms, **per_example}


class CaptionerTask:
    """The captioner's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self,
        model: CaptionerTrainer,
        config: CaptionerTrainingConfig,
        parts: FrozenParts,
        training: tuple[ScenePool, SceneFeatures],
        validation: tuple[ScenePool, SceneFeatures],
        seed: int,
    ) -> None:
        self.model: nn.Module = model  # what the loop trains
        self.trainer, self.config, self.parts, self.seed = model, config, parts, seed
        self.pool, self.features = training
        self.validation_pool, self.validation_features = validation
        self._seen: list[tuple[Tensor, Tensor]] = []  # (log-NSR, loss) since the last fit
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=RECENT_STEPS)

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        rng = np.random.default_rng([self.seed, 2, step, rank])
        clips, per_clip = self.config.clips_per_batch, self.config.captions_per_clip
        scenes = rng.integers(len(self.pool), size=clips)
        views = rng.integers(self.features.num_views, size=clips)
        texts: list[str] = []
        for index in scenes:
            texts += write_captions(self.pool.scenes[int(index)], rng, per_clip)
        length = self.trainer.denoiser.config.max_length
        token_ids = encode_captions(self.parts.tokenizer, texts, length)
        return CaptionBatch(
            self.features.select(scenes, views), token_ids.view(clips, per_clip, length)
        )

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Refit the noise schedule to the loss now and then (facts: CDCD's time warping)."""
        self._seen.append((outputs["log_nsr"].cpu(), outputs["per_example"].cpu()))
        self._recent.append(self._seen[-1])
        due = step >= self.config.fit_schedule_from and step % self.config.fit_schedule_every == 0
        if due:
            log_nsr, loss = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
            self.trainer.schedule = self.trainer.schedule.fit(log_nsr, loss)
            self._seen.clear()

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Sample captions of fixed validation clips; see training/detectors.py."""
        count = min(self.config.evaluation_clips, len(self.validation_pool))
        chosen = np.arange(count)
        audio = self.validation_features.select(chosen, np.zeros(count, dtype=np.int64))
        references = [list(self.validation_pool.captions[i]) for i in range(count)]
        captioner = self.captioner()
        self._log_noise_levels(writer, step)
        return report_samples(
            captioner, audio, references, self.config.evaluation_steps, writer, step
        )

    def _log_noise_levels(self, writer: Any, step: int) -> None:
        """Write the recent cross-entropy in each of a few equal shares of the noise schedule."""
        if writer is None or not self._recent:
            return
        log_nsr, loss = (torch.cat(parts) for parts in zip(*self._recent, strict=True))
        times = self.trainer.schedule.time(log_nsr)
        for level in range(NOISE_LEVELS):
            low, high = level / NOISE_LEVELS, (level + 1) / NOISE_LEVELS
            inside = (times >= low) & (times < high)
            if inside.any():
                name = f"cross_entropy_by_noise/time_{low:.1f}_to_{high:.1f}"
                writer.add_scalar(name, loss[inside].mean().item(), step)

    def captioner(self) -> DiffusionCaptioner:
        """The captioner made of the current weights."""
        scheduler = CaptionScheduler.from_schedule(self.trainer.schedule)
        return DiffusionCaptioner(
            encoder=self.parts.encoder,
            denoiser=self.trainer.denoiser,
            latent_space=self.trainer.space,
            tokenizer=self.parts.tokenizer,
            scheduler=scheduler,
            scorer=self.parts.scorer,
            # The contextual space cannot encode captions without MiniLM, so it has no likelihood.
            likelihood_weight=0.2 if isinstance(self.trainer.space, EmbeddingSpace) else 0.0,
        )

    def state(self) -> dict[str, Any]:
        """The fitted schedule, and what was seen since it was fitted."""
        seen = [[a.tolist(), b.tolist()] for a, b in self._seen]
        return {"schedule": self.trainer.schedule.state(), "seen": seen}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's schedule."""
        self.trainer.schedule = NoiseSchedule.from_state(state["schedule"])
        self._seen = [(torch.tensor(a), torch.tensor(b)) for a, b in state["seen"]]

    def export(self, folder: Path) -> None:
        """Write the whole captioner, ready for `DiffusionCaptioner.from_pretrained`."""
        with atomic_folder(folder) as partial:
            self.captioner().save_pretrained(partial)
