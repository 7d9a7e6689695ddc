"""The public class: recordings in, several different captions each out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from dac_diffusion.audio.windows import window_bounds
from dac_diffusion.captioning.drawing import (
    CandidateDrawer,
    Candidates,
    DrawSettings,
    Window,
)
from dac_diffusion.captioning.inputs import (
    AudioInput,
    Recording,
    decode_ahead,
    find_sources,
)
from dac_diffusion.captioning.pretrained import find_checkpoint, load_components
from dac_diffusion.captioning.results import Caption, CaptionStep, ClipCaptions, Segment
from dac_diffusion.captioning.selection import choose_captions
from dac_diffusion.errors import AudioError, ConfigError

__all__ = ["Caption", "CaptionStep", "ClipCaptions", "DiffusionCaptioner", "Segment"]

T = TypeVar("T")

MINIMUM_TAIL_SECONDS = 2.5  # a shorter rest of a long recording joins the window before it


class DiffusionCaptioner(DiffusionPipeline):
    """Captions recordings by diffusion over caption latents; a diffusers pipeline.

    The components are attributes and can be replaced, `captioner.scheduler` also by the stock
    DDIMScheduler and DPMSolverMultistepScheduler (`from_config(captioner.scheduler.config)`).
    num_steps, num_candidates, guidance_scale and initial_noise_scale are the defaults of a call;
    they are kept in model_index.json. So is likelihood_weight: a caption's score is the cosine of
    audio and text plus this weight times the denoiser's log-likelihood of the caption, which costs
    three network calls (diffusion/likelihood.py) and needs a latent space that can encode.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        denoiser: torch.nn.Module,
        latent_space: torch.nn.Module,
        tokenizer: Any,
        scheduler: Any,
        scorer: torch.nn.Module,
        num_steps: int = 8,
        num_candidates: int = 10,
        guidance_scale: float = 1.0,
        initial_noise_scale: float = 1.0,
        likelihood_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_modules(
            encoder=encoder,
            denoiser=denoiser,
            latent_space=latent_space,
            tokenizer=tokenizer,
            scheduler=scheduler,
            scorer=scorer,
        )
        self.register_to_config(
            # Its name in every version of transformers, not the one in the installed version.
            tokenizer=("transformers", "PreTrainedTokenizerFast"),
            num_steps=num_steps,
            num_candidates=num_candidates,
            guidance_scale=guidance_scale,
            initial_noise_scale=initial_noise_scale,
            likelihood_weight=likelihood_weight,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        torch_dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        revision: str | None = None,
    ) -> DiffusionCaptioner:
        """Load a captioner: "builtin", a folder made by `save_pretrained`, or a Hub id.

        torch_dtype: "float32", "bfloat16" or "auto": bfloat16 where the device computes in it
        (accelerators, CPUs with AVX512-BF16 or AMX), which is two to three times as fast, else
        float32. The same seed gives the same captions on one kind of device in one dtype.
        Only safetensors and JSON are read. Raises CheckpointError, in one line that names the
        file, for a checkpoint that is missing, incomplete, damaged or of another kind.
        """
        target = torch.device(device or "cpu")
        dtype = _resolve_dtype(torch_dtype, target)
        components, settings = load_components(find_checkpoint(name, revision), dtype)
        captioner = cls(**components, **settings)
        captioner.to(target)
        return captioner

    @torch.inference_mode()
    def __call__(
        self,
        audio: AudioInput,
        sampling_rate: int | None = None,
        num_captions: int = 5,
        num_candidates: int | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 32,
        initial_noise_scale: float | None = None,
        callback: Callable[[CaptionStep], None] | None = None,
        progress: bool | None = None,
        on_result: Callable[[ClipCaptions], None] | None = None,
    ) -> ClipCaptions | list[ClipCaptions]:
        """Caption one recording, or a list or folder of them.

        audio: a path, an array with `sampling_rate`, or an (array, rate) pair gives ClipCaptions;
        a folder (searched recursively) or a list gives a list of them in order, in which a
        recording that failed has `error` set. Recordings longer than `encoder.window_seconds`
        are captioned window by window, and their best captions for the whole come first.

        num_captions: distinct captions per recording (fewer where the model has no more to say).
        num_candidates: drawn per window to choose from. num_steps: network calls per candidate,
        twice as many with a guidance_scale other than 1. seed: the same recording and seed give
        the same captions alone, in any batch and on every call. batch_size: windows encoded
        at a time. initial_noise_scale: below 1 for safer, less diverse captions.
        callback: called with a CaptionStep for every window and step. progress: a bar over the
        recordings; by default for more than one, on a terminal. on_result: called with every
        recording's result as soon as it is known, in order.

        Raises AudioError where a single recording cannot be captioned, ConfigError for settings
        that make no sense.
        """
        config = self.config
        settings = DrawSettings(
            num_captions=num_captions,
            num_candidates=_first(num_candidates, max(config.num_candidates, num_captions)),
            num_steps=_first(num_steps, config.num_steps),
            guidance_scale=_first(guidance_scale, config.guidance_scale),
            initial_noise_scale=_first(initial_noise_scale, config.initial_noise_scale),
            seed=seed,
            likelihood_weight=config.likelihood_weight,
        )
        settings.check(most_steps=self.scheduler.config.num_train_timesteps)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        sources, single = find_sources(audio, sampling_rate, self.encoder.sampling_rate)
        drawer = CandidateDrawer(self, settings, callback)
        show = progress if progress is not None else len(sources) > 1 and sys.stderr.isatty()
        results: list[ClipCaptions] = []
        with tqdm(total=len(sources), unit="clip", disable=not show) as bar:
            for chunk in self._chunks(decode_ahead(sources), batch_size):
                for result in self._caption_chunk(chunk, drawer):
                    results.append(result)
                    bar.update()
                    if on_result is not None:
                        on_result(result)
        if not single:
            return results
        if results[0].error is not None:
            raise AudioError(results[0].error)
        return results[0]

    def _chunks(
        self, recordings: Iterator[Recording], num_windows: int
    ) -> Iterator[list[Recording]]:
        """Groups of recordings with about `num_windows` windows each, so memory is bounded."""
        chunk: list[Recording] = []
        collected = 0
        for recording in recordings:
            chunk.append(recording)
            if recording.waveform is not None:
                collected += len(self._bounds(recording.waveform))
            if collected >= num_windows:
                yield chunk
                chunk, collected = [], 0
        if chunk:
            yield chunk

    def _caption_chunk(self, chunk: list[Recording], drawer: CandidateDrawer) -> list[ClipCaptions]:
        windows = [window for recording in chunk for window in self._windows(recording)]
        drawn = iter(drawer.draw(windows))
        results = []
        for recording in chunk:
            if recording.waveform is None:
                results.append(ClipCaptions(recording.file_name, 0.0, error=str(recording.error)))
                continue
            count = len(self._bounds(recording.waveform))
            results.append(self._assemble(recording, list(islice(drawn, count)), drawer))
        return results

    def _assemble(
        self, recording: Recording, drawn: list[Candidates], drawer: CandidateDrawer
    ) -> ClipCaptions:
        """The captions of every window, and the best of those against all of the audio."""
        assert recording.waveform is not None
        count = drawer.settings.num_captions
        rate = self.encoder.sampling_rate
        bounds = self._bounds(recording.waveform)
        lengths = torch.tensor([end - start for start, end in bounds], dtype=torch.float32)
        pooled = torch.stack([candidates.pooled for candidates in drawn])  # (windows, P)
        whole = (pooled * (lengths / lengths.sum())[:, None]).sum(dim=0)  # (P,)
        segments, texts, scores = [], [], []
        for (start, end), candidates in zip(bounds, drawn, strict=True):
            own_scores = drawer.score(candidates, candidates.pooled)
            captions = choose_captions(candidates.texts, own_scores, count)
            segments.append(Segment(start / rate, end / rate, captions))
            chosen = {caption.text for caption in captions}
            against_whole = drawer.score(candidates, whole)
            for text, score in zip(candidates.texts, against_whole, strict=True):
                if text in chosen:
                    texts.append(text)
                    scores.append(score)
        return ClipCaptions(
            file_name=recording.file_name,
            duration_seconds=len(recording.waveform) / rate,
            captions=choose_captions(texts, scores, count),
            candidates=tuple(text for candidates in drawn for text in candidates.texts),
            segments=tuple(segments),
        )

    def _windows(self, recording: Recording) -> list[Window]:
        waveform = recording.waveform
        if waveform is None:
            return []
        rate = self.encoder.sampling_rate
        return [
            Window(recording.file_name, start / rate, waveform[start:end])
            for start, end in self._bounds(waveform)
        ]

    def _bounds(self, waveform: np.ndarray) -> list[tuple[int, int]]:
        rate = self.encoder.sampling_rate
        return window_bounds(
            len(waveform),
            round(self.encoder.window_seconds * rate),
            round(MINIMUM_TAIL_SECONDS * rate),
        )


def _first(value: T | None, default: T) -> T:
    return default if value is None else value


def _resolve_dtype(torch_dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    slow = device.type == "cpu" and not _cpu_computes_in_bfloat16()
    names["auto"] = torch.float32 if slow else torch.bfloat16
    if isinstance(torch_dtype, torch.dtype):
        return torch_dtype
    if torch_dtype not in names:
        raise ConfigError(f"torch_dtype={torch_dtype!r}: must be one of {', '.join(sorted(names))}")
    return names[torch_dtype]


def _cpu_computes_in_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here; False where this torch (< 2.10) cannot say."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask is not None else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
