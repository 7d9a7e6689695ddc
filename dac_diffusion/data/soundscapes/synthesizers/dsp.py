"""Oscillators, noises, resonators and envelopes shared by the synthesizers.

Every parameter of a sound is drawn from the caller's generator in a number of draws that does not
depend on the sampling rate; long random sequences come from `spawn_generator`, which always takes
exactly one draw. So one seed gives the same event, with the same timing, at every sampling rate.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
Generator = np.random.Generator
Response = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # frequencies in Hz -> gains

_TABLE_SIZE = 8192
# exp(-40) is -347 dB: clipping there keeps float32 results clear of slow denormal numbers.
_SMALLEST_EXPONENT = -40.0


# ---------------------------------------------------------------- random numbers and time


def spawn_generator(rng: Generator) -> Generator:
    """An independent generator that costs `rng` exactly one draw."""
    return np.random.default_rng(int(rng.integers(2**63)))


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A draw whose logarithm is uniform: every octave (or decade) is equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def num_samples(seconds: float, sampling_rate: int) -> int:
    """The length of `seconds` in samples, at least 1."""
    return max(1, round(seconds * sampling_rate))


def silence(seconds: float, sampling_rate: int) -> Waveform:
    """(T,) zeros, the canvas that `place` writes on."""
    return np.zeros(num_samples(seconds, sampling_rate), dtype=np.float32)


def time_axis(seconds: float, sampling_rate: int) -> Waveform:
    """(T,) the time of every sample in seconds."""
    return np.arange(num_samples(seconds, sampling_rate), dtype=np.float32) / np.float32(
        sampling_rate
    )


def random_curve(
    rng: Generator, seconds: float, sampling_rate: int, points_per_second: float
) -> Waveform:
    """(T,) a smooth random walk-about in [0, 1] that turns about `points_per_second` times."""
    knots = spawn_generator(rng).random(int(seconds * points_per_second) + 3)
    # Cosine easing on a coarse grid, linear in between: smooth to the ear and cheap.
    grid = np.linspace(0.0, seconds * points_per_second, max(16, 8 * len(knots)))
    left = grid.astype(np.int64)
    weight = 0.5 - 0.5 * np.cos(np.pi * (grid - left))
    values = knots[left] * (1 - weight) + knots[left + 1] * weight
    positions = np.linspace(0.0, len(grid) - 1.0, num_samples(seconds, sampling_rate))
    return np.interp(positions, np.arange(len(grid)), values).astype(np.float32)


# ---------------------------------------------------------------- oscillators


def phase_of(
    frequency: float | NDArray[np.floating], seconds: float, sampling_rate: int
) -> NDArray[np.float64]:
    """(T,) the phase, in cycles, of an oscillator at `frequency` Hz (a number or a (T,) curve)."""
    count = num_samples(seconds, sampling_rate)
    if np.ndim(frequency) == 0:
        cycles = np.arange(count, dtype=np.float64) * float(frequency)
    else:
        cycles = np.cumsum(np.asarray(frequency, dtype=np.float64))
    return np.asarray(cycles / sampling_rate, dtype=np.float64)


def sine(frequency: float | NDArray[np.floating], seconds: float, sampling_rate: int) -> Waveform:
    """(T,) a sine at a constant or gliding frequency in Hz."""
    phase = phase_of(frequency, seconds, sampling_rate)
    # Whole cycles are removed in float64, so that the fast float32 sine stays exact.
    return np.sin((2 * np.pi * (phase - np.floor(phase))).astype(np.float32))


def harmonic_tone(
    frequency: float | NDArray[np.floating],
    amplitudes: Sequence[float] | NDArray[np.floating],
    seconds: float,
    sampling_rate: int,
) -> Waveform:
    """(T,) a periodic wave with the given amplitude per harmonic, those above Nyquist left out."""
    highest = float(np.max(frequency))
    kept = min(len(amplitudes), int(0.47 * sampling_rate / highest))
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    # Quadratic phases spread the partials in time: a lower crest than with aligned ones.
    order = np.arange(1, kept + 1)
    spectrum[1 : kept + 1] = np.asarray(amplitudes[:kept]) * np.exp(1j * 0.7 * order**2)
    table = (np.fft.irfft(spectrum) * (_TABLE_SIZE / 2)).astype(np.float32)
    phase = phase_of(frequency, seconds, sampling_rate)
    return table[(phase * _TABLE_SIZE).astype(np.int64) & (_TABLE_SIZE - 1)]


def modes(
    frequencies: Sequence[float] | NDArray[np.floating],
    amplitudes: Sequence[float] | NDArray[np.floating],
    decays: Sequence[float] | NDArray[np.floating],
    seconds: float,
    sampling_rate: int,
) -> Waveform:
    """(T,) a struck object: sum over m of a_m exp(-t / decay_m) sin(2 pi f_m t), decays in s."""
    count = num_samples(seconds, sampling_rate)
    frequency = np.asarray(frequencies, dtype=np.float64)
    amplitude = np.where(frequency < 0.48 * sampling_rate, np.asarray(amplitudes), 0.0)
    pole = -1.0 / np.asarray(decays, dtype=np.float64) + 2j * np.pi * frequency
    # z^(i*block + j) = z^(i*block) z^j turns the sum over modes into one small matrix product.
    block = max(1, int(np.sqrt(count)))
    blocks = -(-count // block)
    rows = _decaying(np.outer(np.arange(blocks) * (block / sampling_rate), pole)) * amplitude
    columns = _decaying(np.outer(pole, np.arange(block) / sampling_rate))
    wave = rows.real @ columns.imag + rows.imag @ columns.real  # (blocks, block)
    return wave.ravel()[:count].astype(np.float32)


def _decaying(exponent: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(np.maximum(exponent.real, _SMALLEST_EXPONENT) + 1j * exponent.imag))


# ---------------------------------------------------------------- noise and filters


def band(low: float, high: float, order: int = 2) -> Response:
    """Gains of a Butterworth band-pass between two frequencies in Hz; low = 0 keeps the bass."""

    def response(frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
        above = (frequencies * np.float32(1 / high)) ** (2 * order)
        if low <= 0:
            return _float32(1 / np.sqrt(1 + above))
        below = (np.float32(low) / np.maximum(frequencies, np.float32(1.0))) ** (2 * order)
        return _float32(1 / np.sqrt((1 + above) * (1 + below)))

    return response


def _float32(gains: np.ndarray) -> NDArray[np.float32]:
    return gains.astype(np.float32, copy=False)


def tilted(exponent: float, low: float, high: float) -> Response:
    """Gains f**exponent inside a band: -0.5 is pink, -1 is brown noise."""
    window = band(low, high)

    def response(frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
        reference = np.maximum(frequencies, np.float32(20.0)) / np.float32(1000.0)
        return _float32(reference ** np.float32(exponent) * window(frequencies))

    return response


def resonant(
    centres: Sequence[float], widths: Sequence[float], gains: Sequence[float], floor: float = 0.0
) -> Response:
    """Gains with a peak of half-width `widths` Hz at each centre, over a constant floor."""

    def response(frequencies: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.full_like(frequencies, floor)
        for centre, width, gain in zip(centres, widths, gains, strict=True):
            offset = (frequencies - np.float32(centre)) * np.float32(1 / width)
            total += np.float32(gain) / (1 + offset * offset)
        return total

    return response


def fast_length(count: int) -> int:
    """The smallest FFT length >= count of the form 2^a * k with k in 8..15: cheap to transform."""
    step = 1 << max(0, count.bit_length() - 4)
    length = -(-count // step)
    while length in (11, 13, 14):  # keep to the prime factors 2, 3 and 5 (7 is skipped too)
        length += 1
    return length * step


def noise(rng: Generator, seconds: float, sampling_rate: int, response: Response) -> Waveform:
    """(T,) Gaussian noise of unit RMS, shaped by `response`."""
    count = num_samples(seconds, sampling_rate)
    size = fast_length(count)
    frequencies = np.fft.rfftfreq(size, 1 / sampling_rate).astype(np.float32)
    # Drawn in the frequency domain: one inverse transform instead of a filter.
    parts = spawn_generator(rng).standard_normal((len(frequencies), 2), dtype=np.float32)
    spectrum = parts.view(np.complex64)[:, 0] * response(frequencies)
    wave = np.fft.irfft(spectrum, size)[:count].astype(np.float32)
    return wave / np.float32(np.sqrt(np.mean(np.square(wave))) + 1e-12)


def filtered(waveform: Waveform, sampling_rate: int, response: Response) -> Waveform:
    """(T,) the waveform with its spectrum multiplied by `response` (zero phase)."""
    size = fast_length(len(waveform) + sampling_rate // 50)
    frequencies = np.fft.rfftfreq(size, 1 / sampling_rate).astype(np.float32)
    spectrum = np.fft.rfft(waveform, size) * response(frequencies)
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def reverberated(
    rng: Generator, waveform: Waveform, sampling_rate: int, decay: float, mix: float
) -> Waveform:
    """(T,) the waveform in a room: plus `mix` times itself through a noise tail of `decay` s."""
    seconds = min(3 * decay, len(waveform) / sampling_rate)
    tail = noise(rng, seconds, sampling_rate, band(120, 5000, 1))
    tail *= decaying(seconds, sampling_rate, decay, attack=0.004)
    tail /= np.float32(np.sqrt(np.sum(np.square(tail))) + 1e-12)
    size = fast_length(len(waveform) + len(tail))
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)
    return waveform + np.float32(mix) * wet[: len(waveform)].astype(np.float32)


# ---------------------------------------------------------------- envelopes and assembly


def decaying(seconds: float, sampling_rate: int, decay: float, attack: float = 0.0005) -> Waveform:
    """(T,) an envelope that rises in about `attack` s and falls by 1/e every `decay` s."""
    time = time_axis(seconds, sampling_rate)
    fall = np.exp(np.maximum(time * np.float32(-1 / decay), np.float32(_SMALLEST_EXPONENT)))
    rise = np.exp(np.maximum(time * np.float32(-1 / attack), np.float32(_SMALLEST_EXPONENT)))
    return (1 - rise) * fall


def faded(waveform: Waveform, sampling_rate: int, attack: float, release: float) -> Waveform:
    """(T,) the waveform with raised-cosine edges of `attack` and `release` seconds."""
    shaped = waveform.copy()
    for edge, seconds in ((shaped, attack), (shaped[::-1], release)):
        count = min(len(edge), num_samples(seconds, sampling_rate))
        ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(count, dtype=np.float32) / count)
        edge[:count] *= ramp.astype(np.float32)
    return shaped


def place(
    canvas: Waveform, waveform: Waveform, start: float, sampling_rate: int, gain: float = 1.0
) -> None:
    """Adds the waveform to the canvas from `start` seconds on, cut where the canvas ends."""
    first = round(start * sampling_rate)
    if 0 <= first < len(canvas):
        stop = min(len(canvas), first + len(waveform))
        canvas[first:stop] += np.float32(gain) * waveform[: stop - first]


def poisson_times(rng: Generator, rate: float, seconds: float) -> NDArray[np.float64]:
    """Times in s of independent random events, `rate` a second on average."""
    source = spawn_generator(rng)
    return np.sort(source.random(int(source.poisson(rate * seconds))) * seconds)


def finished(
    rng: Generator,
    waveform: Waveform,
    sampling_rate: int,
    attack: float = 0.001,
    release: float = 0.02,
) -> Waveform:
    """(T,) float32 with faded edges and a random peak between 0.45 and 0.95."""
    peak_level = rng.uniform(0.45, 0.95)
    shaped = faded(waveform.astype(np.float32, copy=False), sampling_rate, attack, release)
    peak = float(np.max(np.abs(shaped)))
    return shaped * np.float32(peak_level / max(peak, 1e-9))
