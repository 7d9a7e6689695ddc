"""Turning one event of a scene into a track of sound: repeats, speed, distance, level."""

from __future__ import annotations

import numpy as np

from dac_diffusion.data.soundscapes.banks import LONGEST_OCCURRENCE_SECONDS, Recording, Waveform
from dac_diffusion.data.soundscapes.scenes import Distance

FADE_SECONDS = 0.01
LEVEL_DECIBELS: dict[Distance, float] = {"near": -17.0, "middle": -23.0, "far": -33.0}
FAR_CUTOFF_HERTZ = 2500.0
REVERBERATION_SECONDS = 0.9


def fade_edges(waveform: Waveform, sampling_rate: int) -> Waveform:
    """The waveform (T,) with short linear fades, so that cuts do not click."""
    length = min(int(FADE_SECONDS * sampling_rate), len(waveform) // 2)
    if length == 0:
        return waveform
    faded = waveform.copy()
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    faded[:length] *= ramp
    faded[-length:] *= ramp[::-1]
    return faded


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play (T,) faster (factor > 1) or slower, pitch and length together: (T / factor,)."""
    positions = np.arange(0, len(waveform) - 1, factor, dtype=np.float64)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)


def repeat_occurrences(
    recording: Recording,
    repeats: int,
    longest_samples: int,
    sampling_rate: int,
    rng: np.random.Generator,
) -> tuple[Waveform, int]:
    """A track of up to `repeats` occurrences with pauses, and how many found room.

    A recording with several occurrences gives them in turn, so that repeats are not copies.
    """
    first = int(rng.integers(len(recording.occurrences)))
    longest_occurrence = int(LONGEST_OCCURRENCE_SECONDS * sampling_rate)
    pieces: list[Waveform] = []
    total = 0
    for index in range(repeats):
        start, end = recording.occurrences[(first + index) % len(recording.occurrences)]
        piece = recording.waveform[start : min(end, start + longest_occurrence)]
        pause = int(rng.uniform(0.15, 0.7) * sampling_rate) if pieces else 0
        if pieces and total + pause + len(piece) > longest_samples:
            break
        pieces += [np.zeros(pause, np.float32), fade_edges(piece, sampling_rate)]
        total += pause + len(piece)
    return np.concatenate(pieces)[:longest_samples], len(pieces) // 2


def extend_continuous(
    recording: Recording, num_samples: int, sampling_rate: int, rng: np.random.Generator
) -> Waveform:
    """`num_samples` of a steady sound: a random excerpt, or looped with cross-fades."""
    start, end = recording.occurrences[0][0], recording.occurrences[-1][1]
    waveform = recording.waveform[start:end]
    if len(waveform) >= num_samples:
        offset = int(rng.integers(len(waveform) - num_samples + 1))
        return fade_edges(waveform[offset : offset + num_samples], sampling_rate)
    overlap = min(int(0.1 * sampling_rate), len(waveform) // 4)
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    looped = waveform.copy()
    while len(looped) < num_samples and overlap > 0:
        joint = looped[-overlap:] * ramp[::-1] + waveform[:overlap] * ramp
        looped = np.concatenate([looped[:-overlap], joint, waveform[overlap:]])
    return fade_edges(looped[:num_samples], sampling_rate)


def place_at_distance(
    waveform: Waveform, distance: Distance, sampling_rate: int, rng: np.random.Generator
) -> Waveform:
    """Set the level of a track (T,) and, when far away, dull and reverberate it."""
    if distance == "far":
        size = 1 << int(np.ceil(np.log2(len(waveform) + 0.5 * sampling_rate)))
        frequencies = np.fft.rfftfreq(size, 1 / sampling_rate)
        dull = 1 / (1 + (frequencies / (FAR_CUTOFF_HERTZ * rng.uniform(0.7, 1.4))) ** 2)
        decay = np.arange(int(0.5 * sampling_rate)) / sampling_rate
        echo = rng.standard_normal(len(decay)) * np.exp(-6.9 * decay / REVERBERATION_SECONDS)
        echo *= 0.6 / np.sqrt(np.square(echo).sum())
        echo[0] += 1.0
        spectrum = np.fft.rfft(waveform, size) * dull * np.fft.rfft(echo, size)
        waveform = np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)
    loud = np.square(waveform)
    level = float(np.sqrt(loud[loud > 0.01 * loud.max()].mean())) + 1e-6
    target = 10 ** ((LEVEL_DECIBELS[distance] + rng.uniform(-2.5, 2.5)) / 20)
    return waveform * np.float32(target / level)
