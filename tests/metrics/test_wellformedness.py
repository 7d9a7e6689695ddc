"""Shares of faulty captions."""

from __future__ import annotations

from dac_diffusion.metrics.wellformedness import WellFormedness, wellformedness, word_count


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
