"""What the denoiser is trained to do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dac_diffusion.diffusion.audio_conditioning import AudioConditionedDenoiser, AudioMemory
from dac_diffusion.diffusion.schedule import (
    NoiseSchedule,
    stratified_times,
)
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.latent_space import LatentSpace, position_weights, signal_and_noise


@dataclass(frozen=True)
class ObjectiveConfig:
    """Settings of `denoising_loss`.

    self_condition_probability: share of the clips that see an estimate of their clean latents;
    noisier_self_condition_probability: share of those whose estimate is made at a noisier level
    than the example's own, as it is in sampling; condition_dropout: share of the clips trained
    without audio, for guidance; pad_weight: weight of the padding positions in the losses.
    """

    self_condition_probability: float = 0.5
    noisier_self_condition_probability: float = 0.5
    condition_dropout: float = 0.1
    pad_weight: float = 0.5


@dataclass(frozen=True)
class ObjectiveResult:
    """loss: the scalar to minimise; terms: its parts, without gradient; log_nsr and per_example:
    (B K,) noise level and cross-entropy of every example, for NoiseSchedule.fit."""

    loss: Tensor
    terms: dict[str, Tensor]
    log_nsr: Tensor
    per_example: Tensor


def denoising_loss(
    denoiser: AudioConditionedDenoiser,
    space: LatentSpace,
    schedule: NoiseSchedule,
    token_ids: Tensor,
    audio: AudioFeatures,
    config: ObjectiveConfig,
    generator: torch.Generator,
    pad_id: int,
) -> ObjectiveResult:
    """The training loss of a batch of B clips with K captions each.

    token_ids: (B, K, L). Noise levels are stratified over the B K examples (Kingma et al. 2021,
    appendix I.1). All randomness but dropout comes from `generator`.
    """
    clips, captions, _ = token_ids.shape
    device = token_ids.device
    clean = space.encode(token_ids)  # (B, K, L, D)
    times = stratified_times(clips * captions, generator).to(device).view(clips, captions)
    log_nsr = schedule.log_nsr(times)  # (B, K)
    noisy = _add_noise(clean, log_nsr, generator)
    drop = _rand((clips,), generator, device) < config.condition_dropout
    memory = denoiser.prepare_audio(audio, drop)
    estimate = _self_condition(
        denoiser, space, schedule, noisy.detach(), times, memory, config, generator
    )
    output = denoiser(noisy, log_nsr, estimate, memory)
    prediction = space.predict(output, noisy, log_nsr)
    weights = position_weights(token_ids, pad_id, config.pad_weight)  # (B, K, L)
    losses = space.losses(prediction, token_ids, clean, weights, generator)  # each (B, K)
    terms = {name: values.mean() for name, values in losses.items()}
    loss = torch.stack([space.loss_weights[name] * term for name, term in terms.items()]).sum()
    return ObjectiveResult(
        loss=loss,
        terms={name: term.detach() for name, term in terms.items()},
        log_nsr=log_nsr.flatten(),
        per_example=losses["cross_entropy"].detach().flatten(),
    )


@torch.no_grad()
def _self_condition(
    denoiser: AudioConditionedDenoiser,
    space: LatentSpace,
    schedule: NoiseSchedule,
    noisy: Tensor,
    times: Tensor,
    memory: AudioMemory,
    config: ObjectiveConfig,
    generator: torch.Generator,
) -> Tensor | None:
    """Estimates of the clean latents for some of the clips, zeros for the others: (B, K, L, D).

    The estimate of an example comes from its own noisy latents (Chen et al. 2022, "Analog bits")
    or from the same latents with still more noise, drawn from the forward process, so that it
    knows nothing about the clean ones that the example's own latents do not tell.
    """
    chosen = _choose(len(noisy), config.self_condition_probability, generator).to(noisy.device)
    if len(chosen) == 0:
        return None
    some, some_times = noisy[chosen], times[chosen]  # (C, K, L, D), (C, K)
    log_nsr = schedule.log_nsr(some_times)
    jitter = _rand(some_times.shape, generator, noisy.device)
    noisier = _rand((len(chosen), 1), generator, noisy.device)
    noisier = noisier < config.noisier_self_condition_probability  # (C, 1)
    later = torch.where(noisier, some_times + (1.0 - some_times) * jitter, some_times)
    later_nsr = schedule.log_nsr(later)
    some = _more_noise(some, log_nsr, later_nsr, generator)
    # A cast cached here would have no gradient when the training pass finds it in the cache.
    device_type = noisy.device.type
    with torch.autocast(
        device_type,
        enabled=torch.is_autocast_enabled(device_type),
        dtype=torch.get_autocast_dtype(device_type),
        cache_enabled=False,
    ):
        output = denoiser(some, later_nsr, None, memory.select(chosen))
    prediction = space.predict(output, some, later_nsr, with_logits=False)
    estimate = torch.zeros_like(noisy)
    estimate[chosen] = prediction.latents.to(noisy.dtype)
    return estimate


def _add_noise(clean: Tensor, log_nsr: Tensor, generator: torch.Generator) -> Tensor:
    """alpha x0 + sigma eps: clean (..., L, D), log_nsr (...,)."""
    alpha, sigma = signal_and_noise(log_nsr[..., None, None])
    return alpha * clean + sigma * _randn_like(clean, generator)


def _more_noise(
    noisy: Tensor, log_nsr: Tensor, later_nsr: Tensor, generator: torch.Generator
) -> Tensor:
    """Noisy latents carried on by the forward process from one log-NSR to a higher one."""
    alpha, sigma = signal_and_noise(log_nsr[..., None, None])
    later_alpha, later_sigma = signal_and_noise(later_nsr[..., None, None])
    kept = later_alpha / alpha
    added = (later_sigma.square() - (kept * sigma).square()).clamp(min=0.0).sqrt()
    return kept * noisy + added * _randn_like(noisy, generator)


def _choose(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which of `count` clips: round(probability * count) of them, rounded at random."""
    order = torch.randperm(count, generator=generator, device=generator.device)
    extra = torch.rand((), generator=generator, device=generator.device)
    return order[: int(probability * count + float(extra))]


def _rand(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def _randn_like(reference: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(reference.shape, generator=generator, device=generator.device)
    return noise.to(reference.device, reference.dtype)
