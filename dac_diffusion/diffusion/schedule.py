"""Noise schedules as tables of log noise-to-signal ratios (log-NSR).

Everything is variance preserving. With gamma the log-NSR, a noisy latent is
alpha x0 + sigma eps where alpha^2 = sigmoid(-gamma) and sigma^2 = sigmoid(gamma)
(Kingma et al. 2021, "Variational diffusion models", section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# The ends of the analytic schedules: their exact quantiles at 0 and 1 are infinite.
_TAIL = 1e-3
_TABLE_SIZE = 257


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """`count` times in [0, 1), one in every interval of length 1/count, shuffled: (count,)."""
    device = generator.device
    # Apple's GPUs have no double precision.
    exact = torch.float32 if device.type == "mps" else torch.float64
    jitter = torch.rand(count, generator=generator, device=device, dtype=exact)
    order = torch.randperm(count, generator=generator, device=device)
    times = (order + jitter) / count
    return times.clamp(max=1.0 - 1e-9).to(torch.float32)


class NoiseSchedule:
    """Log-NSR as a function of time: gamma(u) for u in [0, 1], increasing, linear in a table.

    Equal steps of u get equal shares of training and of sampling steps, so the slope of the table
    says where the effort goes. `quantiles` are the values at equally spaced u.
    """

    def __init__(self, quantiles: Sequence[float] | np.ndarray) -> None:
        table = np.asarray(quantiles, dtype=np.float64)
        if table.ndim != 1 or len(table) < 2:
            raise ValueError("a noise schedule needs a list of at least two log-NSR values")
        if not np.isfinite(table).all() or not (np.diff(table) > 0).all():
            raise ValueError("the log-NSR values of a noise schedule must be finite and increasing")
        self.quantiles = table  # (Q,)

    @classmethod
    def gumbel(cls, location: float = 3.0, scale: float = 1.0) -> NoiseSchedule:
        """Gumbel-distributed log-NSR: few clean steps, a long tail of very noisy ones."""
        return cls._from_quantile_function(lambda u: location - scale * np.log(-np.log(u)))

    @classmethod
    def tangent(cls, distortion: float = 7.0) -> NoiseSchedule:
        """The tan-d schedule: sigma/alpha = d tan(pi u / 2) (TEncDM, Shabalin et al. 2024)."""
        return cls._from_quantile_function(
            lambda u: 2.0 * np.log(distortion * np.tan(math.pi * u / 2.0))
        )

    @classmethod
    def linear(
        cls, timesteps: int = 1000, first: float = 1e-4, last: float = 0.02
    ) -> NoiseSchedule:
        """Betas from `first` to `last` over T timesteps (DDPM, Ho et al. 2020, section 4)."""
        return cls.from_alphas_cumprod(np.cumprod(1.0 - np.linspace(first, last, timesteps)))

    @classmethod
    def cosine(cls, timesteps: int = 1000, offset: float = 0.008) -> NoiseSchedule:
        """alpha^2 along a squared cosine, betas at most .999 (Nichol and Dhariwal 2021, eq. 17)."""
        times = np.arange(timesteps + 1) / timesteps
        curve = np.cos((times + offset) / (1.0 + offset) * math.pi / 2.0) ** 2
        betas = np.minimum(1.0 - curve[1:] / curve[:-1], 0.999)
        return cls.from_alphas_cumprod(np.cumprod(1.0 - betas))

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Sequence[float] | np.ndarray) -> NoiseSchedule:
        """The schedule of T discrete timesteps with these alpha^2, carried on between them.

        Timestep i (from 0) is at time (i + 1) / T; what lies before the first one goes on straight.
        """
        alpha_squared = np.asarray(alphas_cumprod, dtype=np.float64)
        levels = np.log1p(-alpha_squared) - np.log(alpha_squared)  # (T,)
        return cls(np.concatenate([[2.0 * levels[0] - levels[1]], levels]))

    def with_more_noise(self, variance_factor: float) -> NoiseSchedule:
        """The same schedule with the noise's variance multiplied (LaDiC's code trains with 4)."""
        return NoiseSchedule(self.quantiles + math.log(variance_factor))

    @classmethod
    def _from_quantile_function(cls, function: Callable[[np.ndarray], np.ndarray]) -> NoiseSchedule:
        return cls(function(np.linspace(0.0, 1.0, _TABLE_SIZE).clip(_TAIL, 1.0 - _TAIL)))

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest log-NSR."""
        return float(self.quantiles[0]), float(self.quantiles[-1])

    def log_nsr(self, times: Tensor) -> Tensor:
        """Log-NSR at times in [0, 1]; float32, shape and device as the input's."""
        table = torch.as_tensor(self.quantiles, device=times.device)  # (Q,)
        position = times.to(table.dtype).clamp(0.0, 1.0) * (len(table) - 1)
        low = position.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[low], table[low + 1], position - low).to(torch.float32)

    def time(self, log_nsr: Tensor) -> Tensor:
        """The inverse of `log_nsr`, clamped to [0, 1]: where a noise level lies in the schedule."""
        grid = np.linspace(0.0, 1.0, len(self.quantiles))
        values = np.interp(log_nsr.detach().cpu().double().numpy(), self.quantiles, grid)
        return torch.as_tensor(values, dtype=torch.float32).to(log_nsr.device)

    def alphas_cumprod(self, num_timesteps: int) -> np.ndarray:
        """alpha^2 (float64) at times 1/T, 2/T, ..., 1: what discrete schedulers call a timestep."""
        times = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        grid = np.linspace(0.0, 1.0, len(self.quantiles))
        return 1.0 / (1.0 + np.exp(np.interp(times.numpy(), grid, self.quantiles)))

    def betas(self, num_timesteps: int) -> list[float]:
        """The betas whose running product of (1 - beta) is `alphas_cumprod`, for stock schedulers.

        Schedulers keep betas in float32 and multiply them up. Every beta here is computed against
        the product of the *rounded* ones before it, so rounding errors do not add up.
        """
        # The least beta for which 1 - beta differs from 1 in float32.
        smallest, largest = 2.0**-24, 1.0 - 2.0**-24
        betas, product = [], 1.0
        for target in self.alphas_cumprod(num_timesteps):
            beta = np.float32(np.clip(1.0 - target / product, smallest, largest))
            product *= float(np.float32(1.0) - beta)
            betas.append(float(beta))
        return betas

    def fit(
        self,
        log_nsr: Tensor,
        losses: Tensor,
        *,
        keep: float = 0.1,
        uniform: float = 0.05,
        bins: int = 64,
    ) -> NoiseSchedule:
        """The schedule whose density follows the slope of the loss over log-NSR.

        log_nsr, losses: (N,) noise levels of recent training examples and their cross-entropy. The
        expected loss is fitted by isotonic regression over equally filled bins; its increase is the
        new cumulative distribution (CDCD "time warping", Dieleman et al. 2022, section 3.3).
        `uniform` of the mass is spread over the whole range, so that no level goes unobserved,
        and `keep` of the old schedule stays. The range itself does not change.
        """
        low, high = self.limits
        levels = log_nsr.detach().flatten().cpu().double().numpy()
        values = losses.detach().flatten().cpu().double().numpy()
        usable = np.isfinite(levels) & np.isfinite(values)
        centres, means, counts = _bin_means(levels[usable], values[usable], bins)
        if len(centres) < 3:
            return self
        fitted = _isotonic(means, counts)
        if fitted[-1] - fitted[0] <= 0.0:
            return self
        # Linear between the bins' centres, flat outside them.
        grid = np.union1d(np.linspace(low, high, 1025), self.quantiles)
        slope_cdf = (np.interp(grid, centres, fitted) - fitted[0]) / (fitted[-1] - fitted[0])
        old_cdf = np.interp(grid, self.quantiles, np.linspace(0.0, 1.0, len(self.quantiles)))
        even_cdf = (grid - low) / (high - low)
        cdf = (1.0 - uniform) * slope_cdf + uniform * even_cdf
        cdf = (1.0 - keep) * cdf + keep * old_cdf
        cdf[0], cdf[-1] = 0.0, 1.0
        return NoiseSchedule(np.interp(np.linspace(0.0, 1.0, len(self.quantiles)), cdf, grid))

    def state(self) -> list[float]:
        """The table, for a checkpoint."""
        return self.quantiles.tolist()

    @classmethod
    def from_state(cls, state: Sequence[float]) -> NoiseSchedule:
        """The schedule that `state` was taken from."""
        return cls(state)


def _bin_means(
    levels: np.ndarray, values: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean level, mean value and size of equally filled bins of neighbouring levels."""
    order = np.argsort(levels, kind="stable")
    # At least eight examples a bin: fewer would make steps out of noise.
    groups = np.array_split(order, max(1, min(bins, len(order) // 8)))
    groups = [group for group in groups if len(group)]
    centres = np.array([levels[group].mean() for group in groups])
    means = np.array([values[group].mean() for group in groups])
    counts = np.array([float(len(group)) for group in groups])
    # np.interp needs increasing centres: bins of one and the same level become one.
    distinct, inverse = np.unique(centres, return_inverse=True)
    weights = np.bincount(inverse, weights=counts)
    return distinct, np.bincount(inverse, weights=means * counts) / weights, weights


def _isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The closest non-decreasing sequence in weighted least squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append((float(value), float(weight), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, length = blocks.pop()
            mean_before, total_before, length_before = blocks.pop()
            merged = total + total_before
            pooled = (mean * total + mean_before * total_before) / merged
            blocks.append((pooled, merged, length + length_before))
    return np.concatenate([np.full(length, mean) for mean, _, length in blocks])
