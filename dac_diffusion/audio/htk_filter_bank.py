"""Mel bands as in the HTK Book and torchaudio."""

from __future__ import annotations

import numpy as np

from dac_diffusion.errors import ConfigError


def htk_filter_bank(
    sampling_rate: int, fft_size: int, num_mels: int, f_min: float, f_max: float
) -> np.ndarray:
    """Triangular filters of height 1, evenly spaced on the mel scale 2595 log10(1 + f / 700).

    Returns float64 (fft_size // 2 + 1, num_mels). Raises ConfigError for frequencies beyond
    Nyquist or bands without an FFT bin. Source: the HTK Book, 5.4.
    """
    if not 0 <= f_min < f_max <= sampling_rate / 2:
        raise ConfigError(
            f"mel bands from {f_min} to {f_max} Hz do not fit a sampling rate of {sampling_rate} "
            f"Hz; need 0 <= f_min < f_max <= {sampling_rate / 2}"
        )
    low_mel, high_mel = (2595 * np.log10(1 + f / 700) for f in (f_min, f_max))
    mels = np.linspace(low_mel, high_mel, num_mels + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)  # (num_mels + 2,) in Hz
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    bins = np.linspace(0, sampling_rate / 2, fft_size // 2 + 1)[:, None]  # (bins, 1) in Hz
    bank = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clip(min=0)
    if empty := int((bank.max(axis=0) == 0).sum()):
        raise ConfigError(
            f"{empty} of {num_mels} mel bands hold no FFT bin; lower num_mels or raise fft_size"
        )
    return np.asarray(bank)
