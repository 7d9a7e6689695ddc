"""Distinct-n counted by hand."""

from __future__ import annotations

import pytest

from dac_diffusion.metrics.diversity import distinct_n, distinct_n_within_clip, vocabulary_size


def test_distinct_n_by_hand() -> None:
    captions = ["a dog barks", "A dog, barks!", "a cat"]
    assert distinct_n(captions, 1) == 4 / 8
    assert distinct_n(captions, 2) == 3 / 5  # a-dog, dog-barks, a-cat
    assert distinct_n(captions, 3) == 1 / 2


def test_ngrams_do_not_cross_captions() -> None:
    assert distinct_n(["a dog", "a dog"], 2) == 1 / 2


@pytest.mark.parametrize("captions", [[], [""], ["dog"]])
def test_nothing_to_count_is_zero(captions: list[str]) -> None:
    assert distinct_n(captions, 2) == 0.0


def test_within_clip_is_the_mean_over_clips() -> None:
    clips = [["a dog barks", "a dog barks"], ["rain falls", "wind blows"]]
    assert distinct_n_within_clip(clips, 2) == (2 / 4 + 1) / 2
    assert distinct_n_within_clip([], 2) == 0.0


def test_copies_lower_it_and_order_does_not() -> None:
    captions = ["a dog barks loudly", "rain falls on a roof"]
    assert distinct_n(captions + captions[:1], 2) < distinct_n(captions, 2)
    assert distinct_n(captions[::-1], 2) == distinct_n(captions, 2)


def test_vocabulary() -> None:
    assert vocabulary_size(["A dog barks.", "a dog", ""]) == 3
