"""Training of the diffusion captioner on features of a frozen audio encoder."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import SceneFeatures
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig, denoising_loss
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.files import atomic_folder
from dac_diffusion.text.contextual_space import ContextualSpace
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.training.detectors import embedding_distance, report_samples
from dac_diffusion.training.scene_captions import CaptionBatch, FrozenParts, SceneCaptions

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
        self.trainer, self.config, self.parts = model, config, parts
        length = model.denoiser.config.max_length
        shape = (config.clips_per_batch, config.captions_per_clip, length)
        self.training, self.validation = SceneCaptions.of_both(
            training, validation, parts.tokenizer, shape, seed
        )
        self._seen: list[tuple[Tensor, Tensor]] = []  # (log-NSR, loss) since the last fit
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=RECENT_STEPS)

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        return self.training.batch(step, rank)

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
        audio, references = self.validation.first(self.config.evaluation_clips)
        self._log_noise_levels(writer, step)
        tokenizer, space = self.parts.tokenizer, self.trainer.space
        report = report_samples(self.sample, tokenizer, audio, references, writer, step)
        if isinstance(space, EmbeddingSpace):
            length = self.trainer.denoiser.config.max_length
            distance = embedding_distance(space, tokenizer, references, length)
            report["embedding_distance"] = distance
        return report

    def sample(self, audio: AudioFeatures) -> Tensor:
        """One raw caption per clip, unranked, as token ids (B, L); the same on every call."""
        denoiser, clips = self.trainer.denoiser, len(audio.features)
        return sample_latents(
            denoiser,
            self.trainer.space,
            CaptionScheduler.from_schedule(self.trainer.schedule),
            denoiser.prepare_audio(audio),
            num_captions=1,
            length=denoiser.config.max_length,
            generators=[torch.Generator().manual_seed(clip) for clip in range(clips)],
            num_steps=self.config.evaluation_steps,
            never_first=self.parts.tokenizer.all_special_ids,
        )[:, 0]  # (B, L)

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
