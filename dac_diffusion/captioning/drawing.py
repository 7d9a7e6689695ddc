"""Drawing candidates: windows of audio in, texts and what is needed to rank them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.captioning.invariance import ACCELERATOR_CLIPS, CPU_CLIPS, ClipByClipSpace
from dac_diffusion.captioning.randomness import window_generator
from dac_diffusion.captioning.ranking import Candidates, embed_texts, texts_of
from dac_diffusion.captioning.results import CaptionStep
from dac_diffusion.captioning.selection import NO_FILTER, draw_distinct
from dac_diffusion.captioning.window_encoding import (
    Window,
    encode_windows,
    fill_up,
    window_batches,
)
from dac_diffusion.diffusion.audio_conditioning import AudioMemory
from dac_diffusion.diffusion.likelihood import denoising_log_likelihood
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.settings import RankingSettings
from dac_diffusion.seeds import check_seed
from dac_diffusion.text.repeats import collapse_repeats
from dac_diffusion.text.tokenizer import first_word_position


@dataclass(frozen=True)
class DrawSettings:
    """How candidates are drawn; see DiffusionCaptioner.__call__.

    with_likelihood: find the log-likelihood of every candidate, for three network calls more.
    """

    num_captions: int
    num_candidates: int
    num_steps: int
    guidance_scale: float
    initial_noise_scale: float
    seed: int
    with_likelihood: bool = False
    refined_share: float = 0.0
    collapse_repeats: bool = False

    def check(self, most_steps: int) -> None:
        """Raise ConfigError, naming the setting, for a value that makes no sense."""
        if self.num_captions < 1:
            raise ConfigError(f"num_captions={self.num_captions}: must be at least 1")
        if self.num_candidates < self.num_captions:
            raise ConfigError(
                f"num_candidates={self.num_candidates}: must be at least "
                f"num_captions={self.num_captions}"
            )
        if not 1 <= self.num_steps <= most_steps:
            raise ConfigError(f"num_steps={self.num_steps}: must be 1 to {most_steps}")
        check_seed(self.seed)
        if not np.isfinite(self.guidance_scale):
            raise ConfigError(f"guidance_scale={self.guidance_scale}: must be finite")
        if not (np.isfinite(self.initial_noise_scale) and self.initial_noise_scale >= 0):
            raise ConfigError(
                f"initial_noise_scale={self.initial_noise_scale}: must be finite and at least 0"
            )
        if not 0 <= self.refined_share < 1:
            raise ConfigError(f"refined_share={self.refined_share}: must be 0 or more, and below 1")


class CandidateDrawer:
    """Encodes windows, samples captions for them and embeds those for ranking.

    captioner: whatever has the components of DiffusionCaptioner and a `device`. ranking: whose
    filter says which candidates are of no use, so that more are drawn.
    """

    def __init__(
        self,
        captioner: Any,
        settings: DrawSettings,
        callback: Callable[[CaptionStep], None] | None = None,
        ranking: RankingSettings = NO_FILTER,
    ) -> None:
        self.captioner = captioner
        self.ranking = ranking
        self.settings = settings
        self.callback = callback
        self.on_cpu = captioner.device.type == "cpu"

    def draw(self, windows: Sequence[Window]) -> list[Candidates]:
        """Candidates for every window, in order, each independent of the other windows."""
        drawn: dict[int, Candidates] = {}
        size = ACCELERATOR_CLIPS
        if self.on_cpu:
            size = CPU_CLIPS if self.captioner.denoiser.batch_invariant else 1
        for batch in window_batches(windows, self.captioner.encoder, size):
            drawn.update(zip(batch, self._draw_batch([windows[i] for i in batch]), strict=True))
        return [drawn[i] for i in range(len(windows))]

    def _draw_batch(self, windows: list[Window]) -> list[Candidates]:
        audio = encode_windows(self.captioner.encoder, windows, self.captioner.device)
        generators = [window_generator(self.settings.seed, w.waveform) for w in windows]

        def draw(places: list[int]) -> list[Candidates]:
            chosen = [windows[i] for i in places], [generators[i] for i in places]
            return self._candidates(chosen[0], audio.select(places), chosen[1])

        return draw_distinct(draw, len(windows), self.settings.num_captions, self.ranking)

    def generate(self, audio: AudioFeatures, generators: list[torch.Generator]) -> Tensor:
        """Token ids (B, K, L) of captions of B encoded windows, not ranked."""
        return self._sample(self._remember(audio), generators, None)

    def _remember(self, audio: AudioFeatures) -> AudioMemory:
        places = fill_up(list(range(len(audio.features))), self.captioner.device)
        memory: AudioMemory = self.captioner.denoiser.prepare_audio(audio.select(places))
        return memory

    def _sample(
        self,
        memory: AudioMemory,
        generators: list[torch.Generator],
        callback: Callable[[int, int, Tensor], None] | None,
    ) -> Tensor:
        captioner, settings = self.captioner, self.settings
        missing = len(memory) - len(generators)
        fillers = [torch.Generator().manual_seed(settings.seed) for _ in range(missing)]
        return sample_latents(
            captioner.denoiser,
            self._space(),
            captioner.scheduler,
            memory,
            settings.num_candidates,
            captioner.denoiser.config.max_length,
            generators + fillers,
            settings.num_steps,
            guidance_scale=settings.guidance_scale,
            initial_noise_scale=settings.initial_noise_scale,
            refined_share=settings.refined_share,
            callback=callback,
            never_first=captioner.tokenizer.all_special_ids,
            first_word=first_word_position(captioner.tokenizer),
        )  # (B, K, L)

    def _candidates(
        self, windows: list[Window], audio: AudioFeatures, generators: list[torch.Generator]
    ) -> list[Candidates]:
        captioner = self.captioner
        memory = self._remember(audio)
        tell = None if self.callback is None else self._tell(windows, self.callback)
        ids = self._sample(memory, generators, tell)  # (B, K, L)
        texts = texts_of(captioner.tokenizer, ids)
        removed = [0] * len(texts)
        if self.settings.collapse_repeats:
            collapsed = [[collapse_repeats(text) for text in clip] for clip in texts]
            texts = [[text for text, _ in clip] for clip in collapsed]
            removed = [sum(count for _, count in clip) for clip in collapsed]
        vectors = embed_texts(captioner.scorer, captioner.tokenizer, texts)  # (B, K, E)
        likelihoods: Sequence[Tensor | None] = [None] * len(texts)
        if self.settings.with_likelihood:
            likelihoods = self._log_likelihoods(ids, memory).unbind()  # B times (K,)
        return [
            Candidates(
                texts[i], vectors[i], audio.pooled[i].float().cpu(), likelihoods[i], removed[i]
            )
            for i in range(len(windows))
        ]

    def _space(self) -> Any:
        space = self.captioner.latent_space
        return ClipByClipSpace(space) if self.on_cpu else space

    def _log_likelihoods(self, ids: Tensor, memory: AudioMemory) -> Tensor:
        """What the denoiser itself thinks of its captions (B, K, L): (B, K)."""
        captioner = self.captioner
        ends = ids == captioner.tokenizer.eos_token_id
        pad_id = captioner.tokenizer.pad_token_id
        cut = ids.masked_fill(ends.cumsum(dim=-1) - ends.long() > 0, pad_id)  # (B, K, L)
        seed = (self.settings.seed + 1) % 2**63  # other noise than the captions were made from
        generators = [torch.Generator().manual_seed(seed) for _ in ids]
        return denoising_log_likelihood(
            captioner.denoiser,
            self._space(),
            captioner.scheduler,
            memory,
            cut,
            generators,
            pad_id,
        ).cpu()

    def _tell(
        self, windows: list[Window], callback: Callable[[CaptionStep], None]
    ) -> Callable[[int, int, Tensor], None]:
        """A callback of the sampler that hands every window's texts to the user's."""

        def call(step: int, num_steps: int, ids: Tensor) -> None:
            texts = texts_of(self.captioner.tokenizer, ids)
            for window, candidates in zip(windows, texts, strict=False):
                seen = CaptionStep(
                    window.file_name, window.start, step + 1, num_steps, tuple(candidates)
                )
                callback(seen)

        return call
