"""The public class: recordings in, several different captions each out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from dac_diffusion.captioning.defaults import given_or, ranking_of_call
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.inputs import AudioInput
from dac_diffusion.captioning.pipelines import load_pipeline
from dac_diffusion.captioning.recordings import CallSettings, caption_recordings
from dac_diffusion.captioning.results import (
    Caption,
    CaptionStep,
    ClipCaptions,
    ScoreParts,
    Segment,
)
from dac_diffusion.captioning.scoring import Ranker
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.detectors import RULES
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.hybrid import Normalisation

__all__ = ["Caption", "CaptionStep", "ClipCaptions", "DiffusionCaptioner", "ScoreParts", "Segment"]

COMPONENTS = ("encoder", "denoiser", "latent_space", "tokenizer", "scheduler", "scorer")


class DiffusionCaptioner(DiffusionPipeline):
    """Captions recordings by diffusion over caption latents; a diffusers pipeline.

    The components are attributes and can be replaced, `captioner.scheduler` also by the stock
    DDIMScheduler and DPMSolverMultistepScheduler (`from_config(captioner.scheduler.config)`).
    The settings from num_steps on are the defaults of a call; they are kept in model_index.json.

    A caption's score is the weighted sum of three parts (ranking/): the cosine of audio and text,
    the denoiser's log-likelihood of the caption (diffusion/likelihood.py), and its agreement with
    the other candidates. A likelihood_weight other than 0 costs three network calls and needs a
    latent space that can encode; agreement costs nothing.
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
        audio_text_weight: float = 1.0,
        agreement_weight: float = 0.0,
        score_normalisation: Normalisation = "none",
        error_threshold: float | None = None,
        error_detector: str = RULES,
        error_encoder: str | None = None,
        redundancy_weight: float = 0.0,
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
            audio_text_weight=audio_text_weight,
            agreement_weight=agreement_weight,
            score_normalisation=score_normalisation,
            error_threshold=error_threshold,
            error_detector=error_detector,
            error_encoder=error_encoder,
            redundancy_weight=redundancy_weight,
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
        audio_text_weight: float | None = None,
        likelihood_weight: float | None = None,
        agreement_weight: float | None = None,
        score_normalisation: Normalisation | None = None,
        error_threshold: float | None = None,
        error_detector: ErrorDetector | None = None,
        redundancy_weight: float | None = None,
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

        audio_text_weight, likelihood_weight, agreement_weight, score_normalisation ("none" or
        "z_score", over the candidates of a window): the score, see ranking/hybrid.py; every
        caption's `parts` say what it is made of. error_threshold: candidates whose probability of
        an error of language is above it come last (1: off), and more are drawn where too few
        are left, unless all are above it. error_detector: what finds that
        probability (ranking/error_filter.py), by default what the checkpoint's error_detector and
        error_encoder name (ranking/detectors.py), the rules of ranking/rule_based_errors.py if
        nothing else.

        redundancy_weight: above 0, captions after the first are chosen to differ from those before
        them, at this price in score for a full likeness (captioning/selection.py).

        callback: called with a CaptionStep for every window and step. progress: a bar over the
        recordings; by default for more than one, on a terminal. on_result: called with every
        recording's result as soon as it is known, in order.

        Raises AudioError where a single recording cannot be captioned, ConfigError for settings
        that make no sense.
        """
        config = self.config
        ranking = ranking_of_call(
            config,
            audio_text_weight,
            likelihood_weight,
            agreement_weight,
            score_normalisation,
            error_threshold,
            error_detector,
            redundancy_weight,
            self.device,
        )
        settings = DrawSettings(
            num_captions=num_captions,
            num_candidates=given_or(num_candidates, max(config.num_candidates, num_captions)),
            num_steps=given_or(num_steps, config.num_steps),
            guidance_scale=given_or(guidance_scale, config.guidance_scale),
            initial_noise_scale=given_or(initial_noise_scale, config.initial_noise_scale),
            seed=seed,
            with_likelihood=ranking.weights.likelihood != 0,
            refined_share=given_or(refined_share, config.refined_share),
            collapse_repeats=given_or(collapse_repeats, config.collapse_repeats),
        )
        settings.check(most_steps=self.scheduler.config.num_train_timesteps)
        if settings.with_likelihood:
            self._check_likelihood(ranking.weights.likelihood)
        drawer = CandidateDrawer(self, settings, callback, ranking)
        call = CallSettings(num_captions, batch_size, progress, on_result)
        ranker = Ranker(self.scorer, ranking)
        return caption_recordings(audio, sampling_rate, self.encoder, drawer, ranker, call)

    def _check_likelihood(self, weight: float) -> None:
        """Raise ConfigError where the latent space cannot encode captions."""
        end = torch.tensor([[self.tokenizer.eos_token_id]], device=self.device)  # (1, 1)
        try:
            self.latent_space.encode(end)
        except ConfigError as error:
            raise ConfigError(
                f"likelihood_weight={weight}: the latent space of this captioner "
                f"({type(self.latent_space).__name__}) cannot encode captions without the text "
                "encoder it was trained with, so they have no likelihood; set likelihood_weight=0 "
                "and rank by agreement_weight (for instance 2) instead"
            ) from error
