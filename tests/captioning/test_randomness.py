"""Each window's own generator: what it depends on, and what it must not depend on."""

import numpy as np
import pytest
import torch

from dac_diffusion.captioning.randomness import louder_than_before, window_generator
from tests.helpers import noise


def draw(seed: int, waveform: np.ndarray) -> list[float]:
    return torch.rand(4, generator=window_generator(seed, waveform)).tolist()


def test_the_same_sound_and_seed_give_the_same_numbers() -> None:
    sound = noise(2.0, seed=1)
    assert draw(3, sound) == draw(3, sound.copy())
    assert draw(3, sound) != draw(4, sound)


def test_other_sounds_get_other_numbers() -> None:
    drawn = [tuple(draw(0, noise(2.0, seed=seed))) for seed in range(50)]
    assert len(set(drawn)) == 50
    assert draw(0, np.zeros(100, np.float32)) != draw(0, np.zeros(101, np.float32))


def test_the_last_bits_of_a_decoder_do_not_matter() -> None:
    sound = noise(2.0, seed=1)
    off = sound * (1 + 1e-6 * np.random.default_rng(0).standard_normal(len(sound)))
    assert not np.array_equal(sound, off.astype(np.float32))
    assert draw(0, sound) == draw(0, off.astype(np.float32))
    assert draw(0, sound) == draw(0, 0.5 * sound)


@pytest.mark.parametrize("length", [1, 10, 63, 64, 1000])
def test_any_length(length: int) -> None:
    rising = np.linspace(0.1, 1.0, length, dtype=np.float32)
    assert louder_than_before(rising).shape == (63,)
    assert len(draw(0, rising)) == 4


def test_louder_is_louder() -> None:
    steps = np.repeat(np.arange(64, dtype=np.float32), 10)
    assert louder_than_before(steps).all()
    assert not louder_than_before(steps[::-1]).any()
    assert not louder_than_before(np.zeros(640, np.float32)).any()
