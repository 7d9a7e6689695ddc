import itertools

import numpy as np
import pytest

from dac_diffusion.data.soundscapes.banks import Recording
from dac_diffusion.data.soundscapes.rendering import (
    change_speed,
    extend_continuous,
    fade_edges,
    place_at_distance,
    repeat_occurrences,
)
from dac_diffusion.data.soundscapes.scenes import Distance

RATE = 8000
# Two occurrences of 0.2 s, told apart by their level.
TWO = Recording(
    "dog",
    np.concatenate([np.full(1600, 0.5), np.zeros(800), np.full(1600, 0.25)]).astype(np.float32),
    ((0, 1600), (2400, 4000)),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sounding(waveform: np.ndarray) -> np.ndarray:
    """The (start, end) of everything between silences of at least 50 ms, (N, 2)."""
    places = np.flatnonzero(waveform)
    cuts = np.flatnonzero(np.diff(places) > 0.05 * RATE)
    starts = places[np.concatenate(([0], cuts + 1))]
    ends = places[np.concatenate((cuts, [len(places) - 1]))]
    return np.stack([starts, ends + 1], axis=1)


def centroid(waveform: np.ndarray) -> float:
    """The centre of the spectrum in Hz."""
    power = np.square(np.abs(np.fft.rfft(waveform)))
    return float((power * np.fft.rfftfreq(len(waveform), 1 / RATE)).sum() / power.sum())


def test_faded_edges_start_and_end_in_silence() -> None:
    waveform = np.ones(1000, np.float32)
    faded = fade_edges(waveform, RATE)  # 10 ms: 80 samples
    assert faded[0] == faded[-1] == 0
    assert np.all(np.diff(faded[:80]) > 0)
    assert np.all(faded[80:-80] == 1)
    np.testing.assert_array_equal(faded, faded[::-1])
    assert np.all(waveform == 1)
    np.testing.assert_array_equal(fade_edges(np.ones(1, np.float32), RATE), [1])


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_another_speed_changes_pitch_and_length_together(factor: float) -> None:
    sine = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    changed = change_speed(sine, factor)
    assert len(changed) == pytest.approx(RATE / factor, abs=2)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed)), 8 * RATE))
    assert spectrum.argmax() / 8 == pytest.approx(440 * factor, rel=0.002)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wanted", [1, 2, 4, 6])
def test_repeats_are_counted_as_they_sound(seed: int, wanted: int) -> None:
    track, count = repeat_occurrences(TWO, wanted, 10 * RATE, RATE, rng(seed))
    found = sounding(track)
    assert count == len(found) == wanted
    pauses = (found[1:, 0] - found[:-1, 1]) / RATE
    assert np.all((pauses > 0.14) & (pauses < 0.71))
    # The recording's occurrences come in turn.
    levels = [track[start:end].max() for start, end in found]
    assert all({a, b} == {0.5, 0.25} for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("seed", range(5))
def test_repeats_without_room_are_not_counted(seed: int) -> None:
    room = RATE  # one second holds two or three of 0.2 s
    track, count = repeat_occurrences(TWO, 6, room, RATE, rng(seed))
    assert len(track) <= room
    assert 1 <= count < 4
    assert len(sounding(track)) == count


def test_one_occurrence_is_cut_to_the_room_and_to_what_is_bearable() -> None:
    long = Recording("siren", np.ones(4 * RATE, np.float32), ((0, 4 * RATE),))
    track, count = repeat_occurrences(long, 3, RATE, RATE, rng())
    assert (len(track), count) == (RATE, 1)
    track, _ = repeat_occurrences(long, 1, 10 * RATE, RATE, rng())
    assert len(track) == 2.5 * RATE


def test_a_long_steady_sound_gives_an_excerpt() -> None:
    ramp = np.linspace(0.1, 0.9, 4 * RATE, dtype=np.float32)
    recording = Recording("rain", ramp, ((RATE, 3 * RATE),))
    excerpt = extend_continuous(recording, RATE, RATE, rng())
    assert len(excerpt) == RATE
    start = int(np.abs(ramp - excerpt[RATE // 2]).argmin()) - RATE // 2
    assert RATE <= start <= 2 * RATE
    np.testing.assert_array_equal(excerpt[100:-100], ramp[start + 100 : start + RATE - 100])


def test_a_short_steady_sound_is_looped_without_gaps() -> None:
    recording = Recording("rain", np.full(RATE, 0.3, np.float32), ((0, RATE),))
    looped = extend_continuous(recording, 5 * RATE, RATE, rng())
    assert len(looped) == 5 * RATE
    np.testing.assert_allclose(looped[100:-100], 0.3, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_far_is_duller_and_softer_than_near(seed: int) -> None:
    noise = rng(9).normal(0, 0.1, 2 * RATE).astype(np.float32)
    distances: tuple[Distance, ...] = ("near", "middle", "far")
    near, middle, far = (place_at_distance(noise, d, RATE, rng(seed)) for d in distances)
    loudness = [20 * np.log10(np.sqrt(np.square(x).mean())) for x in (near, middle, far)]
    assert loudness[0] > loudness[1] > loudness[2] + 3
    assert centroid(near) == pytest.approx(centroid(noise), rel=1e-3)
    assert centroid(far) < 0.7 * centroid(near)
    assert len(near) == len(far) == len(noise)
    np.testing.assert_array_equal(far, place_at_distance(noise, "far", RATE, rng(seed)))


def test_the_level_does_not_depend_on_the_recording_s() -> None:
    noise = rng(9).normal(0, 0.1, RATE).astype(np.float32)
    once, again = (place_at_distance(noise * g, "near", RATE, rng()) for g in (1.0, 0.01))
    np.testing.assert_allclose(again, once, rtol=2e-2, atol=1e-4)
