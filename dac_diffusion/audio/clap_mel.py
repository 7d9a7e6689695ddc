"""The input of CLAP models: a clip repeated to 10 s, then a log-mel spectrogram in decibels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dac_diffusion.audio.log_mel import mel_filter_bank
from dac_diffusion.errors import ConfigError

MelScale = Literal["htk", "slaney"]
Padding = Literal["repeatpad", "repeat", "pad"]

POWER_FLOOR = 1e-10  # -100 dB


def repeat_pad(
    waveform: Tensor, num_samples: Tensor, length: int, padding: Padding = "repeatpad"
) -> Tensor:
    """Fill `length` samples from each clip's own first `num_samples`, (B, T) -> (B, length).

    "repeatpad" (published CLAP): as many whole copies as fit, then zeros. "repeat": copies to the
    end, the last one cut. "pad": one copy, then zeros. A clip longer than `length` keeps its
    first `length` samples. num_samples: (B,), 1 to T.
    """
    own = num_samples.clamp(1, length)[:, None]  # (B, 1)
    position = torch.arange(length, device=waveform.device)[None]  # (1, length)
    tiled = waveform.gather(1, position % own)  # (B, length)
    if padding == "repeat":
        return tiled
    copies = own if padding == "pad" else own * (length // own)  # (B, 1), in samples
    return tiled * (position < copies)


class ClapLogMel(nn.Module):
    """Waveform (B, T) in [-1, 1] to decibels (B, frames, num_mels), frames = 1 + T // hop_length.

    10 log10 of the power spectrogram of centred, reflected, Hann-windowed frames, summed by mel
    bands, no lower than -100 dB. Published CLAP takes two kinds of bands: "htk" in models with
    fusion (torchaudio's: triangles of height 1), "slaney" in the others (librosa's: triangles of
    unit area). float32 whatever the module's or autocast's type.

    Raises ConfigError for another mel scale, frequencies beyond Nyquist, or mel bands narrower
    than the FFT resolves. Source: Wu et al., arXiv 2211.06687, and its published code.
    """

    window: Tensor
    filter_bank: Tensor

    def __init__(
        self,
        sampling_rate: int = 48000,
        fft_size: int = 1024,
        hop_length: int = 480,
        num_mels: int = 64,
        f_min: float = 50.0,
        f_max: float = 14000.0,
        mel_scale: MelScale = "slaney",
    ) -> None:
        super().__init__()
        if mel_scale not in ("htk", "slaney"):
            raise ConfigError(f"mel_scale={mel_scale!r}: must be htk or slaney")
        self.fft_size, self.hop_length = fft_size, hop_length
        make_bank = htk_filter_bank if mel_scale == "htk" else mel_filter_bank
        bank = make_bank(sampling_rate, fft_size, num_mels, f_min, f_max)  # (bins, num_mels)
        hann = np.hanning(fft_size + 1)[:-1]  # periodic, as an FFT repeats
        # Computed by numpy, so that they are real even while a model is built on "meta".
        self._tables = tuple(torch.from_numpy(t.astype(np.float32)) for t in (hann, bank))
        self.register_buffer("window", self._tables[0], persistent=False)  # (fft_size,)
        self.register_buffer("filter_bank", self._tables[1], persistent=False)  # (bins, num_mels)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (B, T) to decibels (B, frames, num_mels)."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.fft_size,
                self.hop_length,
                window=self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )  # (B, bins, frames)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, bins, frames)
            mel = power.transpose(1, 2) @ self.filter_bank  # (B, frames, num_mels)
            return 10 * torch.log10(mel.clamp(min=POWER_FLOOR))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .to(bfloat16), .half() and the like round buffers for good; only the device may change.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call, unused-ignore]
        device = self.window.device
        self.window, self.filter_bank = (table.to(device) for table in self._tables)
        return self


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
