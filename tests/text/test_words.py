"""The words that every metric counts."""

from __future__ import annotations

import pytest

from dac_diffusion.text.words import count_ngrams, ngrams, tokenize


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog's bark, far-off.", ["a", "dogs", "bark", "far", "off"]),
        ("  Two\tdogs\n bark!! ", ["two", "dogs", "bark"]),
        ("the car\u2019s horn \u2014 beep", ["the", "cars", "horn", "beep"]),
        ("snake_case 2 caf\u00e9", ["snake", "case", "2", "caf\u00e9"]),
        ("...", []),
        ("", []),
    ],
)
def test_tokenize(caption: str, words: list[str]) -> None:
    assert tokenize(caption) == words


def test_ngrams() -> None:
    assert ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert ngrams(["a"], 2) == []
    counts = count_ngrams(["a", "a", "a"], 2)
    assert counts[0][("a",)] == 3
    assert counts[1][("a", "a")] == 2
