"""From noise to token ids in a few steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.scheduler import log_nsr_at, randn_per_item
from dac_diffusion.text.latent_space import LatentSpace

Callback = Callable[[int, int, Tensor], None]


@torch.no_grad()
def sample_latents(
    denoiser: AudioConditionedDenoiser,
    space: LatentSpace,
    scheduler: Any,
    memory: AudioMemory,
    num_captions: int,
    length: int,
    generators: Sequence[torch.Generator],
    num_steps: int,
    guidance_scale: float = 1.0,
    initial_noise_scale: float = 1.0,
    refined_share: float = 0.0,
    callback: Callback | None = None,
    never_first: Sequence[int] = (),
    first_word: int = 0,
) -> Tensor:
    """Sample K captions for each of the B clips of `memory`; token ids (B, K, L).

    generators: one per clip, so a clip's captions do not depend on its batch. num_steps: network
    calls, each at a lower noise level; the last one's logits name the tokens. guidance_scale w
    other than 1 combines network outputs as w cond + (1 - w) null and doubles the calls.
    initial_noise_scale below 1 trades diversity for quality (CDCD, Dieleman et al. 2022).
    refined_share: this share of the positions, the least certain ones, is drawn again from noise
    beside the others, which doubles the calls (LaDiC's Back&Refine, with .5; 0: not at all).
    callback(step, num_steps, ids) sees the captions as they stand after every call.
    never_first: token ids that may not stand at the position `first_word`, so that none is empty.
    Raises ValueError for a wrong number of generators or steps.
    """
    clips = len(memory)
    device = memory.condition.device
    shape = (clips, num_captions, length, space.latent_dim)
    noise = randn_per_item(shape, list(generators), device, torch.float32)
    null = denoiser.null_memory(clips) if guidance_scale != 1.0 else None
    scheduler.set_timesteps(num_steps, device=device)
    scale = initial_noise_scale * float(scheduler.init_noise_sigma)
    calls = len(scheduler.timesteps) * (2 if refined_share > 0.0 else 1)
    run = _Run(
        denoiser,
        space,
        scheduler,
        memory,
        null,
        guidance_scale,
        _step_arguments(scheduler, generators),
        callback,
        calls,
        (first_word, list(never_first)),
    )
    ids, latents, confidence = run(scale * noise, 0)
    if refined_share > 0.0:
        fresh = scale * randn_per_item(shape, list(generators), device, torch.float32)
        again = _least(confidence, refined_share)  # (B, K, L)
        scheduler.set_timesteps(num_steps, device=device)  # some keep count of their steps
        ids, _, _ = run(torch.where(again[..., None], fresh, latents), calls // 2)
    return ids


@dataclass(frozen=True)
class _Run:
    """One way down the noise levels; calls: of all runs, for the callback."""

    denoiser: AudioConditionedDenoiser
    space: LatentSpace
    scheduler: Any
    memory: AudioMemory
    null: AudioMemory | None
    guidance_scale: float
    step_arguments: dict[str, Any]
    callback: Callback | None
    calls: int
    never_at: tuple[int, list[int]]

    def __call__(self, latents: Tensor, done: int) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids (B, K, L), clean latents (B, K, L, D), and how sure each token is (B, K, L)."""
        estimate: Tensor | None = None
        timesteps = self.scheduler.timesteps
        ids = confidence = torch.empty(0)
        for index, timestep in enumerate(timesteps):
            last = index == len(timesteps) - 1
            noisy = self.scheduler.scale_model_input(latents, timestep)
            log_nsr = torch.full(
                noisy.shape[:2], log_nsr_at(self.scheduler, timestep), device=noisy.device
            )  # (B, K)
            output = self._network(noisy, log_nsr, estimate)
            read = last or self.callback is not None
            prediction = self.space.predict(output, noisy, log_nsr, with_logits=read)
            estimate = prediction.latents.float()
            if prediction.logits is not None:
                ids, confidence = self._tokens(prediction.logits)
            if self.callback is not None:
                self.callback(done + index, self.calls, ids)
            if not last:
                latents = self.scheduler.step(
                    estimate, timestep, latents, **self.step_arguments, return_dict=False
                )[0]
        assert estimate is not None
        return ids, estimate, confidence

    def _network(self, noisy: Tensor, log_nsr: Tensor, estimate: Tensor | None) -> Tensor:
        dtype = self.denoiser.dtype
        estimate = None if estimate is None else estimate.to(dtype)
        output: Tensor = self.denoiser(noisy.to(dtype), log_nsr, estimate, self.memory)
        if self.null is None:
            return output
        unconditional = self.denoiser(noisy.to(dtype), log_nsr, estimate, self.null)
        return self.guidance_scale * output + (1.0 - self.guidance_scale) * unconditional

    def _tokens(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest tokens of logits (B, K, L, V) and their probabilities, (B, K, L) each."""
        position, never = self.never_at
        if never:
            logits[..., position, never] = -torch.inf
        best, ids = logits.max(dim=-1)
        return ids, (best - logits.logsumexp(dim=-1)).exp()


def _least(confidence: Tensor, share: float) -> Tensor:
    """True at the least certain `share` of the positions of every caption, (B, K, L) bool."""
    length = confidence.shape[-1]
    order = confidence.argsort(dim=-1, stable=True).argsort(dim=-1)  # the rank of each position
    return order < round(share * length)


def _step_arguments(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """The generators, if this scheduler's step takes any."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": list(generators)}
