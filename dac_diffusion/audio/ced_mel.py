"""The mel spectrogram in decibels that CED takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

POWER_FLOOR = 1e-10  # -100 dB
DYNAMIC_RANGE = 120.0  # decibels below a clip's loudest band


class CedMel(nn.Module):
    """16 kHz waveform (B, T) to mel bands in decibels (B, F, num_mels), F = 1 + T // hop_length.

    The MelSpectrogram of torchaudio with power 2 and its AmplitudeToDB with a `top_db` of 120.
    Frames are centred and Hann-windowed, the clip is mirrored at both of its own ends, and it is
    its own loudest band that the range counts from. Frames behind a clip are 0. float32 whatever
    the module's or autocast's type.
    """

    window: Tensor
    filter_bank: Tensor

    def __init__(
        self,
        num_mels: int = 64,
        sampling_rate: int = 16000,
        fft_size: int = 512,
        hop_length: int = 160,
    ) -> None:
        super().__init__()
        self.fft_size, self.hop_length = fft_size, hop_length
        hann = np.hanning(fft_size + 1)[:-1]  # periodic, as an FFT repeats
        bank = htk_mel_banks(sampling_rate, fft_size, num_mels)
        # Computed by numpy, so that they are real even while a model is built on "meta".
        self._tables = tuple(torch.from_numpy(table.astype(np.float32)) for table in (hann, bank))
        self.register_buffer("window", self._tables[0], persistent=False)  # (fft_size,)
        self.register_buffer("filter_bank", self._tables[1], persistent=False)  # (bins, num_mels)

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """How many frames a clip of so many samples has, (B,) -> (B,)."""
        return 1 + torch.div(num_samples, self.hop_length, rounding_mode="floor")

    def samples_of(self, num_frames: int) -> int:
        """The fewest samples that give so many frames and can be mirrored."""
        return max(self.fft_size // 2 + 1, (num_frames - 1) * self.hop_length)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """Waveform (B, T), the first `num_samples` (B,) of each audio, to (B, F, num_mels).

        A clip must be longer than half a frame, fft_size // 2 samples, to be mirrored.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            mirrored = mirror_ends(waveform.float(), num_samples, self.fft_size // 2)
            spectrum = torch.stft(
                mirrored,
                self.fft_size,
                self.hop_length,
                window=self.window,
                center=False,
                return_complex=True,
            )  # (B, bins, F)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = power.transpose(1, 2) @ self.filter_bank  # (B, F, num_mels)
            decibels = 10 * mel.clamp(min=POWER_FLOOR).log10()
            frames = torch.arange(mel.shape[1], device=mel.device)
            behind = (frames >= self.num_frames(num_samples)[:, None])[..., None]  # (B, F, 1)
            loudest = decibels.masked_fill(behind, -torch.inf).amax(dim=(1, 2), keepdim=True)
            return decibels.maximum(loudest - DYNAMIC_RANGE).masked_fill(behind, 0.0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .to(bfloat16), .half() and the like round buffers for good; only the device may change.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call, unused-ignore]
        device = self.window.device
        self.window, self.filter_bank = (table.to(device) for table in self._tables)
        return self


def mirror_ends(waveform: Tensor, num_samples: Tensor, margin: int) -> Tensor:
    """Each clip of (B, T) with `margin` samples mirrored beyond its own two ends, then zeros.

    Returns (B, T + 2 * margin). The outermost sample itself is not repeated ("reflect").
    """
    places = torch.arange(-margin, waveform.shape[1] + margin, device=waveform.device)
    last = num_samples[:, None] - 1  # (B, 1)
    sources = last - (last - places.abs()).abs()  # (B, T + 2 * margin)
    mirrored = waveform.gather(1, sources.clamp(min=0))
    return mirrored.masked_fill(places > last + margin, 0.0)


def htk_mel_banks(sampling_rate: int, fft_size: int, num_mels: int) -> np.ndarray:
    """Triangles of height 1 in Hz between points that are even on 2595 log10(1 + f / 700).

    Returns float64 (fft_size // 2 + 1, num_mels), from 0 Hz to Nyquist. A band too narrow to hold
    a bin stays empty, as in torchaudio.
    """
    highest = 2595 * np.log10(1 + sampling_rate / 2 / 700)
    mels = np.linspace(0, highest, num_mels + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)  # (num_mels + 2,) in Hz
    bins = np.linspace(0, sampling_rate / 2, fft_size // 2 + 1)  # (bins,) in Hz
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (peak - low)  # (bins, num_mels)
    falling = (high - bins[:, None]) / (high - peak)  # (bins, num_mels)
    bank: np.ndarray = np.clip(np.minimum(rising, falling), 0, None)  # (bins, num_mels)
    return bank
