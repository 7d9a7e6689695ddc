"""Failures of captions, each by an example."""

from __future__ import annotations

import pytest

from dac_diffusion.metrics.wellformedness import (
    WellFormedness,
    ends_on_function_word,
    has_doubled_word,
    has_repeated_bigram,
    wellformedness,
    word_count,
)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks while a cat meows", False),
        ("a dog barks and a dog whines", True),
        ("dog dog dog", True),
        ("dog dog", False),
        ("A dog, a DOG!", True),
        ("", False),
    ],
)
def test_repeated_bigram(caption: str, expected: bool) -> None:
    assert has_repeated_bigram(caption) is expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("a dog dog barks", True), ("tick, tick", True), ("a dog and a dog", False), ("", False)],
)
def test_doubled_word(caption: str, expected: bool) -> None:
    assert has_doubled_word(caption) is expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks and a", True),
        ("rain falls while", True),
        ("a siren in the.", True),
        ("birds sing in", True),
        ("a car drives by", False),
        ("someone opens a can", False),
        ("footsteps in the distance", False),
        ("", False),
    ],
)
def test_function_word_ending(caption: str, expected: bool) -> None:
    assert ends_on_function_word(caption) is expected


def test_shares_over_a_set() -> None:
    form = wellformedness(["a dog barks", "", "tick tick tick", "rain falls on the"])
    assert form == WellFormedness(
        captions=4,
        mean_words=10 / 4,
        empty=1 / 4,
        repeated_bigram=1 / 4,
        doubled_word=1 / 4,
        function_word_ending=1 / 4,
    )
    assert wellformedness([]).captions == 0


def test_word_count() -> None:
    assert word_count("A dog's far-off bark.") == 5
