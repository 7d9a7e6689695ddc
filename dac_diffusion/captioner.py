"""The public class: recordings in, several different captions each out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from dac_diffusion.captioning.defaults import given_or
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.inputs import AudioInput
from dac_diffusion.captioning.pipelines import load_pipeline
from dac_diffusion.captioning.recordings import CallSettings, caption_recordings
from dac_diffusion.captioning.results import Caption, CaptionStep, ClipCaptions, Segment

__all__ = ["Caption", "CaptionStep", "ClipCaptions", "DiffusionCaptioner", "Segment"]

COMPONENTS = ("encoder", "denoiser", "latent_space", "tokenizer", "scheduler", "scorer")


class DiffusionCaptioner(DiffusionPipeline):
    """Captions recordings by diffusion over caption latents; a diffusers pipeline.

    The components are attributes and can be replaced, `captioner.scheduler` also by the stock
    DDIMScheduler and DPMSolverMultistepScheduler (`from_config(captioner.scheduler.config)`).
    num_steps, num_candidates, guidance_scale, initial_noise_scale, refined_share and
    collapse_repeats are the defaults of a call; they are kept in model_index.json. So is
    likelihood_weight: a caption's score is the cosine of audio and text plus this weight times the
    denoiser's log-likelihood of the caption, which costs three network calls
    (diffusion/likelihood.py) and needs a latent space that can encode.
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
        refined_share: float = 0.0,
        collapse_repeats: bool = False,
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
            refined_share=refined_share,
            collapse_repeats=collapse_repeats,
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
        return load_pipeline(cls, COMPONENTS, name, torch_dtype, device, revision)

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
        refined_share: float | None = None,
        collapse_repeats: bool | None = None,
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
        the same captions alone, in any batch and on every call; every recording has noise of its
        own (captioning/randomness.py). batch_size: windows encoded at a time.
        initial_noise_scale: below 1 for safer, less diverse captions. refined_share: this share of
        the words, the least certain ones, is drawn a second time, at twice the calls
        (diffusion/sampling.py). collapse_repeats: a word twice in a row is written once, and
        `repeats_removed` of the result says how many were taken out.
        callback: called with a CaptionStep for every window and step. progress: a bar over the
        recordings; by default for more than one, on a terminal. on_result: called with every
        recording's result as soon as it is known, in order.

        Raises AudioError where a single recording cannot be captioned, ConfigError for settings
        that make no sense.
        """
        config = self.config
        settings = DrawSettings(
            num_captions=num_captions,
            num_candidates=given_or(num_candidates, max(config.num_candidates, num_captions)),
            num_steps=given_or(num_steps, config.num_steps),
            guidance_scale=given_or(guidance_scale, config.guidance_scale),
            initial_noise_scale=given_or(initial_noise_scale, config.initial_noise_scale),
            seed=seed,
            likelihood_weight=config.likelihood_weight,
            refined_share=given_or(refined_share, config.refined_share),
            collapse_repeats=given_or(collapse_repeats, config.collapse_repeats),
        )
        settings.check(most_steps=self.scheduler.config.num_train_timesteps)
        drawer = CandidateDrawer(self, settings, callback)
        call = CallSettings(num_captions, batch_size, progress, on_result)
        return caption_recordings(audio, sampling_rate, self.encoder, drawer, call)
