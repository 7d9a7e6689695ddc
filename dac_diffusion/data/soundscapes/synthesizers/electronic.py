"""Electronic and electrical sounds: beeps, codes, pings, zaps, hum and static."""

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
    noise,
    num_samples,
    place,
    poisson_times,
    random_curve,
    reverberated,
    silence,
    sine,
    spawn_generator,
    time_axis,
)

# The letters A to Z.
_MORSE = (
    *(".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--"),
    *("-.", "---", ".--.", "--.-", ".-.", "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--.."),
)


def square_amplitudes(count: int, roll_off: float = 1.0) -> np.ndarray:
    """Harmonic amplitudes of a square wave (roll_off 1), duller for larger roll-offs."""
    order = np.arange(1, count + 1)
    return np.where(order % 2 == 1, order**-roll_off, 0.0)


def electronic_beep(rng: Generator, sampling_rate: int) -> Waveform:
    """A beep of a machine: one to three equal tones of constant pitch, pure or square."""
    beeps = int(rng.choice([1, 1, 1, 2, 3]))
    length = rng.uniform(0.2, 0.8) if beeps == 1 else rng.uniform(0.1, 0.25)
    gap = rng.uniform(0.08, 0.3)
    pitch = log_uniform(rng, 650, 2400)
    amplitudes = square_amplitudes(15, log_uniform(rng, 1.2, 5.0))
    tone = harmonic_tone(pitch, amplitudes, length, sampling_rate)
    edge = log_uniform(rng, 0.002, 0.02)
    tone = faded(tone, sampling_rate, edge, edge)
    wave = silence(beeps * (length + gap) - gap + 0.02, sampling_rate)
    for index in range(beeps):
        place(wave, tone, index * (length + gap), sampling_rate)
    return finished(rng, wave, sampling_rate)


def morse_code(rng: Generator, sampling_rate: int) -> Waveform:
    """Morse code: random letters keyed on one tone, at 12 to 26 words a minute."""
    dot = 1.2 / rng.uniform(12, 26)
    pitch = rng.uniform(450, 1000)
    wanted = rng.uniform(1.5, 2.5)
    marks: list[tuple[float, float]] = []  # onset and length in s
    position = 0.02
    for letter in spawn_generator(rng).permutation(len(_MORSE)):
        for sign in _MORSE[letter]:
            length = dot if sign == "." else 3 * dot
            marks.append((position, length))
            position += length + dot
        position += 2 * dot
        if position > wanted:
            break
    wave = silence(position, sampling_rate)
    tone = harmonic_tone(pitch, [1, rng.uniform(0, 0.3), rng.uniform(0, 0.3)], 4, sampling_rate)
    for onset, length in marks:
        mark = tone[: num_samples(length, sampling_rate)]
        place(wave, faded(mark, sampling_rate, 0.004, 0.004), onset, sampling_rate)
    seconds = len(wave) / sampling_rate
    receiver = noise(rng, seconds, sampling_rate, band(300, 2500))
    wave += receiver[: len(wave)] * np.float32(log_uniform(rng, 0.002, 0.08))
    return finished(rng, wave, sampling_rate, 0.005, 0.01)


def sonar_ping(rng: Generator, sampling_rate: int) -> Waveform:
    """A sonar ping: a ringing tone under water with fainter, later echoes of itself."""
    seconds = rng.uniform(1.6, 2.5)
    pitch = log_uniform(rng, 600, 1600)
    glide = 1 - rng.uniform(0.0, 0.03) * time_axis(seconds, sampling_rate)
    ping = harmonic_tone(pitch * glide, [1, rng.uniform(0, 0.04)], seconds, sampling_rate)
    ping *= decaying(seconds, sampling_rate, rng.uniform(0.12, 0.4), attack=0.006)
    wave = ping.copy()
    echo, level = rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.5)
    for index in range(1, 3):
        place(wave, ping, index * echo, sampling_rate, level**index)
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8))
    return finished(rng, wave, sampling_rate, 0.002, 0.3)


def laser_zap(rng: Generator, sampling_rate: int) -> Waveform:
    """A science-fiction laser: one to four tones that fall several octaves in a moment."""
    shots = int(rng.choice([1, 1, 2, 3, 4]))
    length = rng.uniform(0.15, 0.45)
    top, bottom = log_uniform(rng, 2500, 6500), log_uniform(rng, 100, 400)
    time = time_axis(length, sampling_rate) / np.float32(length)
    curve = np.float32(rng.uniform(2.0, 5.0))
    fall = (np.exp(-curve * time) - np.exp(-curve)) / (1 - np.exp(-curve))
    pitch = bottom * (top / bottom) ** fall
    tone = harmonic_tone(pitch, [1, 0.3, 0.2, 0.1], length, sampling_rate)
    ring = rng.uniform(20, 90)
    tone *= 1 - np.float32(rng.uniform(0, 0.5)) * np.square(sine(ring, length, sampling_rate))
    tone = faded(tone, sampling_rate, 0.003, 0.5 * length)
    gap = length * rng.uniform(0.7, 1.2)
    wave = silence((shots - 1) * gap + length, sampling_rate)
    for index in range(shots):
        place(wave, tone, index * gap, sampling_rate)
    return finished(rng, wave, sampling_rate)


def buzzer(rng: Generator, sampling_rate: int) -> Waveform:
    """A buzzer: one or two harsh, low, rattling tones, as of a game show or a door."""
    buzzes = int(rng.choice([1, 1, 2]))
    length = rng.uniform(0.5, 1.5) if buzzes == 1 else rng.uniform(0.2, 0.4)
    pitch = rng.uniform(90, 220)
    order = np.arange(1, 61)
    centre, width = rng.uniform(500, 1600), rng.uniform(300, 900)
    amplitudes = order**-0.8 * (0.2 + 1 / (1 + ((order * pitch - centre) / width) ** 2))
    tone = harmonic_tone(pitch, amplitudes, length, sampling_rate)
    detuned = pitch * rng.uniform(1.002, 1.03)
    beating = np.float32(rng.uniform(0.0, 0.9))
    tone += beating * harmonic_tone(detuned, amplitudes, length, sampling_rate)
    tone = np.tanh(tone * np.float32(rng.uniform(0.5, 2.0)))
    tone = faded(tone, sampling_rate, 0.004, 0.01)
    wave = silence(buzzes * (length + 0.12) - 0.1, sampling_rate)
    for index in range(buzzes):
        place(wave, tone, index * (length + 0.12), sampling_rate)
    return finished(rng, wave, sampling_rate)


def electric_hum(rng: Generator, sampling_rate: int) -> Waveform:
    """Mains hum: steady harmonics of 50 or 60 Hz, from a soft transformer to a harsh buzz."""
    seconds = rng.uniform(2.5, 5.0)
    mains = float(rng.choice([50.0, 60.0])) * rng.uniform(0.995, 1.005)
    order = np.arange(1, 161)
    slope = rng.uniform(0.9, 2.0)
    amplitudes = order**-slope * np.exp(-order / rng.uniform(15, 60))
    amplitudes *= np.exp(0.5 * spawn_generator(rng).standard_normal(160))
    # Iron cores pull twice a cycle, so the even harmonics lead.
    amplitudes *= np.where(order % 2 == 0, 1.0, rng.uniform(0.1, 0.5))
    wave = harmonic_tone(mains, amplitudes, seconds, sampling_rate)
    arcs = noise(rng, seconds, sampling_rate, band(1000, 5000, 1))
    beat = np.square(sine(mains, seconds, sampling_rate))
    wave += arcs * beat**4 * np.float32(log_uniform(rng, 0.003, 0.05))
    sway = random_curve(rng, seconds, sampling_rate, 1.0)
    return finished(rng, wave * (0.9 + 0.1 * sway), sampling_rate, 0.03, 0.05)


def static_noise(rng: Generator, sampling_rate: int) -> Waveform:
    """Radio static: flat noise, steady or fluttering, with crackles and now and then a squeal."""
    seconds = rng.uniform(1.5, 4.0)
    flat = rng.uniform(6000, 14000)
    wave = noise(rng, seconds, sampling_rate, band(rng.uniform(60, 250), flat, 3))
    flutter = random_curve(rng, seconds, sampling_rate, log_uniform(rng, 2, 40))
    depth = np.float32(rng.uniform(0.0, 0.6))
    wave *= 1 - depth * flutter
    crackle = noise(rng, 0.02, sampling_rate, band(200, 8000))
    crackle *= decaying(0.02, sampling_rate, 0.003)
    for start in poisson_times(rng, rng.uniform(0, 15), seconds):
        place(wave, crackle, start, sampling_rate, 1.5)
    if rng.random() < 0.4:
        drift = random_curve(rng, seconds, sampling_rate, 1.5)
        squeal = sine(400 + rng.uniform(800, 2500) * drift, seconds, sampling_rate)
        wave += squeal * np.float32(rng.uniform(0.05, 0.35))
    return finished(rng, wave, sampling_rate, 0.005, 0.01)
