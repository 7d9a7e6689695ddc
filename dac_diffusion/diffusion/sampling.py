"""From noise to token ids in a few steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.diffusion.denoiser import AudioMemory, CaptionDenoiser
from dac_diffusion.diffusion.scheduler import log_nsr_at, randn_per_item
from dac_diffusion.text.latent_space import LatentSpace

Callback = Callable[[int, int, Tensor], None]


@torch.no_grad()
def sample_latents(
    denoiser: CaptionDenoiser,
    space: LatentSpace,
    scheduler: Any,
    memory: AudioMemory,
    num_captions: int,
    length: int,
    generators: Sequence[torch.Generator],
    num_steps: int,
    guidance_scale: float = 1.0,
    initial_noise_scale: float = 1.0,
    callback: Callback | None = None,
    never_first: Sequence[int] = (),
) -> Tensor:
    """Sample K captions for each of the B clips of `memory`; token ids (B, K, L).

    generators: one per clip, so a clip's captions do not depend on its batch. num_steps: network
    calls, each at a lower noise level; the last one's logits name the tokens. guidance_scale w
    other than 1 combines network outputs as w cond + (1 - w) null and doubles the calls.
    initial_noise_scale below 1 trades diversity for quality (CDCD, Dieleman et al. 2022).
    callback(step, num_steps, ids) sees the captions as they stand after every call.
    never_first: token ids that no caption may begin with, so that none is empty.
    Raises ValueError for a wrong number of generators or steps.
    """
    clips = len(memory)
    device, dtype = memory.condition.device, denoiser.dtype
    shape = (clips, num_captions, length, space.latent_dim)
    noise = randn_per_item(shape, list(generators), device, torch.float32)
    null = denoiser.null_memory(clips) if guidance_scale != 1.0 else None
    scheduler.set_timesteps(num_steps, device=device)
    step_arguments = _step_arguments(scheduler, generators)
    latents = noise * (initial_noise_scale * float(scheduler.init_noise_sigma))
    estimate: Tensor | None = None
    timesteps = scheduler.timesteps
    ids = torch.empty(0)
    for index, timestep in enumerate(timesteps):
        last = index == len(timesteps) - 1
        noisy = scheduler.scale_model_input(latents, timestep)
        log_nsr = torch.full((clips, num_captions), log_nsr_at(scheduler, timestep), device=device)
        output = denoiser(noisy.to(dtype), log_nsr, _cast(estimate, dtype), memory)
        if null is not None:
            unconditional = denoiser(noisy.to(dtype), log_nsr, _cast(estimate, dtype), null)
            output = guidance_scale * output + (1.0 - guidance_scale) * unconditional
        read = last or callback is not None
        prediction = space.predict(output, noisy, log_nsr, with_logits=read)
        if read:
            assert prediction.logits is not None
            if never_first:
                prediction.logits[..., 0, list(never_first)] = -torch.inf
            ids = prediction.logits.argmax(dim=-1)  # (B, K, L)
        if callback is not None:
            callback(index, len(timesteps), ids)
        if not last:
            estimate = prediction.latents.float()
            latents = scheduler.step(
                estimate, timestep, latents, **step_arguments, return_dict=False
            )[0]
    return ids


def _step_arguments(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """The generators, if this scheduler's step takes any."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": list(generators)}


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
