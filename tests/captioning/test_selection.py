"""Which candidates become captions."""

import random
from collections.abc import Sequence

import torch

from dac_diffusion.captioning.ranking import Candidates
from dac_diffusion.captioning.results import Caption, ScoreParts
from dac_diffusion.captioning.selection import best_captions, count_distinct, draw_distinct
from dac_diffusion.ranking.agreement import agreement_with
from dac_diffusion.ranking.settings import RankingSettings


def scored(texts: Sequence[str], scores: Sequence[float]) -> list[Caption]:
    return [Caption(*each) for each in zip(texts, scores, strict=True)]


def test_best_first_and_distinct_after_normalisation() -> None:
    texts = ["a dog barks", "A dog, barks", "rain falls", "birds sing"]
    chosen = best_captions(scored(texts, [0.1, 0.4, 0.2, 0.3]), 3)
    assert chosen == (
        Caption("A dog, barks", 0.4),
        Caption("birds sing", 0.3),
        Caption("rain falls", 0.2),
    )


def test_ill_formed_captions_only_fill_up() -> None:
    texts = ["a dog dog", "a dog barks", "", "a bird and"]
    scores = [0.9, 0.1, 1.0, 0.8]
    assert [c.text for c in best_captions(scored(texts, scores), 5)] == [
        "a dog barks",
        "a dog dog",
        "a bird and",
    ]
    assert [c.text for c in best_captions(scored(texts, scores), 1)] == ["a dog barks"]


def test_equal_scores_keep_their_order() -> None:
    found = best_captions(scored(["b", "c", "d"], [0.5, 0.5, 0.5]), 2)
    assert [c.text for c in found] == ["b", "c"]


def test_count_distinct_ignores_empty_and_spelling() -> None:
    assert count_distinct(["A dog.", "a dog", "", "  ", "a cat"]) == 2


class CountingDetector:
    """Finds captions with "bad" in them, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        self.asked.append(list(captions))
        return [0.95 if "bad" in caption else 0.1 for caption in captions]


def drawn_by(
    rounds: dict[int, list[list[str]]], num_captions: int, ranking: RankingSettings
) -> list[list[str]]:
    """What draw_distinct collects where each window's rounds give these texts, in turn."""

    def draw(places: list[int]) -> list[Candidates]:
        texts = [rounds[place].pop(0) for place in places]
        return [Candidates(each, torch.zeros(len(each), 2), torch.zeros(2)) for each in texts]

    drawn = draw_distinct(draw, len(rounds), num_captions, ranking)
    assert all(len(each.text_vectors) == len(each.texts) for each in drawn)
    return [each.texts for each in drawn]


def test_candidates_with_errors_are_drawn_again_but_only_if_some_are_without() -> None:
    detector = CountingDetector()
    rounds = {
        0: [["a dog", "a bad dog"], ["bad rain", "a dog"], ["a car", "a bad car"]],
        1: [["a dog", "a cat"]],
        2: [["bad dogs", "bad cats"]],  # a detector that finds them all says nothing
    }
    found = drawn_by(rounds, 2, RankingSettings(error_threshold=0.9, error_detector=detector))
    assert found == [
        ["a dog", "a bad dog", "bad rain", "a dog", "a car", "a bad car"],
        ["a dog", "a cat"],
        ["bad dogs", "bad cats"],
    ]
    assert len(detector.asked) == 5, "every candidate is looked at once"


def test_without_a_filter_errors_are_nothing_to_drawing() -> None:
    detector = CountingDetector()
    rounds = [["a dog", "a bad dog"], ["a car", "a cat"]]
    for ranking in (RankingSettings(), RankingSettings(error_detector=detector)):
        assert drawn_by({0: list(rounds)}, 2, ranking) == [["a dog", "a bad dog"]]
    assert detector.asked == []


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


def test_redundancy_brings_what_is_different_forward() -> None:
    texts = ["a dog barks", "a dog barks loudly", "rain falls"]
    captions = scored(texts, [0.9, 0.8, 0.3])
    # The second shares 3 of 3 and 4 words, 2 of 2 and 3 pairs and 1 of 1 and 2 triples with the
    # first: an agreement of 0.581, so that at a weight of 0.9 it is worth less than 0.3.
    agreement = (6 / 7 + 4 / 5 + 2 / 3) / 4
    assert agreement_with(texts[0], texts[1:]) == [agreement, 0.0]
    for weight, order in ((0.0, texts), (0.8, texts), (0.9, [texts[0], texts[2], texts[1]])):
        found = best_captions(captions, 3, redundancy_weight=weight)
        assert [c.text for c in found] == order
        assert {c.text: c.score for c in found} == dict(zip(texts, [0.9, 0.8, 0.3], strict=True))


def test_redundancy_is_maximal_marginal_relevance() -> None:
    draw = random.Random(0)
    words = ["dog", "barks", "rain", "falls", "wind", "blows", "softly"]
    for _ in range(20):
        texts = sorted({" ".join(draw.sample(words, k=draw.randint(1, 4))) for _ in range(9)})
        score = {text: draw.random() for text in texts}
        expected: list[str] = []
        while len(expected) < 5:
            expected.append(
                max(
                    (text for text in texts if text not in expected),
                    key=lambda text: (
                        score[text] - 0.7 * max([0.0, *agreement_with(text, expected)])
                    ),
                )
            )
        found = best_captions(scored(texts, list(score.values())), 5, redundancy_weight=0.7)
        well_formed = [text for text in expected if text in {c.text for c in found}]
        assert [c.text for c in found] == well_formed == expected


def test_captions_with_faults_stay_behind_whatever_is_redundant() -> None:
    texts = ["a dog barks loudly", "a dog barks", "a bird and", "rain rain"]
    found = best_captions(scored(texts, [0.9, 0.8, 0.95, 0.99]), 4, redundancy_weight=5.0)
    assert [c.text for c in found] == [*texts[:2], "rain rain", "a bird and"]
    errors = with_errors(["a dog barks", "a dog is barking", "rain falls"], [0.0, 0.0, 0.95])
    kept = best_captions(errors, 3, 0.9, redundancy_weight=50.0)
    assert [c.text for c in kept] == ["a dog barks", "a dog is barking", "rain falls"]
