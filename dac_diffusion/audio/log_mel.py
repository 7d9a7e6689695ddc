"""The log-mel spectrogram that the audio encoder trained here takes."""

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.audio.front_end import FrontEnd, hann_window
from dac_diffusion.errors import ConfigError

LOG_FLOOR = 1e-5  # added to the power, so that digital silence is log(1e-5) = -11.5

# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above.
LINEAR_HZ_PER_MEL = 200 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27  # 27 mels from 1 kHz to 6.4 kHz


class LogMel(FrontEnd):
    """Waveform (B, T) in [-1, 1] to log-mel (B, frames, num_mels), frames = 1 + T // hop_length.

    The natural logarithm of LOG_FLOOR + the power spectrogram of centred, zero-padded,
    Hann-windowed frames, summed by `mel_filter_bank`. float32 whatever the module's or autocast's
    type, because power spans more decades than half precision holds.

    Raises ConfigError for frequencies beyond Nyquist or mel bands narrower than the FFT resolves.
    """

    def __init__(
        self,
        sampling_rate: int = 32000,
        fft_size: int = 1024,
        hop_length: int = 640,
        num_mels: int = 64,
        f_min: float = 50.0,
        f_max: float = 14000.0,
    ) -> None:
        bank = mel_filter_bank(sampling_rate, fft_size, num_mels, f_min, f_max)
        super().__init__(hann_window(fft_size), bank)
        self.fft_size = fft_size
        self.hop_length = hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T) to log-mel (B, frames, num_mels)."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.fft_size,
                self.hop_length,
                window=self.window,
                center=True,
                pad_mode="constant",
                return_complex=True,
            )  # (B, bins, frames)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, bins, frames)
            # torch.stft keeps frames outermost in memory, so this transpose costs nothing.
            mel = power.transpose(1, 2) @ self.filter_bank  # (B, frames, num_mels)
            return torch.log(mel + LOG_FLOOR)

    def num_frames(self, num_samples: int) -> int:
        """The frames of a waveform of `num_samples`."""
        return 1 + num_samples // self.hop_length


def mel_filter_bank(
    sampling_rate: int, fft_size: int, num_mels: int, f_min: float, f_max: float
) -> np.ndarray:
    """Triangular filters of unit area in Hz, evenly spaced on Slaney's mel scale.

    Returns float64 (fft_size // 2 + 1, num_mels). Raises ConfigError as LogMel does.
    """
    if not 0 <= f_min < f_max <= sampling_rate / 2:
        raise ConfigError(
            f"mel bands from {f_min} to {f_max} Hz do not fit a sampling rate of {sampling_rate} "
            f"Hz; need 0 <= f_min < f_max <= {sampling_rate / 2}"
        )
    bins = np.linspace(0, sampling_rate / 2, fft_size // 2 + 1)  # (bins,) in Hz
    mels = np.linspace(_hz_to_mel(f_min), _hz_to_mel(f_max), num_mels + 2)
    corners = _mel_to_hz(mels)  # (num_mels + 2,): each filter starts where the last one peaks
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (peak - low)  # (bins, num_mels)
    falling = (high - bins[:, None]) / (high - peak)  # (bins, num_mels)
    triangles = np.clip(np.minimum(rising, falling), 0, None)  # (bins, num_mels)
    empty = int((triangles.max(axis=0) == 0).sum())
    if empty:
        raise ConfigError(
            f"{empty} of {num_mels} mel bands hold no FFT bin; lower num_mels or raise fft_size"
        )
    bank: np.ndarray = triangles * 2 / (high - low)
    return bank


def _hz_to_mel(frequency: float) -> float:
    if frequency < BREAK_HZ:
        return frequency / LINEAR_HZ_PER_MEL
    return float(BREAK_MEL + np.log(frequency / BREAK_HZ) / LOG_STEP)


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    above = np.maximum(mels - BREAK_MEL, 0)
    return np.where(mels < BREAK_MEL, mels * LINEAR_HZ_PER_MEL, BREAK_HZ * np.exp(above * LOG_STEP))
