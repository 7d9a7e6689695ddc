"""Vehicles, engines and electrical machines: periodic pulses with noise that follows them."""

import numpy as np

from dac_diffusion.data.soundscapes.synthesizers.dsp import (
    Generator,
    Waveform,
    band,
    decaying,
    faded,
    filtered,
    finished,
    harmonic_tone,
    log_uniform,
    modes,
    noise,
    phase_of,
    place,
    random_curve,
    resonant,
    silence,
    sine,
    spawn_generator,
    tilted,
    time_axis,
)


def _revolutions(rng: Generator, seconds: float, sampling_rate: int) -> Waveform:
    """(T,) engine speed relative to its mean: idling, revving up and down, or driving off."""
    wander = 1 + 0.06 * (random_curve(rng, seconds, sampling_rate, 3.0) - 0.5)
    manner = rng.integers(3)
    depth = rng.uniform(0.5, 1.6)
    if manner == 0:
        return wander
    if manner == 1:
        revs = random_curve(rng, seconds, sampling_rate, rng.uniform(0.8, 1.8))
        return wander * (1 + np.float32(depth) * revs)
    ramp = time_axis(seconds, sampling_rate) / np.float32(seconds)
    return wander * (1 + np.float32(0.6 * depth) * ramp)


def engine(rng: Generator, sampling_rate: int) -> Waveform:
    """A combustion engine: firing pulses with uneven cylinders, exhaust resonances, some rattle."""
    seconds = rng.uniform(3.0, 5.0)
    cylinders = int(rng.choice([1, 2, 4, 6]))
    frequency = log_uniform(rng, 22, 75) * _revolutions(rng, seconds, sampling_rate)
    phase = phase_of(frequency, seconds, sampling_rate)
    uneven = 1 + rng.uniform(0.05, 0.35) * spawn_generator(rng).standard_normal(cylinders)
    firing = phase.astype(np.int64)
    within = (phase - firing).astype(np.float32)
    strength = uneven.astype(np.float32)[firing % cylinders]
    softness = np.float32(rng.uniform(0.05, 0.16))
    # A pressure pulse with no mean: a fast rise, a slower fall, per firing.
    pulse = within / softness * np.exp(1 - within / softness)
    pulse = strength * pulse * np.exp(-within * 2)
    hiss = noise(rng, seconds, sampling_rate, tilted(-0.4, 120, rng.uniform(1500, 5000)))
    wave = pulse + hiss * (0.15 + pulse) * np.float32(rng.uniform(0.08, 0.4))
    pipe = [rng.uniform(70, 140), rng.uniform(200, 450), rng.uniform(700, 1400)]
    body = resonant(pipe, [50, 120, 300], [1.0, 0.6, 0.25], floor=rng.uniform(0.03, 0.15))
    wave = filtered(wave - np.mean(wave), sampling_rate, body)
    return finished(rng, wave, sampling_rate, 0.08, 0.1)


def helicopter(rng: Generator, sampling_rate: int) -> Waveform:
    """A helicopter: thumping rotor blades at 9 to 18 a second over a turbine's whine."""
    seconds = rng.uniform(3.5, 5.0)
    rate = rng.uniform(9, 18) * (1 + 0.04 * random_curve(rng, seconds, sampling_rate, 0.5))
    phase = phase_of(rate, seconds, sampling_rate)
    within = (phase - np.floor(phase)).astype(np.float32)
    sharpness = np.float32(rng.uniform(4, 11))
    chop = np.exp(-sharpness * within) * np.minimum(within * 25, 1)
    blade = noise(rng, seconds, sampling_rate, tilted(-0.5, 70, rng.uniform(500, 1600)))
    air = noise(rng, seconds, sampling_rate, band(300, rng.uniform(2500, 6000), 1))
    thump = np.sin(np.float32(2 * np.pi * rng.uniform(3, 6)) * within) * np.exp(-6 * within)
    wave = blade * (0.12 + chop) + thump * np.float32(rng.uniform(1.0, 2.5))
    wave += air * (0.2 + chop) * np.float32(rng.uniform(0.05, 0.2))
    whine = sine(rng.uniform(700, 2600), seconds, sampling_rate)
    wave += whine * np.float32(rng.uniform(0.0, 0.06))
    distance = random_curve(rng, seconds, sampling_rate, 0.3)
    return finished(rng, wave * (0.5 + 0.5 * distance), sampling_rate, 0.2, 0.25)


def train(rng: Generator, sampling_rate: int) -> Waveform:
    """A train: chuffing steam or clacking rails, with a whistle chord blown over it."""
    seconds = rng.uniform(3.5, 5.0)
    rumble = noise(rng, seconds, sampling_rate, tilted(-0.8, 35, 400))
    wave = rumble * np.float32(rng.uniform(0.08, 0.25))
    if rng.random() < 0.6:
        wave += _chuffing(rng, seconds, sampling_rate)
    else:
        _add_rail_clacks(rng, wave, seconds, sampling_rate)
    start, length = rng.uniform(0.1, 0.9), rng.uniform(1.2, 2.2)
    if rng.random() < 0.85:
        place(wave, _whistle_chord(rng, length, sampling_rate), start, sampling_rate)
    return finished(rng, wave, sampling_rate, 0.1, 0.2)


def _chuffing(rng: Generator, seconds: float, sampling_rate: int) -> Waveform:
    rate = rng.uniform(2.5, 7.0) * (1 + 0.25 * time_axis(seconds, sampling_rate) / seconds)
    phase = phase_of(rate, seconds, sampling_rate)
    within = (phase - np.floor(phase)).astype(np.float32)
    accent = np.where(phase.astype(np.int64) % 4 == 0, np.float32(1.0), np.float32(0.7))
    puff = np.minimum(within * 10, 1) * np.exp(-rng.uniform(3, 6) * within) * accent
    steam = noise(rng, seconds, sampling_rate, band(200, rng.uniform(2000, 6000), 1))
    return steam * puff.astype(np.float32) * np.float32(rng.uniform(0.3, 0.6))


def _add_rail_clacks(rng: Generator, wave: Waveform, seconds: float, sampling_rate: int) -> None:
    pitch = rng.uniform(160, 420)
    ratios = np.array([1.0, 2.3, 4.1, 7.7])
    clack = modes(pitch * ratios, [1, 0.6, 0.4, 0.3], [0.06, 0.04, 0.02, 0.01], 0.2, sampling_rate)
    clack += noise(rng, 0.2, sampling_rate, band(500, 5000)) * decaying(0.2, sampling_rate, 0.012)
    period, gap = rng.uniform(0.45, 0.9), rng.uniform(0.1, 0.16)
    for index in range(int(seconds / period)):
        for offset in (0.0, gap):
            start = index * period + offset
            place(wave, clack, start, sampling_rate, rng.uniform(0.2, 0.4))


def _whistle_chord(rng: Generator, seconds: float, sampling_rate: int) -> Waveform:
    root = rng.uniform(230, 420)
    chord = [(1, 1.19, 1.5, 1.78), (1, 1.26, 1.5, 1.68), (1, 1.19, 1.41)][int(rng.integers(3))]
    # The steam pressure builds up and falls: pitch and level bend at both ends.
    time = time_axis(seconds, sampling_rate)
    bend = 1 - 0.12 * np.exp(-time / 0.08) - 0.10 * np.exp((time - np.float32(seconds)) / 0.07)
    chime = silence(seconds, sampling_rate)
    for ratio in chord:
        detuned = root * ratio * rng.uniform(0.99, 1.01)
        chime += harmonic_tone(detuned * bend, [1, 0.55, 0.35, 0.2, 0.1], seconds, sampling_rate)
    breath = noise(rng, seconds, sampling_rate, band(600, 5000, 1))
    chime = chime * np.float32(0.3) + breath * np.float32(rng.uniform(0.05, 0.2))
    return faded(chime, sampling_rate, 0.1, 0.2)


def car_horn(rng: Generator, sampling_rate: int) -> Waveform:
    """A car horn: two buzzing notes a third apart, one long honk or two or three short ones."""
    honks = int(rng.choice([1, 1, 2, 3]))
    length = rng.uniform(0.5, 1.4) if honks == 1 else rng.uniform(0.15, 0.35)
    gap = rng.uniform(0.08, 0.2)
    low = rng.uniform(300, 460)
    notes = (low, low * rng.choice([1.2, 1.25, 1.26]))
    brightness = rng.uniform(0.75, 0.93)
    centre = rng.uniform(1200, 2800)
    order = np.arange(1, 40)
    blast = silence(length, sampling_rate)
    time = time_axis(length, sampling_rate)
    for note in notes:
        formant = 0.25 + 1 / (1 + ((order * note - centre) / 900) ** 2)
        # The membrane needs some 20 ms to reach its pitch.
        pitch = note * (1 - 0.04 * np.exp(-time / np.float32(0.02)))
        blast += harmonic_tone(pitch, formant * brightness**order, length, sampling_rate)
    blast = faded(blast, sampling_rate, 0.02, 0.05)
    wave = silence(honks * (length + gap) - gap + 0.05, sampling_rate)
    for index in range(honks):
        place(wave, blast, index * (length + gap), sampling_rate)
    return finished(rng, wave, sampling_rate, 0.002, 0.02)
