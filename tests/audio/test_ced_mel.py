"""The front end of CED against librosa and torchaudio, and clip by clip in a batch."""

import json
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.audio.ced_mel import CedMel, mirror_ends
from dac_diffusion.audio.htk_filter_bank import htk_filter_bank

# Frames 0 and 12 of AmplitudeToDB(top_db=120) after MelSpectrogram(sample_rate=16000, n_fft=512,
# win_length=512, hop_length=160, f_min=0, f_max=8000, n_mels=64), the front end of the published
# code, of torchaudio 2.11.0 on sound(2000). Stored because torchaudio is bound to one torch.
REFERENCE = Path(__file__).with_name("torchaudio_reference.json")


def sound(num_samples: int) -> Tensor:
    """A rising tone in noise, (1, num_samples) in [-1, 1]."""
    seconds = np.arange(num_samples) / 16000
    noise = np.random.RandomState(0).standard_normal(num_samples)  # the same in every numpy
    tone = np.sin(2 * np.pi * (200 * seconds + 3000 * seconds**2))
    return torch.from_numpy((0.3 * tone + 0.1 * noise).astype(np.float32))[None]


def alone(waveform: Tensor) -> Tensor:
    decibels: Tensor = CedMel()(waveform, torch.tensor([waveform.shape[1]]))
    return decibels[0]


def test_frames_agree_with_the_front_end_of_the_published_code() -> None:
    stored = json.loads(REFERENCE.read_text(encoding="utf-8"))["ced_mel"]
    decibels = alone(sound(2000))
    assert decibels.shape == (13, 64)
    for index, values in stored.items():
        torch.testing.assert_close(decibels[int(index)], torch.tensor(values), rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_samples", [600, 5000, 16000, 16159, 16160])
@pytest.mark.parametrize("noise_only", [True, False])
def test_frames_agree_with_librosa(num_samples: int, noise_only: bool) -> None:
    waveform = sound(num_samples)
    if noise_only:
        noise = np.random.RandomState(1).standard_normal(num_samples)
        waveform = torch.from_numpy(0.1 * noise.astype(np.float32))[None]
    power = librosa.feature.melspectrogram(
        y=waveform[0].double().numpy(), sr=16000, n_fft=512, hop_length=160, window="hann",
        center=True, pad_mode="reflect", power=2.0, n_mels=64, fmin=0, fmax=8000, htk=True,
        norm=None, dtype=np.float64,
    )  # fmt: skip
    expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=120).T
    # A tone leaves bands 60 dB below it, where float32 has fewer digits.
    tolerance = 1e-4 if noise_only else 1e-3
    np.testing.assert_allclose(alone(waveform).numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(257, 2), (2399, 15), (2400, 16), (16000, 101), (160000, 1001)]
)
def test_a_clip_has_a_frame_at_every_hop(num_samples: int, frames: int) -> None:
    mel = CedMel()
    assert mel.num_frames(torch.tensor([num_samples])).tolist() == [frames]
    assert mel.samples_of(frames) <= num_samples < mel.samples_of(frames + 1)
    assert alone(torch.zeros(1, num_samples)).shape == (frames, 64)


def test_a_clip_is_mirrored_at_its_own_end() -> None:
    clips = torch.zeros(2, 12)
    clips[0, :5], clips[1] = torch.arange(1.0, 6), torch.arange(1.0, 13)
    mirrored = mirror_ends(clips, torch.tensor([5, 12]), 3)
    first = [4, 3, 2, 1, 2, 3, 4, 5, 4, 3, 2, 0, 0, 0, 0, 0, 0, 0]
    assert mirrored[0].tolist() == first
    assert torch.equal(mirrored[1], F.pad(clips[1:], (3, 3), mode="reflect")[0])


def test_a_clip_is_clamped_and_mirrored_as_if_it_were_alone() -> None:
    quiet, loud = 0.01 * sound(5000), 10 * sound(9000)
    quiet[:, 2000:4000] = 0  # -100 dB, which is 120 dB below nothing but a loud mate
    batch = torch.cat([F.pad(quiet, (0, 4000)), loud])
    together = CedMel()(batch, torch.tensor([5000, 9000]))
    assert together.shape == (2, 57, 64)
    expected_quiet, expected_loud = alone(quiet), alone(loud)
    assert expected_quiet.min() == -100
    assert expected_loud.max() - 120 > -100
    torch.testing.assert_close(together[0, :32], expected_quiet, rtol=0, atol=1e-4)
    torch.testing.assert_close(together[1], expected_loud, rtol=0, atol=1e-4)
    assert not together[0, 32:].any()


def test_the_range_counts_from_the_loudest_band() -> None:
    waveform = 20 * sound(16000)
    waveform[:, :8000] = 0
    decibels = alone(waveform)
    assert decibels.max() > 40
    assert decibels.min() == decibels.max() - 120


def test_filters_agree_with_librosa() -> None:
    expected = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=64, fmin=0, fmax=8000, htk=True, norm=None, dtype=np.float64
    )
    np.testing.assert_allclose(
        htk_filter_bank(16000, 512, 64, 0, 8000), expected.T, rtol=0, atol=1e-9
    )


def test_it_stays_in_float32() -> None:
    waveform, num_samples = sound(4000), torch.tensor([4000])
    mel = CedMel()
    expected = mel(waveform, num_samples)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mel(waveform, num_samples), expected)
    mel.to(torch.bfloat16)
    assert torch.equal(mel(waveform, num_samples), expected)
    with torch.device("meta"):
        built_empty = CedMel()
    assert torch.equal(built_empty(waveform, num_samples), expected)
    assert not mel.state_dict()
