"""Recordings of any format, sampling rate and channel count as one mono waveform."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from dac_diffusion.errors import AudioError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MINIMUM_SECONDS = 0.05  # anything shorter is a click that says nothing about its source
MINIMUM_RATE, MAXIMUM_RATE = 1_000, 1_000_000  # Hz; a damaged header may claim 1 Hz or 4 GHz
# Frames decoded, mixed and resampled at a time, so that a long recording needs little memory
# beyond its mono samples. A decoder that fails loses the whole block, hence not larger.
BLOCK_FRAMES = 16_384


def load_audio(path: str | Path, sampling_rate: int) -> np.ndarray:
    """Read a recording as a mono float32 waveform (T,) in [-1, 1] at `sampling_rate` Hz.

    Channels are averaged and soxr (HQ) resamples. A recording that goes beyond full scale, as
    floating-point files may, is scaled down to a peak of 1. A file that was cut off or is damaged
    further on is used as far as it can be decoded.

    Raises AudioError where the file is missing, unreadable, no recording, shorter than
    MINIMUM_SECONDS, silent, or holds NaN or infinite samples.
    """
    with _open(path) as file:
        blocks = _decoded_blocks(file, path)
        return _to_waveform(blocks, file.samplerate, sampling_rate, str(path))


def prepare_waveform(
    array: npt.ArrayLike, source_rate: int, sampling_rate: int, name: str
) -> np.ndarray:
    """Check and convert samples in memory exactly as load_audio does those of a file.

    `array` is (T,), (channels, T) or (T, channels), in floating point with full scale at 1, or in
    8 (unsigned), 16 or 32 bit integers. `name` stands for the file in error messages.

    Raises AudioError for an array that is none of these, and as load_audio does.
    """
    samples = np.asarray(array)
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"{name}: samples of shape {samples.shape} are no recording; "
            "give (samples,), (channels, samples) or (samples, channels)"
        )
    if samples.ndim == 1:
        samples = samples[:, None]  # (T, channels)
    elif samples.shape[0] < samples.shape[1]:
        # The longer side is time: with fewer samples than channels it would be too short anyway.
        samples = samples.T  # (T, channels)
    starts = range(0, len(samples) if samples.size else 0, BLOCK_FRAMES)
    blocks = (_as_floating_point(samples[s : s + BLOCK_FRAMES], name) for s in starts)
    return _to_waveform(blocks, source_rate, sampling_rate, name)


def audio_duration(path: str | Path) -> float:
    """Length of a recording in seconds by its header; nothing is decoded.

    A cut-off flac or mp3 still claims its full length. Raises AudioError as load_audio does for
    a file that cannot be opened.
    """
    with _open(path) as file:
        _check_rate(file.samplerate, str(path))
        return float(file.frames / file.samplerate)


def find_audio_files(path: str | Path) -> list[Path]:
    """The recordings at `path`: a file itself, or all below a folder, sorted.

    In folders the endings wav, flac, ogg and mp3 count, in any case; hidden files and folders
    are left out; linked folders are followed. A file named directly is never judged by its ending.

    Raises AudioError for a missing path, a folder that cannot be listed or holds no recording.
    """
    root = Path(path)
    if not os.path.lexists(root):
        raise AudioError(f"{path}: does not exist; check the path")
    if not root.is_dir():
        return [root]
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=_raise_unlisted, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder above or beside it
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # In order, so that of two ways to the same folder the same one is taken every time.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name) for name in names if _is_recording_name(name)]
    if not found:
        endings = ", ".join(suffix[1:] for suffix in AUDIO_SUFFIXES)
        raise AudioError(f"{path}: no recordings in this folder; it needs {endings} files")
    return sorted(found)


def _is_recording_name(name: str) -> bool:
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")


def _raise_unlisted(error: OSError) -> None:
    raise AudioError(
        f"{error.filename}: the folder cannot be listed ({error.strerror}); "
        "allow reading it or leave it out"
    ) from error


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc, unused-ignore]
    """A recording read from start to end.

    After each read of a seekable file, soundfile seeks to where it already is. That makes the mp3
    decoder forget the frames before, and the next block begins with wrong samples.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _open(path: str | Path) -> Iterator[_ForwardFile]:
    _check_readable(path)
    # Bytes, because names on Linux need not be valid UTF-8, which soundfile takes for granted.
    name = os.fspath(path) if os.name == "nt" else os.fsencode(path)
    try:
        file = _ForwardFile(name)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw files
        raise AudioError(
            f"{path}: not a recording that can be read, or its header is damaged; "
            "convert it to wav, for example with `ffmpeg -i INPUT OUTPUT.wav`"
        ) from error
    with file:
        yield file


def _check_readable(path: str | Path) -> None:
    """Tell a missing, unreadable or empty file from a damaged one; libsndfile does not."""
    if os.path.isdir(path):
        raise AudioError(f"{path}: is a folder; name a recording in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise AudioError(f"{path}: is a pipe or a device; save the recording to a file first")
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be read ({reason}); check its permissions") from error
    if empty:
        raise AudioError(f"{path}: the file is empty; record or download it again")


def _decoded_blocks(file: _ForwardFile, path: str | Path) -> Iterator[np.ndarray]:
    """Yield (frames, channels) float32 until the end of the file or of what can be decoded."""
    decoded = 0
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)  # (frames, channels)
        except soundfile.SoundFileError as error:
            if decoded / file.samplerate < MINIMUM_SECONDS:
                raise AudioError(
                    f"{path}: damaged or cut off before anything can be decoded; "
                    "record or download it again"
                ) from error
            return
        if len(block) == 0:
            return
        decoded += len(block)
        yield block


def _as_floating_point(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # reported as infinite later
            return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in (np.int16, np.int32):
        return samples.astype(np.float32) / (np.iinfo(samples.dtype).max + 1)
    raise AudioError(
        f"{name}: samples of type {samples.dtype} have no known full scale; "
        "give floating point in [-1, 1] or 16 bit integers"
    )


def _to_waveform(
    blocks: Iterable[np.ndarray], source_rate: int, sampling_rate: int, name: str
) -> np.ndarray:
    """Average the channels of (frames, channels) blocks, resample, check; float32 (T,)."""
    _check_rate(source_rate, name)
    resampler = _resampler(source_rate, sampling_rate)
    # Grows in place and becomes the result without a copy; joining a list would take twice
    # the memory, and the length in a header cannot be trusted for allocating ahead.
    collected = bytearray()
    num_frames = 0
    silent = True
    for block in blocks:
        mono = _average_channels(block)  # (frames,)
        if not np.isfinite(mono).all():
            second = (num_frames + int(np.argmin(np.isfinite(mono)))) / source_rate
            raise AudioError(
                f"{name}: NaN or infinite sample at {second:.2f} s; export the recording again"
            )
        silent = silent and not block.any()
        num_frames += len(mono)
        collected += (mono if resampler is None else resampler.resample_chunk(mono)).data
    seconds = num_frames / source_rate
    if seconds < MINIMUM_SECONDS:
        raise AudioError(
            f"{name}: too short to caption ({seconds:.4f} s, {num_frames} samples); "
            f"give at least {MINIMUM_SECONDS} s"
        )
    if silent:
        raise AudioError(f"{name}: silent, all samples are zero; check how it was recorded")
    if resampler is not None:
        collected += resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True).data
    return _to_full_scale(np.frombuffer(collected, dtype=np.float32), name)


def _average_channels(block: np.ndarray) -> np.ndarray:
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])  # (frames,)
    # A sum over columns: numpy's mean over a short last axis takes five times as long.
    with np.errstate(over="ignore", invalid="ignore"):  # reported as infinite by the caller
        total = block[:, 0].copy()  # (frames,)
        for channel in range(1, block.shape[1]):
            total += block[:, channel]
    total /= block.shape[1]
    return total


def _to_full_scale(waveform: np.ndarray, name: str) -> np.ndarray:
    peak = max(float(waveform.max()), -float(waveform.min()))  # abs() would copy the waveform
    if peak == 0:
        raise AudioError(f"{name}: its channels cancel to silence when mixed; give one channel")
    if not np.isfinite(peak):
        raise AudioError(f"{name}: samples too large for 32 bit floats; scale them to [-1, 1]")
    if peak > 1:
        waveform /= np.float32(peak)
        np.clip(waveform, -1, 1, out=waveform)  # the division may round up
    return waveform


def _check_rate(source_rate: int, name: str) -> None:
    if not MINIMUM_RATE <= source_rate <= MAXIMUM_RATE:
        raise AudioError(
            f"{name}: a sampling rate of {source_rate} Hz is outside "
            f"{MINIMUM_RATE} to {MAXIMUM_RATE} Hz; correct it or convert the recording again"
        )


def _resampler(source_rate: int, sampling_rate: int) -> soxr.ResampleStream | None:
    if source_rate == sampling_rate:
        return None
    return soxr.ResampleStream(source_rate, sampling_rate, 1, dtype="float32", quality="HQ")
