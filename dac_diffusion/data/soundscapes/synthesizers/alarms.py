"""Signals and bells that call for attention: sirens, alarms, telephones, doorbells."""

import numpy as np

from dac_diffusion.data.soundscapes.synthesizers.dsp import (
    Generator,
    Waveform,
    band,
    decaying,
    faded,
    finished,
    harmonic_tone,
    log_uniform,
    modes,
    noise,
    phase_of,
    place,
    random_curve,
    reverberated,
    silence,
    spawn_generator,
    time_axis,
)
from dac_diffusion.data.soundscapes.synthesizers.electronic import square_amplitudes


def siren(rng: Generator, sampling_rate: int) -> Waveform:
    """An emergency siren: a slow wail, a fast yelp, or two alternating notes."""
    seconds = rng.uniform(3.0, 5.0)
    time = time_axis(seconds, sampling_rate)
    start = rng.random()
    low = rng.uniform(450, 750)
    high = low * rng.uniform(1.7, 2.4)
    interval = rng.uniform(1.25, 1.4)
    manner = rng.choice(3, p=[0.45, 0.25, 0.3])
    if manner == 2:
        phase = time * np.float32(rng.uniform(0.6, 1.1)) + np.float32(start)
        swing = np.clip(8 * np.sin(2 * np.pi * phase), -1, 1) * 0.5 + 0.5
        pitch = low * interval**swing
    else:
        rate = rng.uniform(0.18, 0.5) if manner == 0 else rng.uniform(2.2, 4.5)
        cycle = np.mod(time * np.float32(rate) + np.float32(start), 1.0)
        # It rises faster than it falls, as a rotor or a charging capacitor does.
        swing = np.where(cycle < 0.4, cycle / 0.4, (1 - cycle) / 0.6)
        swing = swing * swing * (3 - 2 * swing)
        pitch = low * (high / low) ** swing
    order = np.arange(1, 12)
    amplitudes = order ** -rng.uniform(1.0, 2.0) * np.where(order % 2 == 1, 1.0, rng.uniform(0, 1))
    wave = harmonic_tone(pitch, amplitudes, seconds, sampling_rate)
    wave *= 0.7 + 0.3 * random_curve(rng, seconds, sampling_rate, 1.0)
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.6))
    return finished(rng, wave, sampling_rate, 0.1, 0.15)


def clock_alarm(rng: Generator, sampling_rate: int) -> Waveform:
    """A digital alarm clock: groups of quick, shrill beeps with a pause between the groups."""
    beeps = int(rng.integers(3, 6))
    length = rng.uniform(0.045, 0.085)
    period = length * rng.uniform(1.7, 2.2)
    group = max(beeps * period + rng.uniform(0.2, 0.45), 0.6)
    groups = int(rng.integers(3, 5))
    pitch = rng.uniform(1900, 4000)
    tone = harmonic_tone(pitch, square_amplitudes(5, rng.uniform(1, 2)), length, sampling_rate)
    tone = faded(tone, sampling_rate, 0.002, 0.004)
    wave = silence(groups * group, sampling_rate)
    for index in range(groups):
        for beep in range(beeps):
            place(wave, tone, index * group + beep * period, sampling_rate)
    return finished(rng, wave, sampling_rate)


def telephone_ringing(rng: Generator, sampling_rate: int) -> Waveform:
    """A telephone: one long or two short rings, of struck bells or of a two-tone warble."""
    double = rng.random() < 0.35
    length = rng.uniform(0.35, 0.45) if double else rng.uniform(0.9, 1.7)
    warble = rng.uniform(13, 25)
    mechanical = rng.random() < 0.5
    ring = (_bell_ring if mechanical else _warble)(rng, length, warble, sampling_rate)
    tail = 0.5 if mechanical else 0.05
    wave = silence(2 * length + 0.2 + tail if double else length + tail, sampling_rate)
    place(wave, ring, 0.0, sampling_rate)
    if double:
        place(wave, ring, length + 0.2, sampling_rate)
    return finished(rng, wave, sampling_rate, 0.001, 0.04)


def _bell_ring(rng: Generator, seconds: float, rate: float, sampling_rate: int) -> Waveform:
    """Two small gongs struck in turn by one hammer, which then ring out."""
    low = rng.uniform(900, 1500)
    ratios = np.array([1.0, 2.08, 2.83, 4.1])
    decay = rng.uniform(0.1, 0.25)
    gongs = [
        modes(
            low * interval * ratios, [1.0, 0.6, 0.4, 0.25], decay / ratios**0.4, 0.6, sampling_rate
        )
        for interval in (1.0, rng.uniform(1.15, 1.3))
    ]
    wave = silence(seconds + 0.5, sampling_rate)
    for index in range(int(seconds * rate)):
        place(wave, gongs[index % 2], index / rate, sampling_rate, rng.uniform(0.8, 1.0))
    return wave


def _warble(rng: Generator, seconds: float, rate: float, sampling_rate: int) -> Waveform:
    """Two tones that alternate too fast to follow, as electronic ringers do."""
    low, interval = rng.uniform(700, 1300), rng.uniform(1.2, 1.34)
    phase = phase_of(rate, seconds, sampling_rate)
    upper = (phase - np.floor(phase)) > 0.5
    pitch = np.where(upper, low * interval, low)
    amplitudes = square_amplitudes(7, rng.uniform(1.2, 2.5))
    wave = harmonic_tone(pitch, amplitudes, seconds, sampling_rate)
    return faded(wave, sampling_rate, 0.005, 0.03)


def alarm_bell(rng: Generator, sampling_rate: int) -> Waveform:
    """A fire or school bell: a hammer hitting one clangorous metal shell without a pause."""
    seconds = rng.uniform(2.5, 4.0)
    rate = rng.uniform(9, 22)
    base = rng.uniform(500, 1100)
    spread = np.exp(0.04 * spawn_generator(rng).standard_normal(9))
    ratios = np.array([1.0, 1.52, 2.41, 3.3, 4.2, 5.4, 6.7, 8.2, 9.9]) * spread
    amplitudes = np.array([0.5, 0.6, 1.0, 0.8, 1.0, 0.7, 0.6, 0.4, 0.3])
    decays = rng.uniform(0.15, 0.5) / ratios**0.5
    strike = modes(base * ratios, amplitudes, decays, 0.8, sampling_rate)
    clank = noise(rng, 0.03, sampling_rate, band(2000, 10000))
    clank *= decaying(0.03, sampling_rate, 0.004) * np.float32(rng.uniform(0.3, 1.0))
    place(strike, clank, 0.0, sampling_rate)
    wave = silence(seconds, sampling_rate)
    jitter = spawn_generator(rng).uniform(0.85, 1.15, int(seconds * rate) + 1)
    for index in range(int((seconds - 0.3) * rate)):
        place(wave, strike, index / rate + 0.004 * jitter[index], sampling_rate, jitter[index])
    return finished(rng, wave, sampling_rate, 0.001, 0.15)


def doorbell(rng: Generator, sampling_rate: int) -> Waveform:
    """A doorbell chime: two (ding-dong) or three ringing notes, mostly falling."""
    pitch = rng.uniform(520, 880)
    steps = ([0, -4], [0, -4], [0, -3], [0, -5], [0, -4, -7], [-4, 0, -7])[int(rng.integers(6))]
    gap = rng.uniform(0.35, 0.65)
    decay = rng.uniform(0.25, 0.55)
    overtone = rng.uniform(0.05, 0.4)
    ring = 3.0 * decay
    wave = silence(gap * (len(steps) - 1) + ring, sampling_rate)
    for index, step in enumerate(steps):
        note = pitch * 2 ** (step / 12)
        # A struck free bar: its second mode lies at 2.76 times the first, its third at 5.4.
        frequencies = np.array([note, note * 1.003, 2 * note, 2.76 * note, 5.4 * note])
        amplitudes = np.array([0.7, 0.3, 0.3 * overtone, overtone, 0.4 * overtone])
        lengths = decay * np.array([1, 0.9, 0.7, 0.3, 0.1])
        tone = modes(frequencies, amplitudes, lengths, ring, sampling_rate)
        place(wave, faded(tone, sampling_rate, 0.001, 0.05), gap * index, sampling_rate)
    wave = reverberated(rng, wave, sampling_rate, 0.2, rng.uniform(0.0, 0.3))
    return finished(rng, wave, sampling_rate, 0.001, 0.1)


def church_bells(rng: Generator, sampling_rate: int) -> Waveform:
    """Church bells: large bells with a minor-third partial, tolled singly or pealed in turn."""
    bells = int(rng.choice([1, 2, 3]))
    period = rng.uniform(1.2, 2.2) if bells == 1 else rng.uniform(0.45, 0.9)
    seconds = rng.uniform(3.5, 5.0)
    nominal = log_uniform(rng, 380, 1000)
    names = np.array([0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4.2, 5.4, 6.8, 8.3])
    strikes = []
    for index in range(bells):
        prime = nominal / 2 * [1.0, 1.125, 1.26][index]
        ratios = names * np.exp(0.006 * spawn_generator(rng).standard_normal(len(names)))
        amplitudes = np.array([5, 6, 8, 2.5, 10, 3.5, 3.5, 5, 3.5, 2.5, 1.5, 1]) / 10
        decays = rng.uniform(1.5, 3.0) / names**0.9
        # Two close copies of each partial: the slow beating of a bell that is not quite round.
        frequencies = prime * np.concatenate([ratios, ratios * 1.0015])
        levels = np.concatenate([amplitudes, 0.4 * amplitudes])
        tone = modes(frequencies, levels, np.tile(decays, 2), seconds, sampling_rate)
        clang = noise(rng, 0.08, sampling_rate, band(800, 6000))
        place(tone, clang * decaying(0.08, sampling_rate, 0.015), 0.0, sampling_rate, 0.5)
        strikes.append(tone)
    wave = silence(seconds, sampling_rate)
    for index in range(int(seconds / period) + 1):
        place(wave, strikes[-1 - index % bells], index * period, sampling_rate, rng.uniform(0.6, 1))
    return finished(rng, wave, sampling_rate, 0.002, 0.3)
