"""Training of the diffusion captioner on features of a frozen audio encoder."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig, denoising_loss
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder
from dac_diffusion.text.contextual_space import ContextualSpace
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.split_bert_space import SplitBertSpace
from dac_diffusion.text.tokenizer import first_word_position
from dac_diffusion.training.caption_sources import CaptionBatch, CaptionSource, FrozenParts
from dac_diffusion.training.detectors import embedding_distance, report_samples

LatentSpaceModule = EmbeddingSpace | ContextualSpace | SplitBertSpace
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


@dataclass(frozen=True)
class SamplingConfig:
    """How the captioner samples unless a call says otherwise, in evaluation as well.

    stride, renoise, eta, churn: diffusion/scheduler.py; refined_share: diffusion/sampling.py;
    collapse_repeats: text/repeats.py. likelihood_weight needs a latent space of embeddings, where
    the default is .2, else 0. These weights, of the score: ranking/hybrid.py; redundancy_weight:
    captioning/selection.py.
    """

    num_steps: int = 8
    guidance_scale: float = 1.0
    num_candidates: int = 10
    initial_noise_scale: float = 1.0
    churn: float = 0.0
    renoise: bool = False
    eta: float | None = None
    stride: int | None = None
    refined_share: float = 0.0
    collapse_repeats: bool = False
    audio_text_weight: float = 1.0
    likelihood_weight: float | None = None
    agreement_weight: float = 2.0
    redundancy_weight: float = 1.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        if (self.churn > 0.0) + self.renoise + (self.eta is not None) > 1:
            raise ConfigError(
                "sampling: churn, renoise and eta exclude each other; set one of them"
            )
        for name, low, high in (("eta", 0.0, 1.0), ("refined_share", 0.0, 0.99)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"sampling.{name}={value}: must be from {low:g} to {high:g}")
        for name in ("num_steps", "num_candidates", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"sampling.{name}={value}: must be at least 1")
        if self.churn < 0.0:
            raise ConfigError(f"sampling.churn={self.churn}: must be at least 0")


class CaptionerTrainer(nn.Module):
    """Denoiser and latent space with their loss; the audio side is frozen and already encoded."""

    def __init__(
        self,
        denoiser: AudioConditionedDenoiser,
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
        self._in_training = (cast(AudioConditionedDenoiser, compiled),)
        self.schedule, self.config, self.pad_id = schedule, config, pad_id

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss, its parts, and per example (B*K,) the log-NSR and the cross-entropy."""
        result = denoising_loss(
            self._in_training[0],
            self.space,
            self.schedule,
            batch.token_ids,
            batch.features,
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
        training: CaptionSource,
        validation: CaptionSource,
        sampling: SamplingConfig | None = None,
        fit_schedule: bool = True,
    ) -> None:
        self.model: nn.Module = model  # what the loop trains
        self.trainer, self.config, self.parts = model, config, parts
        self.training, self.validation = training, validation
        self.sampling = sampling or SamplingConfig()
        self.fit_schedule = fit_schedule
        self._seen: list[tuple[Tensor, Tensor]] = []  # (log-NSR, loss) since the last fit
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=RECENT_STEPS)

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        return self.training.batch(step, rank)

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Refit the noise schedule to the loss now and then (facts: CDCD's time warping)."""
        seen = outputs["log_nsr"].cpu(), outputs["per_example"].cpu()
        self._recent.append(seen)
        if self.fit_schedule:
            self._seen.append(seen)
        due = step >= self.config.fit_schedule_from and step % self.config.fit_schedule_every == 0
        if due and self._seen:
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
        denoiser, clips, sampling = self.trainer.denoiser, len(audio.features), self.sampling
        audio = audio.to(denoiser.device)
        return sample_latents(
            denoiser,
            self.trainer.space,
            self.scheduler(),
            denoiser.prepare_audio(audio),
            num_captions=1,
            length=denoiser.config.max_length,
            generators=[torch.Generator().manual_seed(clip) for clip in range(clips)],
            num_steps=sampling.num_steps,
            guidance_scale=sampling.guidance_scale,
            initial_noise_scale=sampling.initial_noise_scale,
            refined_share=sampling.refined_share,
            never_first=self.parts.tokenizer.all_special_ids,
            first_word=first_word_position(self.parts.tokenizer),
        )[:, 0]  # (B, L)

    def scheduler(self) -> CaptionScheduler:
        """The sampler over the schedule as it is now."""
        sampling = self.sampling
        return CaptionScheduler.from_schedule(
            self.trainer.schedule,
            churn=sampling.churn,
            renoise=sampling.renoise,
            eta=sampling.eta,
            stride=sampling.stride,
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
        sampling, can_encode = self.sampling, isinstance(self.trainer.space, EmbeddingSpace)
        weight = sampling.likelihood_weight
        return DiffusionCaptioner(
            encoder=self.parts.encoder,
            denoiser=self.trainer.denoiser,
            latent_space=self.trainer.space,
            tokenizer=self.parts.tokenizer,
            scheduler=self.scheduler(),
            scorer=self.parts.scorer,
            num_steps=sampling.num_steps,
            num_candidates=sampling.num_candidates,
            guidance_scale=sampling.guidance_scale,
            initial_noise_scale=sampling.initial_noise_scale,
            # The others cannot encode captions without their text encoder, so have no likelihood.
            likelihood_weight=weight if weight is not None else 0.2 * can_encode,
            refined_share=sampling.refined_share,
            collapse_repeats=sampling.collapse_repeats,
            audio_text_weight=sampling.audio_text_weight,
            agreement_weight=sampling.agreement_weight,
            redundancy_weight=sampling.redundancy_weight,
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
