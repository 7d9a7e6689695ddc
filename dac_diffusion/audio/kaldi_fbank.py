"""Kaldi's log-mel filter bank, the front end of BEATs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.audio.front_end import FrontEnd

FRAME_MILLISECONDS, HOP_MILLISECONDS = 25, 10
PREEMPHASIS = 0.97
POVEY_POWER = 0.85  # of a Hann window
LOWEST_HZ = 20.0
LOG_FLOOR = float(torch.finfo(torch.float32).eps)  # digital silence is log(1.2e-7) = -15.9


class KaldiFilterBank(FrontEnd):
    """Waveform (B, T) at 16-bit scale to log-mel frames (B, F, num_mels), F = num_frames(T).

    What `compute-fbank-feats --dither=0 --use-energy=false` gives. Frames of 25 ms every 10 ms that
    lie within the waveform (snip_edges), each without its mean, pre-emphasised, in a Povey window;
    the power spectrum, summed by `kaldi_mel_banks`; the natural logarithm. float32 whatever the
    module's or autocast's type.
    """

    def __init__(self, sampling_rate: int = 16000, num_mels: int = 128) -> None:
        frame_length = sampling_rate * FRAME_MILLISECONDS // 1000
        fft_size = 2 ** math.ceil(math.log2(frame_length))
        bank = kaldi_mel_banks(sampling_rate, fft_size, num_mels)
        super().__init__(np.hanning(frame_length) ** POVEY_POWER, bank)
        self.frame_length, self.fft_size = frame_length, fft_size
        self.hop_length = sampling_rate * HOP_MILLISECONDS // 1000

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many frames lie within so many samples, (B,) -> (B,)."""
        steps = torch.div(num_samples - self.frame_length, self.hop_length, rounding_mode="floor")
        return (steps + 1).clamp(min=0)

    def samples_of(self, num_frames: int) -> int:
        """The fewest samples that hold so many frames, at least one."""
        return self.frame_length + (num_frames - 1) * self.hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T), T at least one frame, to log-mel (B, F, num_mels)."""
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.float().unfold(-1, self.frame_length, self.hop_length)  # (B, F, W)
            frames = frames - frames.mean(dim=-1, keepdim=True)
            # The first sample of a frame stands for the one before it, as in Kaldi.
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # (B, F, W)
            frames = (frames - PREEMPHASIS * before) * self.window
            spectrum = torch.fft.rfft(frames, n=self.fft_size)  # (B, F, bins)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = power @ self.filter_bank  # (B, F, num_mels)
            return mel.clamp(min=LOG_FLOOR).log()


def kaldi_mel_banks(sampling_rate: int, fft_size: int, num_mels: int) -> np.ndarray:
    """Triangles that are straight on the mel scale 1127 ln(1 + f / 700), from 20 Hz to Nyquist.

    Returns float64 (fft_size // 2 + 1, num_mels). The bin at Nyquist is left out, as in Kaldi. A
    band too narrow to hold a bin stays empty, as in torchaudio (one of the 128 of BEATs); Kaldi
    itself refuses such a filter bank.
    """
    bins = np.arange(fft_size // 2 + 1) * (sampling_rate / fft_size)  # (bins,) in Hz
    mels = _hz_to_mel(bins)
    corners = np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(sampling_rate / 2), num_mels + 2)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (mels[:, None] - low) / (peak - low)  # (bins, num_mels)
    falling = (high - mels[:, None]) / (high - peak)  # (bins, num_mels)
    bank: np.ndarray = np.clip(np.minimum(rising, falling), 0, None)  # (bins, num_mels)
    bank[-1] = 0
    return bank


def _hz_to_mel(frequency: Any) -> Any:  # of a number or an array
    return 1127 * np.log1p(frequency / 700)
