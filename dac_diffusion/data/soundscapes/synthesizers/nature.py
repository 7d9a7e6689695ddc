"""Weather, water, fire and insects: mostly shaped noise, drops and bubbles."""

import numpy as np

from dac_diffusion.data.soundscapes.synthesizers.dsp import (
    Generator,
    Waveform,
    band,
    decaying,
    filtered,
    finished,
    log_uniform,
    noise,
    place,
    poisson_times,
    random_curve,
    resonant,
    reverberated,
    silence,
    sine,
    spawn_generator,
    tilted,
    time_axis,
)


def bubble(frequency: float, sampling_rate: int, rise: float = 0.1) -> Waveform:
    """One air bubble: a sine that decays and rises as it nears the surface (Minnaert resonance)."""
    radius = 3.0 / frequency  # m
    damping = 0.13 / radius + 0.0072 * radius**-1.5
    seconds = min(0.25, 5.0 / damping)
    time = time_axis(seconds, sampling_rate)
    frequency_curve = frequency * (1 + np.float32(rise * damping) * time)
    tone = sine(frequency_curve, seconds, sampling_rate)
    return tone * decaying(seconds, sampling_rate, 1 / damping, attack=0.0008)


def _drop_train(
    rng: Generator, seconds: float, sampling_rate: int, rate: float, heaviness: float
) -> Waveform:
    """Single-sample impulses at random times with log-normal sizes and random signs."""
    train = silence(seconds, sampling_rate)
    times = poisson_times(rng, rate, seconds)
    source = spawn_generator(rng)
    sizes = np.exp(heaviness * source.standard_normal(len(times)))
    sizes *= np.where(source.random(len(times)) < 0.5, -1.0, 1.0)
    positions = np.minimum((times * sampling_rate).astype(np.int64), len(train) - 1)
    np.add.at(train, positions, sizes.astype(np.float32))
    return train


def rain(rng: Generator, sampling_rate: int) -> Waveform:
    """Rain: a high hiss of far drops under the patter of near ones, drizzle to downpour."""
    seconds = rng.uniform(3.0, 5.0)
    density = log_uniform(rng, 60, 1200)
    hiss_low, hiss_high = rng.uniform(700, 2500), rng.uniform(7000, 14000)
    surface = rng.uniform(1500, 5000)
    hiss = noise(rng, seconds, sampling_rate, band(hiss_low, hiss_high, 1))
    patter = _drop_train(rng, seconds, sampling_rate, density, heaviness=1.0)
    ring = resonant([surface, 0.45 * surface], [surface * 0.5, 300.0], [1.0, 0.5], floor=0.1)
    patter = filtered(patter, sampling_rate, ring)
    patter /= np.float32(np.sqrt(np.mean(np.square(patter))) + 1e-9)
    wave = hiss * np.float32(rng.uniform(0.6, 1.2)) + patter * np.float32(rng.uniform(0.6, 1.1))
    drips = [bubble(log_uniform(rng, 900, 3000), sampling_rate) for _ in range(4)]
    loudness = rng.uniform(0.5, 2.5)
    for index, start in enumerate(poisson_times(rng, rng.uniform(1, 12), seconds)):
        place(wave, drips[index % 4], start, sampling_rate, loudness)
    swell = random_curve(rng, seconds, sampling_rate, 0.7)
    # Rare large drops would otherwise set the peak and leave the rain inaudible.
    wave = np.tanh(wave * np.float32(0.22))
    return finished(rng, wave * (0.75 + 0.25 * swell), sampling_rate, 0.08, 0.1)


def wind(rng: Generator, sampling_rate: int) -> Waveform:
    """Wind: gusts of low noise with howling resonances that climb as a gust grows."""
    seconds = rng.uniform(3.5, 5.0)
    gusts = random_curve(rng, seconds, sampling_rate, rng.uniform(0.5, 1.8))
    roar_high = log_uniform(rng, 150, 600)
    wave = noise(rng, seconds, sampling_rate, tilted(-0.7, 35, roar_high))
    wave *= 0.15 + gusts * gusts
    leaves = noise(rng, seconds, sampling_rate, band(500, rng.uniform(1200, 3500), 1))
    wave += leaves * gusts * gusts * np.float32(rng.uniform(0.05, 0.3))
    howl_level = max(0.0, rng.uniform(-0.3, 0.9))
    for _ in range(2):
        centre = log_uniform(rng, 250, 900)
        frequency = centre * (0.8 + 0.6 * gusts)
        # A narrow band of noise around a gliding centre: slow random amplitude on a sine.
        wobble = random_curve(rng, seconds, sampling_rate, rng.uniform(15, 40)) - 0.5
        howl = sine(frequency * (1 + 0.03 * wobble), seconds, sampling_rate)
        quiver = random_curve(rng, seconds, sampling_rate, 30.0)
        wave += howl * quiver * gusts**2 * np.float32(howl_level)
    return finished(rng, wave, sampling_rate, 0.15, 0.2)


def sea_waves(rng: Generator, sampling_rate: int) -> Waveform:
    """Waves on a shore: a rumble that swells, a break of bright noise, a long hiss back."""
    seconds = rng.uniform(4.0, 5.0)
    wash_high = rng.uniform(5000, 11000)
    body = noise(rng, seconds, sampling_rate, tilted(-0.5, 60, rng.uniform(600, 1500)))
    wash = noise(rng, seconds, sampling_rate, band(rng.uniform(300, 900), wash_high, 1))
    hiss = noise(rng, seconds, sampling_rate, band(2500, 12000, 1))
    time = time_axis(seconds, sampling_rate)
    swell, foam = np.full_like(time, 0.12), np.full_like(time, 0.03)
    start = rng.uniform(0.6, 1.6)
    for _ in range(3):
        rise, fall = rng.uniform(0.35, 0.8), rng.uniform(0.6, 1.3)
        width = np.where(time < start, np.float32(1 / rise), np.float32(1 / fall))
        bump = np.exp(-np.square((time - np.float32(start)) * width))
        size = np.float32(rng.uniform(0.5, 1.0))
        swell += size * bump
        # Foam starts at the break and dies away more slowly than the wave itself.
        after = np.maximum(time - np.float32(start - 0.2), 0)
        foam += size * after * np.exp(-after / np.float32(fall * 0.6)) / np.float32(fall * 0.3)
        start += rng.uniform(2.0, 3.2)
    wave = body * swell * np.float32(rng.uniform(0.5, 1.0)) + wash * swell * swell
    wave += hiss * foam * np.float32(rng.uniform(0.2, 0.6))
    return finished(rng, wave, sampling_rate, 0.15, 0.25)


def crickets(rng: Generator, sampling_rate: int) -> Waveform:
    """Crickets: chirps of a few fast pulses on a pure high carrier, from one to four insects."""
    seconds = rng.uniform(2.5, 4.5)
    wave = silence(seconds, sampling_rate)
    carrier = rng.uniform(3600, 5600)
    for insect in range(int(rng.integers(1, 5))):
        pulse_rate = rng.uniform(22, 60)
        pulses = int(rng.integers(2, 6))
        trilling = rng.random() < 0.25
        period = pulses / pulse_rate * (1.0 if trilling else rng.uniform(1.5, 4.0))
        pitch = carrier * rng.uniform(0.9, 1.1)
        time = time_axis(seconds, sampling_rate) + np.float32(rng.random())
        position = np.mod(time, np.float32(period)) * np.float32(pulse_rate)  # in pulses
        # Silent after the last pulse; a chirp always begins and ends between two pulses, at zero.
        pulse_shape = np.sin(np.pi * np.minimum(position, np.float32(pulses))) ** 2
        tone = sine(pitch, seconds, sampling_rate)
        level = 1.0 if insect == 0 else rng.uniform(0.1, 0.6)
        wave += tone * pulse_shape * np.float32(level)
    night = noise(rng, seconds, sampling_rate, band(1500, 7000, 1))
    wave += night * np.float32(log_uniform(rng, 0.003, 0.03))
    return finished(rng, wave, sampling_rate, 0.03, 0.03)


def water_drops(rng: Generator, sampling_rate: int) -> Waveform:
    """Dripping water: one to five drops, each a click and a bubble, often in an echoing room."""
    count = int(rng.integers(1, 6))
    period = log_uniform(rng, 0.2, 0.7)
    seconds = period * count + 0.4
    wave = silence(seconds, sampling_rate)
    pitch = log_uniform(rng, 600, 2400)
    for index in range(count):
        start = (index + rng.uniform(0, 0.25)) * period + 0.02
        level = rng.uniform(0.5, 1.0)
        place(wave, _splash(rng, sampling_rate), start, sampling_rate, 0.25 * level)
        for _ in range(int(rng.integers(1, 4))):
            one = bubble(pitch * log_uniform(rng, 0.75, 1.4), sampling_rate, rng.uniform(0.05, 0.5))
            place(wave, one, start + rng.uniform(0.005, 0.06), sampling_rate, level)
            level *= 0.6
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.08, 0.4), rng.uniform(0.05, 0.6))
    return finished(rng, wave, sampling_rate, 0.001, 0.05)


def _splash(rng: Generator, sampling_rate: int) -> Waveform:
    click = noise(rng, 0.03, sampling_rate, band(1500, 9000))
    return click * decaying(0.03, sampling_rate, rng.uniform(0.002, 0.006))


def bubbling(rng: Generator, sampling_rate: int) -> Waveform:
    """Bubbling liquid: a steady stream of low bubbles of many sizes, simmer to rolling boil."""
    seconds = rng.uniform(2.5, 4.5)
    wave = silence(seconds, sampling_rate)
    centre = log_uniform(rng, 250, 700)
    kinds = [
        bubble(centre * log_uniform(rng, 0.5, 2.0), sampling_rate, rng.uniform(0.1, 0.5))
        for _ in range(24)
    ]
    times = poisson_times(rng, log_uniform(rng, 15, 70), seconds)
    source = spawn_generator(rng)
    choice = source.integers(0, len(kinds), len(times))
    levels = np.exp(0.5 * source.standard_normal(len(times)))
    for start, kind, level in zip(times, choice, levels, strict=True):
        place(wave, kinds[kind], start, sampling_rate, level)
    rumble = noise(rng, seconds, sampling_rate, band(80, 500))
    wave += rumble * np.float32(rng.uniform(0.01, 0.06))
    return finished(rng, wave, sampling_rate, 0.03, 0.06)


def crackling_fire(rng: Generator, sampling_rate: int) -> Waveform:
    """A fire: a soft roar under crackles that come in clusters, a few of them loud pops."""
    seconds = rng.uniform(3.0, 5.0)
    roar = noise(rng, seconds, sampling_rate, tilted(-0.7, 40, rng.uniform(300, 1200)))
    flicker = random_curve(rng, seconds, sampling_rate, rng.uniform(4, 9))
    wave = roar * (0.4 + flicker) * np.float32(log_uniform(rng, 0.012, 0.06))
    hiss = noise(rng, seconds, sampling_rate, band(800, 9000, 1))
    wave += hiss * (0.5 + flicker) * np.float32(log_uniform(rng, 0.0005, 0.008))
    snaps = []
    for _ in range(16):
        length = log_uniform(rng, 0.004, 0.03)
        burst = noise(rng, length, sampling_rate, band(log_uniform(rng, 500, 4000), 9000, 1))
        snaps.append(burst * decaying(length, sampling_rate, length / 5, attack=0.0002))
    times = poisson_times(rng, log_uniform(rng, 18, 70), seconds)
    busy = random_curve(rng, seconds, sampling_rate, 2.0)
    source = spawn_generator(rng)
    choice = source.integers(0, len(snaps), len(times))
    levels = 0.12 * np.exp(0.9 * source.standard_normal(len(times)))
    for start, kind, level in zip(times, choice, levels, strict=True):
        cluster = busy[int(start * sampling_rate)]
        place(wave, snaps[kind], start, sampling_rate, min(1.0, level * (0.3 + cluster)))
    return finished(rng, wave, sampling_rate, 0.05, 0.05)


def thunderstorm(rng: Generator, sampling_rate: int) -> Waveform:
    """Thunder: claps close together, a long rolling rumble after them, often over rain."""
    seconds = rng.uniform(4.0, 5.0)
    strike = rng.uniform(0.1, 0.5)
    nearness = rng.random()
    rumble = noise(rng, seconds, sampling_rate, tilted(-1.0, 30, log_uniform(rng, 150, 900)))
    roll = 0.4 + random_curve(rng, seconds, sampling_rate, rng.uniform(3, 7)) ** 2
    time = time_axis(seconds, sampling_rate) - np.float32(strike)
    fall = np.exp(-np.maximum(time, 0) / np.float32(rng.uniform(1.2, 3.0)))
    rise = 1 / (1 + np.exp(np.clip(-time * np.float32(rng.uniform(15, 60)), -30, 30)))
    wave = rumble * roll * fall * rise
    for _ in range(int(rng.integers(1, 5))):
        length = rng.uniform(0.5, 0.9)
        crack = noise(rng, length, sampling_rate, tilted(-0.5, 60, 600 + 4000 * nearness**2))
        crack *= decaying(length, sampling_rate, rng.uniform(0.05, 0.18), attack=0.003)
        place(wave, crack, strike + rng.uniform(0, 0.5), sampling_rate, rng.uniform(0.3, 1.0))
    if rng.random() < 0.75:
        shower = noise(rng, seconds, sampling_rate, band(1200, 9000, 1))
        wave += shower * np.float32(log_uniform(rng, 0.006, 0.04))
    return finished(rng, np.tanh(wave), sampling_rate, 0.03, 0.25)
