"""The input of CLAP models: a clip repeated to 10 s, then a log-mel spectrogram in decibels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dac_diffusion.audio.front_end import FrontEnd, hann_window
from dac_diffusion.audio.htk_filter_bank import htk_filter_bank
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


class ClapLogMel(FrontEnd):
    """Waveform (B, T) in [-1, 1] to decibels (B, frames, num_mels), frames = 1 + T // hop_length.

    10 log10 of the power spectrogram of centred, reflected, Hann-windowed frames, summed by mel
    bands, no lower than -100 dB. Published CLAP takes two kinds of bands: "htk" in models with
    fusion (torchaudio's: triangles of height 1), "slaney" in the others (librosa's: triangles of
    unit area). float32 whatever the module's or autocast's type.

    Raises ConfigError for another mel scale, frequencies beyond Nyquist, or mel bands narrower
    than the FFT resolves. Source: Wu et al., arXiv 2211.06687, and its published code.
    """

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
        if mel_scale not in ("htk", "slaney"):
            raise ConfigError(f"mel_scale={mel_scale!r}: must be htk or slaney")
        make_bank = htk_filter_bank if mel_scale == "htk" else mel_filter_bank
        bank = make_bank(sampling_rate, fft_size, num_mels, f_min, f_max)  # (bins, num_mels)
        super().__init__(hann_window(fft_size), bank)
        self.fft_size, self.hop_length = fft_size, hop_length

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
