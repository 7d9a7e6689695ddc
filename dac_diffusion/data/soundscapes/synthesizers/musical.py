"""Musical sounds: whistling, plucked strings, organ chords and music boxes."""

import numpy as np

from dac_diffusion.data.soundscapes.synthesizers.dsp import (
    Generator,
    Waveform,
    band,
    faded,
    finished,
    harmonic_tone,
    log_uniform,
    modes,
    noise,
    place,
    random_curve,
    reverberated,
    silence,
    sine,
    time_axis,
)

_PENTATONIC = np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21])
_MAJOR = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])


def whistling(rng: Generator, sampling_rate: int) -> Waveform:
    """A person whistling: two to six gliding notes with vibrato and a little breath."""
    notes = int(rng.integers(2, 7))
    lengths = rng.uniform(0.18, 0.5, 6)[:notes]
    base = log_uniform(rng, 700, 1500)
    degrees = np.clip(np.cumsum(rng.integers(-2, 4, 6)), 0, 9)[:notes]
    pitches = base * 2.0 ** (_MAJOR[degrees] / 12)
    seconds = float(np.sum(lengths)) + 0.05
    time = time_axis(seconds, sampling_rate)
    # Glides: every note is held and then slides into the next within `slide` seconds.
    slide = rng.uniform(0.03, 0.12)
    ends = np.cumsum(lengths)
    corners = np.stack([ends[:-1] - slide / 2, ends[:-1] + slide / 2], axis=1).ravel()
    values = np.stack([np.log(pitches[:-1]), np.log(pitches[1:])], axis=1).ravel()
    log_pitch = np.interp(time, corners, values)
    vibrato = rng.uniform(0.002, 0.02) * sine(rng.uniform(4.5, 7), seconds, sampling_rate)
    scoop = -0.08 * np.exp(-time / np.float32(0.05))
    pitch = np.exp(log_pitch + vibrato + scoop)
    tone = harmonic_tone(pitch, [1, rng.uniform(0.01, 0.06)], seconds, sampling_rate)
    dips = np.ones_like(time)
    tongue = rng.uniform(0.0, 0.95)
    for end in ends[:-1]:
        dips *= 1 - tongue * np.exp(-np.square((time - np.float32(end)) / 0.03))
    strength = dips * (0.7 + 0.3 * random_curve(rng, seconds, sampling_rate, 5))
    centre = float(np.mean(pitches))
    breath = noise(rng, seconds, sampling_rate, band(0.7 * centre, 1.8 * centre, 1))
    wave = tone * strength + breath * strength * np.float32(log_uniform(rng, 0.01, 0.06))
    wave = reverberated(rng, wave, sampling_rate, 0.15, rng.uniform(0.0, 0.4))
    return finished(rng, wave, sampling_rate, 0.03, 0.06)


def plucked_string(rng: Generator, sampling_rate: int) -> Waveform:
    """A plucked string (guitar, harp, banjo): one note, a broken chord or a strum."""
    notes = int(rng.choice([1, 1, 3, 4]))
    gap = rng.uniform(0.02, 0.05) if rng.random() < 0.5 else rng.uniform(0.15, 0.35)
    root = log_uniform(rng, 82, 330)
    chord = np.array([(0, 7, 12, 16), (0, 4, 7, 12), (0, 3, 7, 12)][int(rng.integers(3))])
    sustain = rng.uniform(0.35, 1.3)
    pluck = rng.uniform(0.08, 0.4)  # position of the finger along the string
    softness = rng.uniform(0.0, 0.04)
    seconds = min(2.5, (notes - 1) * gap + 2.2 * sustain + 0.2)
    wave = silence(seconds, sampling_rate)
    order = np.arange(1, 41)
    stiffness = 10 ** rng.uniform(-5, -3.8)
    # Displacement of a string pulled into a triangle, and losses that grow with frequency.
    levels = np.abs(np.sin(np.pi * order * pluck)) / order * np.exp(-softness * order)
    for index in range(notes):
        pitch = root * 2 ** (chord[index] / 12)
        frequencies = pitch * order * np.sqrt(1 + stiffness * order**2)
        decays = sustain / (1 + (frequencies / 1500) ** 1.2)
        string = modes(frequencies, levels, decays, seconds - index * gap, sampling_rate)
        place(wave, string, index * gap, sampling_rate, rng.uniform(0.75, 1.0))
    wave = reverberated(rng, wave, sampling_rate, 0.12, rng.uniform(0.05, 0.3))
    return finished(rng, wave, sampling_rate, 0.0005, 0.15)


def organ_chord(rng: Generator, sampling_rate: int) -> Waveform:
    """An organ: a sustained chord of three or four notes through a random set of stops."""
    seconds = rng.uniform(1.5, 2.5)
    root = log_uniform(rng, 150, 360)
    chords = ((0, 4, 7), (0, 3, 7), (-12, 0, 4, 7), (-12, 0, 3, 7), (0, 5, 9), (0, 4, 7, 12))
    chord = chords[int(rng.integers(len(chords)))]
    stops = np.zeros(16)
    for rank in (1, 2, 3, 4, 6, 8, 10, 12, 16):
        stops[rank - 1] = rng.uniform(0.0, 1.0) / rank**0.6
    stops[:2] += 0.3
    tremolo = rng.uniform(0.0, 0.25) * sine(rng.uniform(4, 7), seconds, sampling_rate)
    vibrato = 1 + 0.015 * tremolo
    wave = silence(seconds, sampling_rate)
    for step in chord:
        pitch = root * 2 ** (step / 12) * rng.uniform(0.998, 1.002)
        wave += harmonic_tone(pitch * vibrato, stops, seconds, sampling_rate)
    wave *= 1 + tremolo
    wind = noise(rng, seconds, sampling_rate, band(400, 4000, 1))
    wave += wind * np.float32(log_uniform(rng, 0.005, 0.03))
    wave = faded(wave, sampling_rate, rng.uniform(0.02, 0.12), 0.15)
    canvas = silence(seconds + 0.5, sampling_rate)
    place(canvas, wave, 0.0, sampling_rate)
    wave = reverberated(rng, canvas, sampling_rate, rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.7))
    return finished(rng, wave, sampling_rate, 0.005, 0.15)


def music_box(rng: Generator, sampling_rate: int) -> Waveform:
    """A music box: a tinkling pentatonic tune on small steel tines, over a quiet mechanism."""
    notes = int(rng.integers(6, 11))
    beat = rng.uniform(0.17, 0.32)
    base = log_uniform(rng, 700, 1200)
    decay = rng.uniform(0.3, 0.8)
    seconds = notes * beat + 0.6
    wave = silence(seconds, sampling_rate)
    degree = int(rng.integers(0, 8))
    for index in range(notes):
        degree = int(np.clip(degree + rng.integers(-3, 4), 0, len(_PENTATONIC) - 1))
        pitch = base * 2 ** (_PENTATONIC[degree] / 12)
        # A clamped tine: its second mode lies at 6.27 times the first and dies at once.
        tine = modes(
            [pitch, 2 * pitch, 3.01 * pitch, 6.27 * pitch],
            [1.0, 0.25, 0.1, 0.2],
            [decay, 0.5 * decay, 0.25 * decay, 0.03],
            min(1.2, seconds - index * beat),
            sampling_rate,
        )
        place(wave, tine, index * beat, sampling_rate, rng.uniform(0.5, 1.0))
        if index % 4 == 0:
            place(wave, _low_tine(base, sampling_rate), index * beat, sampling_rate, 0.4)
    mechanism = noise(rng, seconds, sampling_rate, band(1500, 6000, 1))
    wave += mechanism * np.float32(log_uniform(rng, 0.001, 0.01))
    return finished(rng, wave, sampling_rate, 0.001, 0.15)


def _low_tine(base: float, sampling_rate: int) -> Waveform:
    return modes([0.5 * base, base], [1.0, 0.3], [0.5, 0.3], 0.9, sampling_rate)
