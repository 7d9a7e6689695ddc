"""The log-mel front end against librosa, and its float32 promise."""

import copy
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.audio.log_mel import LOG_FLOOR, LogMel, mel_filter_bank
from dac_diffusion.errors import ConfigError

CLIPS = Path(__file__).parents[2] / "../shared/data/clips/audio"


def librosa_log_mel(waveform: np.ndarray, **changes: float) -> np.ndarray:
    settings: dict[str, Any] = {"sr": 32000, "n_fft": 1024, "hop_length": 640, "n_mels": 64}
    settings |= {"fmin": 50.0, "fmax": 14000.0} | changes
    mel = librosa.feature.melspectrogram(
        y=waveform.astype(np.float64), power=2.0, htk=False, norm="slaney", center=True, **settings
    )
    return np.log(mel + 1e-5).T


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    seconds = np.arange(48000) / 32000
    noise = rng.standard_normal(48000)
    return {
        "noise": 0.2 * noise,
        "quiet noise": 1e-4 * noise,
        "tone in noise": 0.3 * np.sin(2 * np.pi * 440 * seconds) + 0.001 * noise,
        "impulse": np.eye(1, 48001, 500)[0],
        "digital silence": np.zeros(48000),
        "shorter than a frame": 0.2 * noise[:300],
    }


@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")  # librosa about the shortest
@pytest.mark.parametrize("name", signals())
def test_equals_librosa(name: str) -> None:
    waveform = signals()[name].astype(np.float32)
    log_mel = LogMel()(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(log_mel, librosa_log_mel(waveform), rtol=0, atol=1e-4)


def test_equals_librosa_at_other_settings() -> None:
    waveform = signals()["noise"].astype(np.float32)
    log_mel = LogMel(16000, fft_size=512, hop_length=160, num_mels=40, f_min=0.0, f_max=8000.0)
    expected = librosa_log_mel(
        waveform, sr=16000, n_fft=512, hop_length=160, n_mels=40, fmin=0.0, fmax=8000.0
    )
    actual = log_mel(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the development clips are not here")
def test_equals_librosa_on_recordings() -> None:
    for path in sorted(CLIPS.rglob("*.ogg"))[::160]:
        waveform = load_audio(path, 32000)
        log_mel = LogMel()(torch.from_numpy(waveform)[None])[0].numpy()
        np.testing.assert_allclose(log_mel, librosa_log_mel(waveform), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [(32000, 1024, 64, 50, 14000), (44100, 2048, 128, 0, 22050), (16000, 512, 26, 0, 900)],
)
def test_filter_bank_equals_librosa(settings: tuple[int, int, int, float, float]) -> None:
    sampling_rate, fft_size, num_mels, f_min, f_max = settings
    expected = librosa.filters.mel(
        sr=sampling_rate, n_fft=fft_size, n_mels=num_mels, fmin=f_min, fmax=f_max, dtype=np.float64
    )
    np.testing.assert_allclose(mel_filter_bank(*settings), expected.T, rtol=1e-9, atol=1e-12)


def test_shape_floor_and_frames() -> None:
    log_mel = LogMel()
    assert log_mel(torch.zeros(2, 320000)).shape == (2, 501, 64)
    torch.testing.assert_close(log_mel(torch.zeros(1, 700)), torch.full((1, 2, 64), np.log(1e-5)))
    assert LOG_FLOOR == 1e-5
    for num_samples in (1, 639, 640, 641, 5000):
        assert log_mel(torch.zeros(1, num_samples)).shape[1] == log_mel.num_frames(num_samples)


def test_a_clip_does_not_depend_on_its_batch() -> None:
    batch = torch.randn(5, 8000, generator=torch.Generator().manual_seed(0))
    together = LogMel()(batch)
    assert torch.equal(LogMel()(batch[2:3])[0], together[2])


def test_float32_under_autocast_and_in_a_half_precision_model() -> None:
    waveform = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    log_mel = LogMel()
    expected = log_mel(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(waveform), expected)
    converted = torch.nn.Sequential(copy.deepcopy(log_mel)).to(torch.bfloat16)
    actual = converted(waveform)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_tables_are_not_saved_and_survive_the_meta_device() -> None:
    assert LogMel().state_dict() == {}
    with torch.device("meta"):
        built = LogMel()
    waveform = torch.linspace(-1, 1, 2000)[None]
    assert torch.equal(built(waveform), LogMel()(waveform))
    assert built.to("meta").filter_bank.device.type == "meta"
    assert torch.equal(built.to_empty(device="cpu")(waveform), LogMel()(waveform))


def test_gradient_reaches_the_waveform() -> None:
    waveform = torch.zeros(1, 2000, requires_grad=True)
    LogMel()(waveform + 0.01).sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="do not fit a sampling rate of 16000"):
        LogMel(sampling_rate=16000)
    with pytest.raises(ConfigError, match="hold no FFT bin; lower num_mels or raise fft_size"):
        LogMel(num_mels=256)
