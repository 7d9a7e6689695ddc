"""Distinct-n counted by hand."""

from __future__ import annotations

import pytest

from dac_diffusion.metrics.diversity import (
    FIXED_TOKENS,
    copied_share,
    corpus_diversity,
    distinct_1_at,
    distinct_n,
    distinct_n_within_clip,
    unigram_entropy,
    vocabulary_size,
)
from dac_diffusion.metrics.mtld import PAPER, TEN_WORDS, mtld_of_captions
from tests.metrics.real_captions import real_captions


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


def test_entropy_by_hand_and_by_scipy() -> None:
    assert unigram_entropy(["a dog", "rain falls"]) == 2.0
    assert unigram_entropy(["a a", "A a!"]) == 0.0
    assert unigram_entropy([""]) == unigram_entropy([]) == 0.0
    entropy = pytest.importorskip("scipy.stats").entropy
    assert unigram_entropy(["a dog barks", "a cat", "a dog"]) == pytest.approx(
        entropy([3, 2, 1, 1], base=2)
    )


def test_distinct_1_of_a_fixed_number_of_words() -> None:
    assert distinct_1_at(["a b c d"], 4) == 1.0
    assert distinct_1_at(["a a a a"], 4) == 0.25
    assert distinct_1_at(["a b"], 3) is None
    # One of the two captions comes first: "a a" has one of two words, "b c" both.
    assert distinct_1_at(["a a", "b c"], 2, shuffles=1000) == pytest.approx(0.75, abs=0.03)
    captions = ["a dog barks", "rain falls on a roof", "a cat"]
    assert distinct_1_at(captions, 5, seed=1) == distinct_1_at(captions, 5, seed=1)


def test_distinct_1_of_a_fixed_number_does_not_fall_with_the_size_of_the_corpus() -> None:
    captions = [captions[0] for captions in real_captions("audiocaps/test.csv")]
    assert distinct_n(captions, 1) < 0.75 * distinct_n(captions[:400], 1)
    all_of_them, some = distinct_1_at(captions, 1000), distinct_1_at(captions[:400], 1000)
    assert all_of_them == pytest.approx(some, rel=0.05)


def test_copied_share() -> None:
    captions = ["A dog barks.", "a dog", "", "rain falls!"]
    assert copied_share(captions, ["a dog barks", "RAIN falls", ""]) == 0.5
    assert copied_share([], ["a"]) == copied_share(["a"], []) == 0.0


def test_all_of_it() -> None:
    captions = ["a dog barks", "A dog, barks!", "", "a cat and a dog and a bird"]
    found = corpus_diversity(captions, ["a dog barks"])
    assert (found.captions, found.words, found.empty, found.vocabulary) == (4, 14, 1, 6)
    assert found.distinct == tuple(distinct_n(captions, n) for n in (1, 2, 3, 4))
    assert found.distinct_1_fixed is None
    assert found.entropy == unigram_entropy(captions)
    assert found.mtld == mtld_of_captions(captions, PAPER)
    assert found.mtld_ten_words == mtld_of_captions(captions, TEN_WORDS)
    assert found.copied == 0.5
    assert corpus_diversity(captions).copied is None
    long = ["a dog barks and a bird sings"] * 200
    assert corpus_diversity(long).distinct_1_fixed == 6 / FIXED_TOKENS


def test_no_captions_at_all() -> None:
    found = corpus_diversity([], [])
    assert (found.words, found.distinct, found.entropy, found.copied) == (0, (0,) * 4, 0, 0)
