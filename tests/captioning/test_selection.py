"""Which candidates become captions."""

from dac_diffusion.captioning.results import Caption, ScoreParts
from dac_diffusion.captioning.selection import best_captions, choose_captions, count_distinct


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


def with_errors(texts: list[str], probabilities: list[float]) -> list[Caption]:
    """Captions, the earlier the better, as an error detector finds them."""
    return [
        Caption(text, -float(place), ScoreParts(0.0, error_probability=probability))
        for place, (text, probability) in enumerate(zip(texts, probabilities, strict=True))
    ]


def test_captions_with_errors_come_after_ill_formed_ones() -> None:
    texts = ["a cat", "birds sing", "a dog dog", "rain falls", "a bird and"]
    found = best_captions(with_errors(texts, [0.95, 0.1, 0.2, 0.91, 0.99]), 5, 0.9)
    assert [c.text for c in found] == ["birds sing", "a dog dog", "a cat", "rain falls",
                                       "a bird and"]  # fmt: skip
    without = best_captions(with_errors(texts, [0.95, 0.1, 0.2, 0.91, 0.99]), 5)
    assert [c.text for c in without] == ["a cat", "birds sing", "rain falls", "a dog dog",
                                         "a bird and"]  # fmt: skip


def test_where_all_have_errors_the_order_is_as_without() -> None:
    texts = ["a dog dog", "a cat", "", "birds sing"]
    found = best_captions(with_errors(texts, [0.95, 0.99, 0.0, 1.0]), 5, 0.9)
    assert [c.text for c in found] == ["a cat", "birds sing", "a dog dog"]


def test_of_two_spellings_the_one_without_error_is_kept() -> None:
    captions = with_errors(["A dog barks.", "a dog barks", "rain falls"], [0.95, 0.1, 0.1])
    found = best_captions(captions, 5, 0.9)
    assert [c.text for c in found] == ["a dog barks", "rain falls"]
