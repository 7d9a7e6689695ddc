"""Drawing candidates: windows of audio in, texts and what is needed to rank them out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.captioning.invariance import (
    ACCELERATOR_CLIPS,
    CPU_CLIPS,
    ClipByClipSpace,
    clip_by_clip,
)
from dac_diffusion.captioning.results import CaptionStep
from dac_diffusion.captioning.selection import count_distinct
from dac_diffusion.diffusion.denoiser import AudioMemory
from dac_diffusion.diffusion.likelihood import denoising_log_likelihood
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import decode_captions, encode_captions

EXTRA_ROUNDS = 3  # more candidates for a window whose first ones repeat each other

T = TypeVar("T")


@dataclass(frozen=True)
class DrawSettings:
    """How candidates are drawn; see DiffusionCaptioner.__call__."""

    num_captions: int
    num_candidates: int
    num_steps: int
    guidance_scale: float
    initial_noise_scale: float
    seed: int
    likelihood_weight: float = 0.0

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
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: must be 0 or more, and below 2^63")
        if not np.isfinite(self.guidance_scale):
            raise ConfigError(f"guidance_scale={self.guidance_scale}: must be finite")
        if not (np.isfinite(self.initial_noise_scale) and self.initial_noise_scale >= 0):
            raise ConfigError(
                f"initial_noise_scale={self.initial_noise_scale}: must be finite and at least 0"
            )


@dataclass(frozen=True)
class Window:
    """A part of a recording that is captioned by itself: waveform (T,), start in seconds."""

    file_name: str
    start: float
    waveform: np.ndarray


@dataclass
class Candidates:
    """What was drawn for a window: N texts, their vectors (N, E), pooled audio (P,).

    log_likelihoods (N,): zeros where the likelihood does not count.
    """

    texts: list[str]
    text_vectors: Tensor
    pooled: Tensor
    log_likelihoods: Tensor


class CandidateDrawer:
    """Encodes windows, samples captions for them and embeds those for ranking.

    captioner: whatever has the components of DiffusionCaptioner and a `device`.
    """

    def __init__(
        self,
        captioner: Any,
        settings: DrawSettings,
        callback: Callable[[CaptionStep], None] | None = None,
    ) -> None:
        self.captioner = captioner
        self.settings = settings
        self.callback = callback
        self.on_cpu = captioner.device.type == "cpu"

    def draw(self, windows: Sequence[Window]) -> list[Candidates]:
        """Candidates for every window, in order, each independent of the other windows."""
        drawn: dict[int, Candidates] = {}
        for batch in self._batches(windows):
            drawn.update(zip(batch, self._draw_batch([windows[i] for i in batch]), strict=True))
        return [drawn[i] for i in range(len(windows))]

    def score(self, candidates: Candidates, pooled: Tensor) -> list[float]:
        """How well the texts fit: cosine with a recording's pooled vector (P,), plus likelihood."""
        # Always one vector at a time: see invariance.py.
        scorer = self.captioner.scorer
        audio = scorer.embed_audio(pooled[None].to(scorer.device, scorer.dtype))  # (1, E)
        cosines = (candidates.text_vectors * audio.float().cpu()).sum(dim=-1)  # (N,)
        weighted = self.settings.likelihood_weight * candidates.log_likelihoods
        scores: list[float] = (cosines + weighted).tolist()
        return scores

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[int]]:
        by_canvas: dict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_canvas[self._canvas(window)].append(index)
        size = CPU_CLIPS if self.on_cpu else ACCELERATOR_CLIPS
        for indices in by_canvas.values():
            for start in range(0, len(indices), size):
                yield indices[start : start + size]

    def _canvas(self, window: Window) -> int:
        return int(self.captioner.encoder.canvas_samples(len(window.waveform)))

    def _draw_batch(self, windows: list[Window]) -> list[Candidates]:
        audio = self._encode(windows)
        generators = [torch.Generator().manual_seed(self.settings.seed) for _ in windows]
        drawn = self._sample(windows, audio, generators)
        for _ in range(EXTRA_ROUNDS):
            lacking = [
                index
                for index, candidates in enumerate(drawn)
                if count_distinct(candidates.texts) < self.settings.num_captions
            ]
            if not lacking:
                break
            # Every window goes on with its own generator, so who else is drawn again is nothing
            # to it.
            more = self._sample(
                [windows[i] for i in lacking],
                audio.select(lacking),
                [generators[i] for i in lacking],
            )
            for index, extra in zip(lacking, more, strict=True):
                drawn[index] = Candidates(
                    drawn[index].texts + extra.texts,
                    torch.cat([drawn[index].text_vectors, extra.text_vectors]),
                    drawn[index].pooled,
                    torch.cat([drawn[index].log_likelihoods, extra.log_likelihoods]),
                )
        return drawn

    def _encode(self, windows: list[Window]) -> AudioFeatures:
        if not self.on_cpu:
            return self._encode_at_once(self._fill(windows)).select(slice(0, len(windows)))
        parts = [self._encode_at_once([window]) for window in windows]
        return AudioFeatures(
            torch.cat([part.features for part in parts]),
            torch.cat([part.mask for part in parts]),
            torch.cat([part.pooled for part in parts]),
        )

    def _encode_at_once(self, windows: list[Window]) -> AudioFeatures:
        waveforms = torch.zeros(len(windows), self._canvas(windows[0]))  # (B, T)
        for row, window in zip(waveforms, windows, strict=True):
            row[: len(window.waveform)] = torch.from_numpy(window.waveform)
        num_samples = torch.tensor([len(window.waveform) for window in windows])
        device = self.captioner.device
        audio: AudioFeatures = self.captioner.encoder(waveforms.to(device), num_samples.to(device))
        return audio

    def _sample(
        self, windows: list[Window], audio: AudioFeatures, generators: list[torch.Generator]
    ) -> list[Candidates]:
        captioner, settings = self.captioner, self.settings
        filled = self._fill(list(range(len(windows))))
        fillers = [torch.Generator().manual_seed(settings.seed) for _ in filled[len(windows) :]]
        memory = captioner.denoiser.prepare_audio(audio.select(filled))
        ids = sample_latents(
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
            callback=None if self.callback is None else self._tell(windows, self.callback),
            never_first=captioner.tokenizer.all_special_ids,
        )  # (B, K, L)
        texts = self._texts(ids)
        vectors = self._embed(texts)  # (B, K, E)
        likelihoods = self._log_likelihoods(ids, memory)  # (B, K)
        return [
            Candidates(texts[i], vectors[i], audio.pooled[i].float().cpu(), likelihoods[i])
            for i in range(len(windows))
        ]

    def _space(self) -> Any:
        space = self.captioner.latent_space
        return ClipByClipSpace(space) if self.on_cpu else space

    def _log_likelihoods(self, ids: Tensor, memory: AudioMemory) -> Tensor:
        """What the denoiser itself thinks of its captions (B, K, L): (B, K)."""
        if self.settings.likelihood_weight == 0:
            return torch.zeros(ids.shape[:2])
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

    def _texts(self, ids: Tensor) -> list[list[str]]:
        """Texts of token ids (B, K, L): B lists of K."""
        flat = decode_captions(self.captioner.tokenizer, ids.flatten(0, 1))
        size = ids.shape[1]
        return [flat[start : start + size] for start in range(0, len(flat), size)]

    def _embed(self, texts: list[list[str]]) -> Tensor:
        """Unit vectors (B, K, E) of B lists of K texts."""
        captioner = self.captioner
        # One length for all, because a text's vector may depend on it in the last bits.
        length = captioner.scorer.config.max_length
        flat = [text for clip in texts for text in clip]
        ids = encode_captions(captioner.tokenizer, flat, length)  # (B * K, L)
        vectors = clip_by_clip(
            captioner.scorer.embed_text,
            ids.to(captioner.device),
            len(texts) if self.on_cpu else 1,
        )  # (B * K, E)
        return vectors.float().cpu().unflatten(0, (len(texts), -1))  # (B, K, E)

    def _fill(self, items: list[T]) -> list[T]:
        missing = 0 if self.on_cpu else ACCELERATOR_CLIPS - len(items)
        return items + [items[0]] * missing

    def _tell(
        self, windows: list[Window], callback: Callable[[CaptionStep], None]
    ) -> Callable[[int, int, Tensor], None]:
        """A callback of the sampler that hands every window's texts to the user's."""

        def call(step: int, num_steps: int, ids: Tensor) -> None:
            texts = self._texts(ids)
            for window, candidates in zip(windows, texts, strict=False):
                seen = CaptionStep(
                    window.file_name, window.start, step + 1, num_steps, tuple(candidates)
                )
                callback(seen)

        return call
