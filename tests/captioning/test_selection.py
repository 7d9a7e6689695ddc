"""Which candidates become captions."""

from dac_diffusion.captioning.results import Caption
from dac_diffusion.captioning.selection import choose_captions, count_distinct


def test_best_first_and_distinct_after_normalisation() -> None:
    texts = ["a dog barks", "A dog, barks", "rain falls", "birds sing"]
    chosen = choose_captions(texts, [0.1, 0.4, 0.2, 0.3], 3)
    assert chosen == (
        Caption("A dog, barks", 0.4),
        Caption("birds sing", 0.3),
        Caption("rain falls", 0.2),
    )


def test_ill_formed_captions_only_fill_up() -> None:
    texts = ["a dog dog", "a dog barks", "", "a bird and"]
    scores = [0.9, 0.1, 1.0, 0.8]
    assert [c.text for c in choose_captions(texts, scores, 5)] == [
        "a dog barks",
        "a dog dog",
        "a bird and",
    ]
    assert [c.text for c in choose_captions(texts, scores, 1)] == ["a dog barks"]


def test_equal_scores_keep_their_order() -> None:
    assert [c.text for c in choose_captions(["b", "c", "d"], [0.5, 0.5, 0.5], 2)] == ["b", "c"]


def test_count_distinct_ignores_empty_and_spelling() -> None:
    assert count_distinct(["A dog.", "a dog", "", "  ", "a cat"]) == 2
