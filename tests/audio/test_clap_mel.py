"""The log-mel of CLAP against transformers' ClapFeatureExtractor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ClapFeatureExtractor

from dac_diffusion.audio.clap_mel import ClapLogMel, repeat_pad
from dac_diffusion.audio.htk_filter_bank import htk_filter_bank
from dac_diffusion.errors import ConfigError


def noise(length: int) -> Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("truncation", "scale"), [("fusion", "htk"), ("rand_trunc", "slaney")])
@pytest.mark.parametrize("length", [480000, 479999, 300000, 130000, 20000])
def test_the_log_mel_is_that_of_the_feature_extractor(
    truncation: str, scale: Any, length: int
) -> None:
    clip = noise(length)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation=truncation, padding="repeatpad")
    expected = extractor(clip.numpy(), sampling_rate=48000, return_tensors="pt")["input_features"]
    filled = repeat_pad(clip[None], torch.tensor([length]), 480000)
    ours = ClapLogMel(mel_scale=scale)(filled)
    assert ours.shape == (1, 1001, 64)
    for view in expected[0]:  # four equal ones for fusion
        torch.testing.assert_close(ours[0], view, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("padding", "filled"),
    [
        ("repeatpad", [[1, 2, 3, 1, 2, 3, 0, 0], [4, 5, 6, 7, 8, 0, 0, 0]]),
        ("repeat", [[1, 2, 3, 1, 2, 3, 1, 2], [4, 5, 6, 7, 8, 4, 5, 6]]),
        ("pad", [[1, 2, 3, 0, 0, 0, 0, 0], [4, 5, 6, 7, 8, 0, 0, 0]]),
    ],
)
def test_a_short_clip_is_filled_up_from_its_own_samples(
    padding: Any, filled: list[list[int]]
) -> None:
    waveform = torch.tensor([[1, 2, 3, 9, 9, 9.0], [4, 5, 6, 7, 8, 9]])
    assert repeat_pad(waveform, torch.tensor([3, 5]), 8, padding).tolist() == filled


def test_a_long_clip_keeps_its_beginning() -> None:
    assert repeat_pad(torch.arange(6.0)[None], torch.tensor([6]), 4).tolist() == [[0, 1, 2, 3]]


def test_silence_is_minus_100_decibels() -> None:
    assert torch.equal(ClapLogMel()(torch.zeros(1, 4800)), torch.full((1, 11, 64), -100.0))


def test_bands_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^mel_scale='kaldi': must be htk or slaney$"):
        ClapLogMel(mel_scale="kaldi")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="do not fit a sampling rate of 16000"):
        htk_filter_bank(16000, 1024, 64, 50, 14000)
    with pytest.raises(ConfigError, match="of 64 mel bands hold no FFT bin"):
        htk_filter_bank(48000, 256, 64, 50, 14000)
