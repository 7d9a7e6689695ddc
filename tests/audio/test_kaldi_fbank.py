"""The Kaldi front end against kaldi-native-fbank and torchaudio, and its float32 promise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dac_diffusion.audio.kaldi_fbank import KaldiFilterBank, kaldi_mel_banks

# Frames 0 and 10 of torchaudio.compliance.kaldi.fbank(sound(2000) * 2**15, num_mel_bins=128,
# sample_frequency=16000, frame_length=25, frame_shift=10) of torchaudio 2.11.0, the call of the
# published BEATs code. Stored because torchaudio is bound to one version of torch.
REFERENCE = Path(__file__).with_name("torchaudio_reference.json")


def sound(num_samples: int) -> Tensor:
    """A rising tone in noise, (1, num_samples) in [-1, 1]."""
    seconds = np.arange(num_samples) / 16000
    noise = np.random.RandomState(0).standard_normal(num_samples)  # the same in every numpy
    tone = np.sin(2 * np.pi * (200 * seconds + 3000 * seconds**2))
    return torch.from_numpy((0.3 * tone + 0.1 * noise).astype(np.float32))[None]


def test_frames_agree_with_the_call_of_the_published_code() -> None:
    stored = json.loads(REFERENCE.read_text(encoding="utf-8"))["kaldi_fbank"]
    frames = KaldiFilterBank()(sound(2000) * 2**15)[0]
    assert frames.shape == (11, 128)
    for index, values in stored.items():
        torch.testing.assert_close(frames[int(index)], torch.tensor(values), rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("sampling_rate", "num_mels", "num_samples"),
    # Kaldi refuses the 128 bands of BEATs, one of which holds no bin; 122 is the most it takes.
    [(16000, 80, 400), (16000, 122, 16000), (16000, 122, 16239), (8000, 23, 4000)],
)
def test_frames_agree_with_kaldi(sampling_rate: int, num_mels: int, num_samples: int) -> None:
    kaldi = pytest.importorskip("kaldi_native_fbank")
    options = kaldi.FbankOptions()
    options.frame_opts.dither, options.frame_opts.samp_freq = 0, sampling_rate
    options.mel_opts.num_bins, options.use_energy = num_mels, False
    reference = kaldi.OnlineFbank(options)
    waveform = sound(num_samples) * 2**15
    reference.accept_waveform(sampling_rate, waveform[0].tolist())
    reference.input_finished()
    expected = np.stack([reference.get_frame(i) for i in range(reference.num_frames_ready)])
    frames = KaldiFilterBank(sampling_rate, num_mels)(waveform)[0]
    np.testing.assert_allclose(frames.numpy(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("num_samples", "frames"),
    # 10 s: the last frame starts at sample 997 * 160 = 159520 and ends at 159920.
    [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98), (160000, 998)],
)
def test_frames_lie_within_the_waveform(num_samples: int, frames: int) -> None:
    bank = KaldiFilterBank()
    assert bank.num_frames(torch.tensor([num_samples])).tolist() == [frames]
    if frames:
        assert bank(torch.zeros(1, num_samples)).shape == (1, frames, 128)
        assert bank.samples_of(frames) <= num_samples < bank.samples_of(frames + 1)


def test_digital_silence_is_the_floor() -> None:
    frames = KaldiFilterBank()(torch.zeros(1, 400))
    assert torch.equal(frames, torch.full((1, 1, 128), math.log(2**-23)))


def test_a_constant_offset_is_not_heard() -> None:
    bank, waveform = KaldiFilterBank(), sound(4000) * 2**15
    torch.testing.assert_close(bank(waveform + 1000), bank(waveform), rtol=0, atol=2e-3)


def test_frames_do_not_depend_on_what_follows() -> None:
    bank, waveform = KaldiFilterBank(), sound(16000) * 2**15
    start = bank(waveform[:, :5000])
    torch.testing.assert_close(bank(waveform)[:, : start.shape[1]], start, rtol=0, atol=1e-5)


def test_only_one_band_of_beats_holds_no_bin() -> None:
    bank = kaldi_mel_banks(16000, 512, 128)
    assert bank.shape == (257, 128)
    assert np.flatnonzero(bank.max(axis=0) == 0).tolist() == [3]
    assert not bank[-1].any()
    # Bin 100 is 3125 Hz, 1127 ln(1 + 3125 / 700) = 1913.9 mel. Corners are (2840.04 - 31.75) / 129
    # = 21.770 mel apart, so it lies 86.457 of them above the lowest, between two peaks.
    assert bank[100].nonzero()[0].tolist() == [85, 86]
    np.testing.assert_allclose(bank[100, 85:87], [0.543, 0.457], atol=0.002)


def test_it_stays_in_float32() -> None:
    bank, waveform = KaldiFilterBank(), sound(4000) * 2**15
    expected = bank(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(bank(waveform), expected)
    bank.to(torch.bfloat16)
    assert torch.equal(bank(waveform), expected)
    with torch.device("meta"):
        built_empty = KaldiFilterBank()
    assert torch.equal(built_empty(waveform), expected)
    assert not bank.state_dict()
