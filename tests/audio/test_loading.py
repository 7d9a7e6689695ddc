"""Recordings of every kind become the same waveform; every bad one says what to do."""

import errno
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from dac_diffusion.audio import loading
from dac_diffusion.audio.loading import (
    BLOCK_FRAMES,
    MINIMUM_SECONDS,
    audio_duration,
    find_audio_files,
    load_audio,
    prepare_waveform,
)
from dac_diffusion.errors import AudioError


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def noise(num_frames: int, channels: int = 1) -> np.ndarray:
    samples = 0.1 * np.random.default_rng(0).standard_normal((num_frames, channels))
    return samples.astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 44100, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def cut(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    return path


def error_for(path: Path) -> str:
    """The error of load_audio, after checking that it is one line that names the file."""
    with pytest.raises(AudioError) as caught:
        load_audio(path, 32000)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert "; " in text
    return text


# Recordings that are fine


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.WAV"])
@pytest.mark.parametrize("channels", [1, 2])
def test_formats(tmp_path: Path, name: str, channels: int) -> None:
    samples = np.stack([tone(1.0, 44100)] * channels, axis=1)  # (T, channels)
    waveform = load_audio(write(tmp_path / name, samples), 32000)
    assert waveform.dtype == np.float32
    assert waveform.shape == (32000,)
    inner = slice(3200, -3200)  # lossy codecs smear the ends
    assert np.abs(waveform - tone(1.0, 32000))[inner].max() < 0.02


@pytest.mark.parametrize("rate", [4000, 8000, 22050, 32000, 48000, 96000, 192000])
def test_sampling_rates(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", tone(0.5, rate), rate, "FLOAT")
    waveform = load_audio(path, 32000)
    assert waveform.shape == (16000,)
    inner = slice(1600, -1600)
    assert np.abs(waveform - tone(0.5, 32000))[inner].max() < 1e-3


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = np.zeros((16000, 8), dtype=np.float32)
    samples[:, 5] = tone(0.5, 32000)
    path = write(tmp_path / "a.wav", samples, 32000, "FLOAT")
    np.testing.assert_allclose(load_audio(path, 32000), tone(0.5, 32000) / 8, atol=1e-7)


def test_blocks_leave_no_seam(tmp_path: Path) -> None:
    samples = noise(3 * BLOCK_FRAMES + 17, channels=2)
    path = write(tmp_path / "a.wav", samples, 44100, "FLOAT")
    expected = soxr.resample(samples.mean(axis=1), 44100, 32000, quality="HQ")
    np.testing.assert_allclose(load_audio(path, 32000), expected, atol=1e-6)


def test_mp3_in_blocks_equals_mp3_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", tone(3.0, 44100))
    at_once, _ = soundfile.read(path, dtype="float32")
    assert len(at_once) > 4 * BLOCK_FRAMES
    assert np.array_equal(load_audio(path, 44100), at_once)


def test_result_may_be_changed(tmp_path: Path) -> None:
    load_audio(write(tmp_path / "a.wav", noise(4410)), 32000)[0] = 0


def test_over_full_scale_is_scaled_down(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 8 * tone(0.5, 32000), 32000, "FLOAT")
    waveform = load_audio(path, 32000)
    assert np.abs(waveform).max() <= 1
    np.testing.assert_allclose(waveform, 2 * tone(0.5, 32000), atol=1e-3)


def test_ten_minutes_need_little_memory_beyond_the_result(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    second = noise(8000, channels=2)
    with soundfile.SoundFile(path, "w", 8000, 2) as file:
        for _ in range(600):
            file.write(second)
    tracemalloc.start()
    try:
        waveform = load_audio(path, 16000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert waveform.shape == (600 * 16000,)
    assert peak < 1.25 * waveform.nbytes + 2**22
    assert audio_duration(path) == 600


@pytest.mark.parametrize("name", ["собака.wav", "犬 🐕.ogg", "é'\"%s.flac", "a\nb.wav"])
def test_unusual_names(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, tone(0.2, 44100))
    assert load_audio(path, 32000).shape == (6400,)
    assert find_audio_files(tmp_path) == [path]


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    try:
        path.write_bytes(write(tmp_path / "a.wav", tone(0.2, 44100)).read_bytes())
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert load_audio(path, 32000).shape == (6400,)
    assert audio_duration(path) == pytest.approx(0.2)


# Recordings that are cut off: used where at least MINIMUM_SECONDS can be decoded


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_cut_off_recording_is_used_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(4 * 44100), 44100)
    whole = load_audio(path, 32000)
    part = load_audio(cut(path, 0.5), 32000)
    assert 0.3 < len(part) / len(whole) < 0.6
    inner = slice(0, len(part) - 3200)
    np.testing.assert_allclose(part[inner], whole[inner], atol=1e-3)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_cut_off_in_the_header(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(44100), 44100)
    path.write_bytes(path.read_bytes()[:30])
    assert "header is damaged" in error_for(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_cut_off_right_after_the_header(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(4 * 44100), 44100)
    text = error_for(cut(path, 0.002))
    assert "too short" in text or "cut off before anything can be decoded" in text


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_damage_in_the_middle(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(4 * 44100), 44100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    assert len(load_audio(path, 32000)) > 32000


# Files that cannot be used


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in error_for(tmp_path / "no.wav")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "the file is empty" in error_for(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw", "notes.txt"])
def test_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is not a recording.\n" * 100)
    assert "ffmpeg" in error_for(tmp_path / name)


def test_folder_and_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    assert "is a folder" in error_for(tmp_path / "a.wav")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b.wav")
        assert "is a pipe" in error_for(tmp_path / "b.wav")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no permission bits stop.
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path / "a.wav", noise(4410))
    monkeypatch.setattr(loading, "open", refuse, raising=False)
    assert "cannot be read (Permission denied); check its permissions" in error_for(path)


def test_all_zeros(tmp_path: Path) -> None:
    assert "silent" in error_for(write(tmp_path / "a.wav", np.zeros((44100, 2))))


def test_channels_that_cancel(tmp_path: Path) -> None:
    samples = np.stack([tone(0.5, 44100), -tone(0.5, 44100)], axis=1)
    assert "cancel" in error_for(write(tmp_path / "a.wav", samples, 44100, "FLOAT"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_not_finite(tmp_path: Path, value: float, channels: int) -> None:
    samples = noise(44100, channels)
    samples[22050, -1] = value
    path = write(tmp_path / "a.wav", samples, 44100, "FLOAT")
    assert "NaN or infinite sample at 0.50 s" in error_for(path)


@pytest.mark.parametrize("num_samples", [0, 1, int(MINIMUM_SECONDS * 44100) - 1])
def test_too_short(tmp_path: Path, num_samples: int) -> None:
    text = error_for(write(tmp_path / "a.wav", noise(num_samples)))
    assert "too short" in text
    assert "0.05 s" in text


def test_just_long_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(int(MINIMUM_SECONDS * 44100)))
    assert load_audio(path, 32000).shape == (1600,)


@pytest.mark.parametrize("rate", [1, 2_000_000])
def test_absurd_sampling_rate(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", noise(44100), rate)
    assert f"sampling rate of {rate} Hz" in error_for(path)
    with pytest.raises(AudioError, match="sampling rate"):
        audio_duration(path)


# Arrays


@pytest.mark.parametrize("rate", [32000, 44100])
def test_array_equals_file_exactly(tmp_path: Path, rate: int) -> None:
    samples = noise(2 * BLOCK_FRAMES, channels=2)
    from_file = load_audio(write(tmp_path / "a.wav", samples, rate, "FLOAT"), 32000)
    for array in (samples, samples.T, samples.astype(np.float64), np.asfortranarray(samples)):
        assert np.array_equal(prepare_waveform(array, rate, 32000, "array"), from_file)


def test_integer_arrays_have_their_full_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.2, 32000), 32000, "PCM_16")
    expected = load_audio(path, 32000)
    for dtype in ("int16", "int32"):
        array, _ = soundfile.read(path, dtype=dtype)
        assert np.array_equal(prepare_waveform(array, 32000, 32000, "array"), expected)
    unsigned = np.full(3200, 192, dtype=np.uint8)
    assert (prepare_waveform(unsigned, 32000, 32000, "array") == 0.5).all()


def test_array_is_not_changed() -> None:
    array = 3 * noise(3200)[:, 0]
    before = array.copy()
    prepare_waveform(array, 32000, 32000, "array")[:] = 0
    assert np.array_equal(array, before)


def test_a_list_of_samples() -> None:
    assert prepare_waveform([0.5, -0.5] * 1600, 32000, 32000, "list").shape == (3200,)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), "shape (2, 3, 4)"),
        (np.float32(1), "shape ()"),
        (np.zeros(0), "too short"),
        (np.zeros((2, 0)), "too short"),
        (np.ones(1), "too short"),
        (np.zeros(32000), "silent"),
        (np.full(32000, np.nan), "NaN or infinite"),
        (np.full(32000, 1e300), "NaN or infinite"),
        (np.ones(32000, dtype=np.int64), "int64 have no known full scale"),
        (np.ones(32000, dtype=complex), "no known full scale"),
        (np.array(["a"] * 32000), "no known full scale"),
    ],
)
def test_bad_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError) as caught:
        prepare_waveform(array, 32000, 32000, "microphone")
    assert message in str(caught.value)
    assert str(caught.value).startswith("microphone: ")


@pytest.mark.parametrize("rate", [0, -44100])
def test_bad_array_rate(rate: int) -> None:
    with pytest.raises(AudioError, match="sampling rate"):
        prepare_waveform(np.ones(32000), rate, 32000, "array")


# Durations


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_duration_without_decoding(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / name, noise(66150))
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    assert audio_duration(path) == pytest.approx(1.5)


def test_duration_of_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("text")
    with pytest.raises(AudioError, match="not a recording"):
        audio_duration(tmp_path / "a.wav")
