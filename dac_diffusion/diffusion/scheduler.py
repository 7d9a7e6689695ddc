"""The captioner's sampler, a diffusers scheduler over a NoiseSchedule."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor

from dac_diffusion.diffusion.schedule import NoiseSchedule

Generators = torch.Generator | list[torch.Generator] | None


class CaptionSchedulerOutput(NamedTuple):
    """The latents of the next noise level, and the estimate of the clean ones they lean on."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class CaptionScheduler(SchedulerMixin, ConfigMixin):
    """DDIM over a fitted noise schedule, made stochastic by `churn`.

    churn: how strongly every step renews the noise. Going down from log-NSR gamma_t to gamma_s, the
    share 1 - exp(-churn (gamma_t - gamma_s)) of the noise variance is drawn anew: 0 is DDIM
    (Song et al. 2021, eq. 12), 1 the ancestral sampler (eta = 1 in their eq. 16), infinity draws
    all of it anew, as LaDiC's code does ("renoise"). eta: DDIM's own parameter in its place, the
    share eta^2 (1 - exp(-(gamma_t - gamma_s))).

    stride: timesteps T - 1, T - 1 - stride, ... where num_inference_steps is their number,
    ceil(T / stride); DAC's "skip step to 60" is 17 calls at 999, 939, ..., 39. Other numbers of
    steps are spaced evenly.

    The config uses the names of the stock schedulers, so that
    `DDIMScheduler.from_config(scheduler.config)` samples the same schedule. `trained_betas` come
    from `CaptionScheduler.from_schedule`; without them it is NoiseSchedule.gumbel().
    """

    _compatibles: ClassVar[list[str]] = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        trained_betas: list[float] | None = None,
        prediction_type: str = "sample",
        clip_sample: bool = False,
        set_alpha_to_one: bool = True,
        timestep_spacing: str = "trailing",
        final_sigmas_type: str = "zero",
        churn: float = 0.0,
        renoise: bool = False,
        eta: float | None = None,
        stride: int | None = None,
    ) -> None:
        if prediction_type != "sample" or clip_sample:
            raise ValueError("CaptionScheduler takes clean-latent predictions and does not clip")
        if not churn >= 0.0:
            raise ValueError(f"churn must be at least 0, got {churn}")
        if eta is not None and not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must be from 0 to 1, got {eta}")
        if (churn > 0.0) + renoise + (eta is not None) > 1:
            raise ValueError("churn, renoise and eta exclude each other: set one of them")
        if stride is not None and not 1 <= stride <= num_train_timesteps:
            raise ValueError(f"stride must be 1 to {num_train_timesteps}, got {stride}")
        if trained_betas is None:
            trained_betas = NoiseSchedule.gumbel().betas(num_train_timesteps)
        # diffusers forgets constructor defaults when a config moves to another class, and another
        # class has other defaults: record every value as chosen.
        self.register_to_config(trained_betas=list(trained_betas), _use_default_values=[])
        self.betas = torch.tensor(trained_betas, dtype=torch.float32)  # (T,)
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)  # (T,)
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    @classmethod
    def from_schedule(
        cls,
        schedule: NoiseSchedule,
        churn: float = 0.0,
        num_train_timesteps: int = 1000,
        renoise: bool = False,
        eta: float | None = None,
        stride: int | None = None,
    ) -> CaptionScheduler:
        """The scheduler that samples a NoiseSchedule with steps equally spaced in its time."""
        return cls(
            num_train_timesteps=num_train_timesteps,
            trained_betas=schedule.betas(num_train_timesteps),
            churn=churn,
            renoise=renoise,
            eta=eta,
            stride=stride,
        )

    def set_timesteps(
        self, num_inference_steps: int, device: torch.device | str | None = None
    ) -> None:
        """Choose the N noise levels of a sampling run: times 1, (N-1)/N, ..., 1/N of the schedule.

        Or every `stride` timesteps, where that makes N.
        Raises ValueError for N < 1 or N above num_train_timesteps.
        """
        total = self.config.num_train_timesteps
        if not 1 <= num_inference_steps <= total:
            raise ValueError(f"num_inference_steps must be 1 to {total}, got {num_inference_steps}")
        stride = self.config.stride
        if stride is not None and num_inference_steps == math.ceil(total / stride):
            steps = np.arange(total - 1, -1, -stride)
        else:
            times = np.arange(num_inference_steps, 0, -1) / num_inference_steps
            steps = np.round(times * total).astype(np.int64) - 1
        self.num_inference_steps = num_inference_steps
        self._levels = [*steps.tolist(), -1]
        self.timesteps = torch.from_numpy(steps).to(device)  # (N,)

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The sample itself: the process is variance preserving."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents alpha x0 + sigma eps; `timesteps` (B,) go with the first dimension."""
        alpha_squared = self.alphas_cumprod.to(original_samples.device)[timesteps]
        shape = alpha_squared.shape + (1,) * (original_samples.ndim - alpha_squared.ndim)
        alpha = alpha_squared.sqrt().view(shape).to(original_samples.dtype)
        sigma = (1.0 - alpha_squared).sqrt().view(shape).to(original_samples.dtype)
        return alpha * original_samples + sigma * noise

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> CaptionSchedulerOutput | tuple[Tensor, ...]:
        """One step down, from the estimate of the clean latents `model_output` (B, ...).

        generator: one for the whole batch, or a list with one per item of dimension 0, in which
        case an item's noise does not depend on the others. The last step returns `model_output`.
        Raises ValueError before set_timesteps, or for a timestep that is not among them.
        """
        now, following = self._neighbours(int(timestep))
        if following < 0:
            previous = model_output
        else:
            previous = self._step_down(model_output, now, following, sample, generator)
        if not return_dict:
            return (previous, model_output)
        return CaptionSchedulerOutput(previous, model_output)

    def _step_down(
        self,
        clean: Tensor,
        now: int,
        following: int,
        sample: Tensor,
        generator: Generators,
    ) -> Tensor:
        # Scalars in double precision: near the clean end 1 - alpha^2 loses its digits in float32.
        alpha_now, sigma_now = self._alpha_sigma(now)
        alpha, sigma = self._alpha_sigma(following)
        noise = (sample - alpha_now * clean) / sigma_now
        log_nsr_drop = 2.0 * math.log(sigma_now / alpha_now) - 2.0 * math.log(sigma / alpha)
        renewed = self._renewed(log_nsr_drop)
        stepped = alpha * clean + sigma * math.sqrt(1.0 - renewed) * noise
        if renewed > 0.0:
            fresh = randn_per_item(sample.shape, generator, sample.device, sample.dtype)
            stepped = stepped + sigma * math.sqrt(renewed) * fresh
        return stepped

    def _renewed(self, log_nsr_drop: float) -> float:
        """The share of the noise variance that is drawn anew on a way down of this length."""
        config = self.config
        if config.renoise:
            return 1.0
        if config.eta is not None:
            return -math.expm1(-log_nsr_drop) * float(config.eta) ** 2
        return -math.expm1(-config.churn * log_nsr_drop) if config.churn else 0.0

    def _alpha_sigma(self, timestep: int) -> tuple[float, float]:
        alpha_squared = float(self.alphas_cumprod[timestep])
        return math.sqrt(alpha_squared), math.sqrt(1.0 - alpha_squared)

    def _neighbours(self, timestep: int) -> tuple[int, int]:
        """This timestep and the one after it in the run, -1 for the end."""
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step")
        if timestep not in self._levels[:-1]:
            raise ValueError(f"timestep {timestep} is not one of this run's: {self._levels[:-1]}")
        return timestep, self._levels[self._levels.index(timestep) + 1]

    def __len__(self) -> int:
        """The number of timesteps the schedule is cut into."""
        return int(self.config.num_train_timesteps)


def log_nsr_at(scheduler: Any, timestep: int | float | Tensor) -> float:
    """Log noise-to-signal ratio at a timestep of any scheduler with `alphas_cumprod`.

    Some stock schedulers use timesteps between the whole numbers: interpolated.
    """
    table = scheduler.alphas_cumprod
    position = min(max(float(timestep), 0.0), len(table) - 1.0)
    low = math.floor(position)
    high = min(low + 1, len(table) - 1)
    ends = [math.log1p(-float(table[i])) - math.log(float(table[i])) for i in (low, high)]
    return ends[0] + (position - low) * (ends[1] - ends[0])


def randn_per_item(
    shape: torch.Size | tuple[int, ...],
    generator: Generators,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gaussian noise; with a list of generators, each item of dimension 0 from its own.

    It is drawn in float32 on the generators' device, so the same seed gives the same noise on
    every device and in every precision. Raises ValueError where the list does not fit the shape.
    """
    if not isinstance(generator, list):
        source = generator.device if generator is not None else device
        return torch.randn(tuple(shape), generator=generator, device=source).to(device, dtype)
    if len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} items")
    items = [torch.randn(tuple(shape[1:]), generator=g, device=g.device) for g in generator]
    return torch.stack(items).to(device, dtype)
