"""Blows and beats: steps, knocks, claps, drums, ticks, bounces and the heart."""

import numpy as np

from dac_diffusion.data.soundscapes.synthesizers.dsp import (
    Generator,
    Waveform,
    band,
    decaying,
    finished,
    log_uniform,
    modes,
    noise,
    phase_of,
    place,
    reverberated,
    silence,
    spawn_generator,
)


def _thump(
    top: float, bottom: float, glide: float, decay: float, seconds: float, sampling_rate: int
) -> Waveform:
    """A membrane: a sine whose pitch falls from `top` to `bottom` Hz while it dies away."""
    fall = decaying(seconds, sampling_rate, glide, attack=1e-6)
    phase = phase_of(bottom + (top - bottom) * fall, seconds, sampling_rate)
    tone = np.sin((2 * np.pi * phase).astype(np.float32))
    return tone * decaying(seconds, sampling_rate, decay, attack=0.002)


def _burst(rng: Generator, low: float, high: float, decay: float, sampling_rate: int) -> Waveform:
    seconds = 6 * decay
    return noise(rng, seconds, sampling_rate, band(low, high, 1)) * decaying(
        seconds, sampling_rate, decay
    )


def footsteps(rng: Generator, sampling_rate: int) -> Waveform:
    """Three to six steps: heel and toe on a hard floor, on boards, or on gravel or snow."""
    steps = int(rng.integers(3, 7))
    period = rng.uniform(0.32, 0.6)
    ground = int(rng.integers(3))
    wave = silence(steps * period + 0.15, sampling_rate)
    pitch = rng.uniform(0.75, 1.35)
    roll = rng.uniform(0.05, 0.12)
    for index in range(steps):
        start = max(0.0, (index + rng.uniform(-0.04, 0.04)) * period + 0.02)
        level = rng.uniform(0.7, 1.0)
        foot = pitch * (1.0 if index % 2 else 1.08)
        if ground == 2:
            place(wave, _crunch(rng, foot, period, sampling_rate), start, sampling_rate, level)
        else:
            heel = _shoe(rng, ground == 0, foot, sampling_rate)
            place(wave, heel, start, sampling_rate, level)
            toe = _shoe(rng, ground == 0, foot * 1.25, sampling_rate)
            place(wave, toe, start + roll, sampling_rate, level * rng.uniform(0.2, 0.5))
    room = rng.uniform(0.0, 0.35) if ground < 2 else 0.0
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.05, 0.2), room)
    return finished(rng, wave, sampling_rate, 0.002, 0.04)


def _shoe(rng: Generator, hard: bool, pitch: float, sampling_rate: int) -> Waveform:
    if hard:
        frequencies, decays = np.array([180.0, 560.0, 1250.0, 2300.0]), [0.02, 0.012, 0.008, 0.005]
        amplitudes = [0.7, 0.8, 0.7, 0.4]
    else:
        frequencies, decays = np.array([75.0, 130.0, 260.0, 540.0]), [0.05, 0.04, 0.025, 0.015]
        amplitudes = [1.0, 1.0, 0.5, 0.25]
    frequencies = frequencies * pitch * spawn_generator(rng).uniform(0.93, 1.07, 4)
    blow = modes(frequencies, amplitudes, decays, 0.2, sampling_rate)
    scuff = _burst(rng, 300, 3000 if hard else 1200, 0.012, sampling_rate)
    place(blow, scuff, 0.0, sampling_rate, rng.uniform(0.2, 0.5))
    return blow


def _crunch(rng: Generator, pitch: float, period: float, sampling_rate: int) -> Waveform:
    """Many small grains giving way, first under the heel and then under the ball of the foot."""
    seconds = 0.75 * period
    grit = silence(seconds, sampling_rate)
    grains = [
        _burst(rng, 700 * pitch, 6000 * pitch, d, sampling_rate) for d in (0.002, 0.004, 0.008)
    ]
    source = spawn_generator(rng)
    count = int(source.integers(40, 90))
    times = np.concatenate(
        [source.normal(0.25, 0.1, count) * seconds, source.normal(0.65, 0.13, count) * seconds]
    )
    levels = np.exp(0.8 * source.standard_normal(2 * count))
    for start, level, kind in zip(times, levels, source.integers(0, 3, 2 * count), strict=True):
        place(grit, grains[kind], float(start), sampling_rate, 0.2 * level)
    return grit


def clapping(rng: Generator, sampling_rate: int) -> Waveform:
    """Clapping hands: one person, a few in rough unison, or the applause of a crowd."""
    people = int(rng.choice([1, 3, 12, 30]))
    seconds = rng.uniform(1.5, 2.5) if people == 1 else rng.uniform(2.0, 4.0)
    wave = silence(seconds, sampling_rate)
    claps = []
    for _ in range(min(2 * people, 12)):
        centre = rng.uniform(1000, 2200)
        clap = _burst(rng, centre * 0.7, centre * 1.8, rng.uniform(0.006, 0.014), sampling_rate)
        # The air between the palms rings for a moment.
        cavity = modes([centre], [0.8], [0.006], len(clap) / sampling_rate, sampling_rate)
        claps.append(clap + cavity[: len(clap)])
    for person in range(people):
        source = spawn_generator(rng)
        period, level = source.uniform(0.22, 0.36), source.uniform(0.3, 1.0)
        onset = 0.02 if people == 1 else source.uniform(0, period)
        starts = onset + period * np.arange(int(seconds / period) + 1)
        starts += source.normal(0, 0.012, len(starts))
        for start in starts:
            kind = claps[(person + int(source.integers(2))) % len(claps)]
            place(wave, kind, max(0.0, start), sampling_rate, level * source.uniform(0.7, 1))
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.6))
    return finished(rng, wave, sampling_rate, 0.002, 0.08)


def door_wood_knock(rng: Generator, sampling_rate: int) -> Waveform:
    """Knuckles on a wooden door: two to five dull blows with a hollow panel resonance."""
    blows = int(rng.integers(2, 6))
    period = rng.uniform(0.14, 0.32)
    panel = rng.uniform(140, 300)
    spread = spawn_generator(rng).uniform(0.9, 1.1, 5)
    ratios = np.array([1.0, 1.9, 2.8, 4.3, 6.5]) * spread
    decays = rng.uniform(0.025, 0.06) / ratios**0.6
    wave = silence(blows * period + 0.25, sampling_rate)
    for index in range(blows):
        brightness = rng.uniform(0.5, 0.8)
        blow = modes(panel * ratios, brightness ** np.arange(5), decays, 0.3, sampling_rate)
        place(blow, _burst(rng, 400, 3000, 0.004, sampling_rate), 0, sampling_rate, 0.35)
        start = index * period * rng.uniform(0.97, 1.03)
        place(wave, blow, start, sampling_rate, rng.uniform(0.6, 1.0))
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.04, 0.15), rng.uniform(0.0, 0.4))
    return finished(rng, wave, sampling_rate, 0.001, 0.05)


def drum_beat(rng: Generator, sampling_rate: int) -> Waveform:
    """A drum kit: kick, snare and hi-hat in a one-bar pattern, played for about two seconds."""
    step = 60 / rng.uniform(85, 150) / 2  # an eighth note
    kick = _thump(rng.uniform(130, 220), rng.uniform(42, 62), 0.03, 0.13, 0.4, sampling_rate)
    snare = 0.5 * _burst(rng, 500, 9000, rng.uniform(0.04, 0.09), sampling_rate)
    shell = rng.uniform(170, 230)
    body = modes([shell, 1.6 * shell], [0.8, 0.5], [0.06, 0.04], 0.25, sampling_rate)
    place(body, snare, 0.0, sampling_rate)
    hat = _burst(rng, 6500, 14000, log_uniform(rng, 0.012, 0.06), sampling_rate)
    kicks = ("x...x...", "x..xx...", "x.x.x...", "x..x.x..")[int(rng.integers(4))]
    hats = ("xxxxxxxx", "x.xxx.xx", ".x.x.x.x")[int(rng.integers(3))]
    hat_level = rng.uniform(0.08, 0.3)
    count = round(2.4 / step)
    wave = silence(count * step + 0.1, sampling_rate)
    for index in range(count):
        start = index * step
        if kicks[index % 8] == "x":
            place(wave, kick, start, sampling_rate, 1.0)
        if index % 4 == 2:
            place(wave, body, start, sampling_rate, 0.7)
        if hats[index % 8] == "x":
            place(wave, hat, start, sampling_rate, hat_level * (1.0 if index % 2 else 0.7))
    return finished(rng, np.tanh(1.2 * wave), sampling_rate, 0.001, 0.08)


def clock_tick(rng: Generator, sampling_rate: int) -> Waveform:
    """A ticking clock: tiny clicks of the escapement at a fixed rate, tick and tock unlike."""
    rate = float(rng.choice([1.0, 2.0, 2.5, 4.0, 5.0])) * rng.uniform(0.97, 1.03)
    seconds = max(2.5, 3.0 / rate) + rng.uniform(0, 1.5)
    body = rng.uniform(0.7, 1.5)
    sounds = []
    for pitch in (1.0, rng.uniform(0.75, 0.95)):
        click = silence(0.08, sampling_rate)
        for delay, level in ((0.0, 1.0), (rng.uniform(0.006, 0.02), rng.uniform(0.2, 0.8))):
            ratios = np.array([1700.0, 2900.0, 4300.0, 6400.0]) * body * pitch
            ratios *= spawn_generator(rng).uniform(0.9, 1.1, 4)
            levels = [0.6, 1.0, 0.7, 0.5]
            ring = modes(ratios, levels, [0.005, 0.004, 0.003, 0.002], 0.05, sampling_rate)
            place(click, ring, delay, sampling_rate, level)
        case = modes([320 * body * pitch], [rng.uniform(0.1, 0.5)], [0.012], 0.08, sampling_rate)
        sounds.append(click + case)
    wave = silence(seconds, sampling_rate)
    tock_level = rng.uniform(0.4, 1.0)
    for index in range(int((seconds - 0.05) * rate) + 1):
        level = tock_level if index % 2 else 1.0
        place(wave, sounds[index % 2], 0.02 + index / rate, sampling_rate, level)
    room = noise(rng, seconds, sampling_rate, band(100, 3000, 1))
    wave += room * np.float32(log_uniform(rng, 0.0005, 0.006))
    return finished(rng, wave, sampling_rate, 0.005, 0.02)


def bouncing_ball(rng: Generator, sampling_rate: int) -> Waveform:
    """A dropped ball: blows of one timbre, ever closer together and weaker."""
    bounce = rng.uniform(0.68, 0.84)  # the speed kept at each impact
    flight = rng.uniform(0.3, 0.5)
    starts, levels = [0.01], [1.0]
    while flight > 0.025 and len(starts) < 25:
        starts.append(starts[-1] + flight)
        levels.append(levels[-1] * bounce)
        flight *= bounce
    small = rng.random() < 0.5
    pitch = log_uniform(rng, 900, 2200) if small else log_uniform(rng, 65, 120)
    ratios = np.array([1.0, 1.75, 2.6, 4.4]) if small else np.array([1.0, 2.2, 4.9, 8.3])
    decays = np.array([0.012, 0.009, 0.006, 0.004]) * (1 if small else 4)
    blow = modes(pitch * ratios, [1.0, 0.6, 0.35, 0.25], decays, 0.3, sampling_rate)
    slap = _burst(rng, 1.5 * pitch, 6000, 0.003, sampling_rate)
    place(blow, slap, 0.0, sampling_rate, rng.uniform(0.1, 0.3))
    wave = silence(starts[-1] + 0.2, sampling_rate)
    for start, level in zip(starts, levels, strict=True):
        place(wave, blow, start, sampling_rate, level)
    wave = reverberated(rng, wave, sampling_rate, rng.uniform(0.1, 0.3), rng.uniform(0.0, 0.4))
    return finished(rng, wave, sampling_rate, 0.001, 0.04)


def heartbeat(rng: Generator, sampling_rate: int) -> Waveform:
    """A heart: pairs of low thumps (lub-dub) at 55 to 130 beats a minute."""
    period = 60 / rng.uniform(55, 130)
    beats = max(2, round(2.4 / period))
    gap = min(0.3, 0.38 * period)
    pitch = rng.uniform(42, 75)
    decay = rng.uniform(0.035, 0.06)
    first = _thump(1.7 * pitch, pitch, 0.03, decay, 0.3, sampling_rate)
    second = _thump(2.2 * pitch, 1.3 * pitch, 0.03, 0.75 * decay, 0.3, sampling_rate)
    weaker = rng.uniform(0.5, 0.9)
    wave = silence(beats * period, sampling_rate)
    for index in range(beats):
        start = index * period * rng.uniform(0.99, 1.01) + 0.01
        place(wave, first, start, sampling_rate, rng.uniform(0.85, 1.0))
        place(wave, second, start + gap, sampling_rate, weaker)
    blood = noise(rng, beats * period, sampling_rate, band(30, 250))
    wave += blood[: len(wave)] * np.float32(log_uniform(rng, 0.002, 0.02))
    # The chest and the stethoscope add overtones, without which a small speaker plays nothing.
    wave = np.tanh(wave * np.float32(rng.uniform(0.8, 2.5)))
    return finished(rng, wave, sampling_rate, 0.005, 0.05)
