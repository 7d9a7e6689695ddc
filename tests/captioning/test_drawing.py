"""Further rounds for windows whose candidates repeat each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dac_diffusion.captioning import drawing, selection
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.randomness import window_generator
from dac_diffusion.captioning.window_encoding import Window
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.settings import RankingSettings
from dac_diffusion.text.tokenizer import encode_captions
from tests.helpers import noise, tiny_captioner

SETTINGS = DrawSettings(
    num_captions=3,
    num_candidates=3,
    num_steps=1,
    guidance_scale=1.0,
    initial_noise_scale=1.0,
    seed=0,
)


def windows(count: int) -> list[Window]:
    return [Window(f"clip {index}", 0.0, noise(0.2, seed=index)) for index in range(count)]


@pytest.fixture
def repeating(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A sampler that gives one caption in its first round and three in all later ones.

    Which round it is for a clip, it can only tell by that clip's generator. The list collects
    how many clips were drawn each time.
    """
    captioner = tiny_captioner()
    rounds: list[int] = []
    fresh = [window_generator(SETTINGS.seed, w.waveform).get_state() for w in windows(4)]

    def sample(*arguments: Any, **named: Any) -> Tensor:
        generators = arguments[6]
        rounds.append(len(generators))
        states = [generator.get_state() for generator in generators]
        first = [any(torch.equal(state, other) for other in fresh) for state in states]
        for generator in generators:
            torch.rand(1, generator=generator)
        texts = [
            ["dog", "dog", "dog"] if is_first else ["dog", "rain", "car"] for is_first in first
        ]
        ids = [encode_captions(captioner.tokenizer, clip, 8) for clip in texts]
        return torch.stack(ids)

    monkeypatch.setattr(drawing, "sample_latents", sample)
    return rounds


def test_repeating_windows_are_drawn_again(repeating: list[int]) -> None:
    drawn = CandidateDrawer(tiny_captioner(), SETTINGS).draw(windows(2))
    assert [candidates.texts for candidates in drawn] == [
        ["dog", "dog", "dog", "dog", "rain", "car"]
    ] * 2
    assert all(len(candidates.text_vectors) == 6 for candidates in drawn)
    assert repeating == [2, 2]


def test_a_caption_with_an_error_is_drawn_again(repeating: list[int]) -> None:
    class NoRain:
        def probabilities(self, captions: Sequence[str]) -> list[float]:
            return [float("rain" in caption) for caption in captions]

    settings = replace(SETTINGS, num_captions=2)
    plain = CandidateDrawer(tiny_captioner(), settings).draw(windows(1))
    assert repeating == [1, 1]
    ranking = RankingSettings(error_threshold=0.9, error_detector=NoRain())
    (drawn,) = CandidateDrawer(tiny_captioner(), settings, ranking=ranking).draw(windows(1))
    assert drawn.texts == plain[0].texts
    assert drawn.error_probabilities == (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    ranking = RankingSettings(error_threshold=0.5, error_detector=NoRain())
    drawer = CandidateDrawer(tiny_captioner(), replace(settings, num_captions=3), ranking=ranking)
    (drawn,) = drawer.draw(windows(1))
    assert len(drawn.texts) == 3 * (1 + selection.EXTRA_ROUNDS), "there are only two without"


def test_rounds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def sample(*arguments: Any, **named: Any) -> Tensor:
        calls.append(1)
        return torch.full((1, 3, 8), 2)  # nothing but [EOS]

    monkeypatch.setattr(drawing, "sample_latents", sample)
    (candidates,) = CandidateDrawer(tiny_captioner(), SETTINGS).draw(windows(1))
    assert set(candidates.texts) == {""}
    assert len(calls) == 1 + selection.EXTRA_ROUNDS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_captions", 0),
        ("num_candidates", 2),
        ("num_steps", 0),
        ("num_steps", 1001),
        ("seed", -1),
        ("guidance_scale", float("nan")),
        ("initial_noise_scale", -1.0),
    ],
)
def test_settings_that_make_no_sense_are_named(name: str, value: float) -> None:
    settings = DrawSettings(**{**vars(SETTINGS), name: value})
    with pytest.raises(ConfigError, match=name):
        settings.check(most_steps=1000)
