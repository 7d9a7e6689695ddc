"""The mel spectrogram in decibels that CED takes."""

from __future__ import annotations

import torch
from torch import Tensor

from dac_diffusion.audio.front_end import FrontEnd, hann_window
from dac_diffusion.audio.htk_filter_bank import htk_filter_bank

POWER_FLOOR = 1e-10  # -100 dB
DYNAMIC_RANGE = 120.0  # decibels below a clip's loudest band


class CedMel(FrontEnd):
    """16 kHz waveform (B, T) to mel bands in decibels (B, F, num_mels), F = 1 + T // hop_length.

    The MelSpectrogram of torchaudio with power 2 and its AmplitudeToDB with a `top_db` of 120.
    Frames are centred and Hann-windowed, the clip is mirrored at both of its own ends, and it is
    its own loudest band that the range counts from. Frames behind a clip are 0. float32 whatever
    the module's or autocast's type.
    """

    def __init__(
        self,
        num_mels: int = 64,
        sampling_rate: int = 16000,
        fft_size: int = 512,
        hop_length: int = 160,
    ) -> None:
        bank = htk_filter_bank(sampling_rate, fft_size, num_mels, 0.0, sampling_rate / 2)
        super().__init__(hann_window(fft_size), bank)
        self.fft_size, self.hop_length = fft_size, hop_length

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


def mirror_ends(waveform: Tensor, num_samples: Tensor, margin: int) -> Tensor:
    """Each clip of (B, T) with `margin` samples mirrored beyond its own two ends, then zeros.

    Returns (B, T + 2 * margin). The outermost sample itself is not repeated ("reflect").
    """
    places = torch.arange(-margin, waveform.shape[1] + margin, device=waveform.device)
    last = num_samples[:, None] - 1  # (B, 1)
    sources = last - (last - places.abs()).abs()  # (B, T + 2 * margin)
    mirrored = waveform.gather(1, sources.clamp(min=0))
    return mirrored.masked_fill(places > last + margin, 0.0)
