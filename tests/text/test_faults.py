"""Faults of captions, each by an example."""

from __future__ import annotations

import pytest

from dac_diffusion.text.faults import (
    ends_on_function_word,
    has_doubled_word,
    has_repeated_bigram,
    is_well_formed,
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog barks", True),
        ("a dog barks, a cat and a bird", True),
        ("", False),
        (" , ", False),
        ("a dog dog barks", False),
        ("a dog barks and a dog barks", False),
        ("a dog barks and", False),
        ("rain falls in the", False),
    ],
)
def test_well_formed(text: str, expected: bool) -> None:
    assert is_well_formed(text) is expected
