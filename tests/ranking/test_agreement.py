"""Minimum Bayes risk: values by hand, a slow reference, and what must not matter."""

import random
from collections import Counter
from itertools import permutations

import pytest

from dac_diffusion.ranking.agreement import mean_agreement

WORDS = ["a", "dog", "barks", "rain", "falls", "and", "then", "a", "a"]


def random_captions(count: int, seed: int) -> list[str]:
    """Captions of 0 to 12 words of a small vocabulary, so that n-grams repeat and are shared."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 12))) for _ in range(count)]


def slow_agreement(first: str, second: str) -> float:
    """Mean n-gram F1 of two captions of plain words, as the docstring says it."""
    total = 0.0
    for n in range(1, 5):
        one, other = (
            Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            for words in (first.split(), second.split())
        )
        both = sum(min(count, other[gram]) for gram, count in one.items())
        size = sum(one.values()) + sum(other.values())
        total += 2 * both / size if size else 0.0
    return total / 4


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # 2 of 3 and 4 words, 1 of 2 and 3 pairs, nothing longer.
        ("a dog barks", "a dog howls loudly", (4 / 7 + 2 / 5) / 4),
        # "rain" counts once: the second caption has it once. No caption has four words.
        ("rain rain falls", "rain falls", (4 / 5 + 2 / 3) / 4),
        ("a dog barks loudly", "A dog barks, loudly!", 1.0),
        ("a dog barks", "a dog barks", 3 / 4),
        ("rain", "rain", 1 / 4),
        ("a dog barks", "rain falls", 0.0),
        ("a dog barks", "", 0.0),
        ("", "...", 0.0),
    ],
)
def test_two_captions_by_hand(first: str, second: str, expected: float) -> None:
    assert mean_agreement([first, second]) == pytest.approx([expected] * 2, abs=1e-15)


def test_the_mean_is_over_the_others_as_drawn() -> None:
    captions = ["a dog barks", "a dog barks", "a dog howls loudly", "rain"]
    shared = (4 / 7 + 2 / 5) / 4
    expected = [(3 / 4 + shared) / 3, (3 / 4 + shared) / 3, 2 * shared / 3, 0.0]
    assert mean_agreement(captions) == pytest.approx(expected, abs=1e-15)


def test_alone_a_caption_agrees_with_nothing() -> None:
    assert mean_agreement(["a dog barks"]) == [0.0]
    assert mean_agreement([""]) == [0.0]
    assert mean_agreement([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_slow_reference(seed: int) -> None:
    captions = random_captions(12, seed)
    expected = [
        sum(slow_agreement(one, other) for j, other in enumerate(captions) if j != i) / 11
        for i, one in enumerate(captions)
    ]
    assert mean_agreement(captions) == pytest.approx(expected, abs=1e-14)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    captions = random_captions(5, seed=7)
    found = mean_agreement(captions)
    for order in permutations(range(5)):
        permuted = mean_agreement([captions[i] for i in order])
        assert permuted == [found[i] for i in order]  # to the last bit


def test_the_medoid_is_preferred() -> None:
    captions = [
        "a dog barks while rain falls",
        "a dog barks and a car passes",
        "birds sing while rain falls",
        "an engine idles nearby",
    ]
    found = mean_agreement(captions)
    assert found.index(max(found)) == 0
    assert found.index(min(found)) == 3


def test_a_weight_counts_like_as_many_copies() -> None:
    captions = ["a dog barks", "a dog howls loudly", "rain falls"]
    with_weight = mean_agreement(captions, [1, 2, 1])
    with_copy = mean_agreement([*captions, captions[1]])
    assert with_weight[0] == pytest.approx(with_copy[0], abs=1e-15)
    assert with_weight[2] == pytest.approx(with_copy[2], abs=1e-15)
    assert mean_agreement(captions, [3, 3, 3]) == pytest.approx(mean_agreement(captions), abs=1e-15)
    # Its own weight is nothing to a caption: it is compared with the others only.
    assert mean_agreement(captions, [9, 1, 1])[0] == mean_agreement(captions)[0]
