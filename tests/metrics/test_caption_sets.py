"""Scores of sets of captions: by hand, and mBLEU against pycocoevalcap."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.caption_sets import (
    best_of,
    duplicate_share,
    expected_of,
    mutual_bleu_4,
    mutual_bleu_4_of_clips,
    mutual_bleu_counts,
    score_each_caption,
)
from dac_diffusion.metrics.cider import CiderD
from dac_diffusion.text.words import tokenize
from tests.metrics.real_captions import held_out, real_captions

SETS = [
    ["a dog barks in the rain", "a dog barks loudly in the rain", "rain falls on a dog"],
    ["birds sing in the trees", "a bird sings in a tree", "birds sing in the trees"],
]
UNEVEN = [*SETS, ["a door creaks open", "a door is creaking open"], ["wind"]]


def test_every_caption_is_scored_among_the_same_clips() -> None:
    calls: list[list[str]] = []

    def score(captions: Sequence[str]) -> list[float]:
        calls.append(list(captions))
        return [float(len(caption)) for caption in captions]

    scores = score_each_caption([["a", "bb", "ccc"], ["dddd"], ["ee", "f"]], score)
    assert scores == [[1.0, 2.0, 3.0], [4.0], [2.0, 1.0]]
    assert calls == [["a", "dddd", "ee"], ["bb", "dddd", "f"], ["ccc", "dddd", "f"]]


def test_best_and_expected_by_hand() -> None:
    assert best_of([[1.0, 3.0], [2.0]]) == (2.5, [3.0, 2.0])
    assert expected_of([[1.0, 3.0], [4.0]]) == (3.0, [2.0, 4.0])


def test_best_of_k_cider_d_of_real_captions() -> None:
    _, references = held_out("audiocaps/val.csv", clips=60)
    scorer = CiderD(references)
    sets = [references[i][:1] + references[i - 1][:2] for i in range(60)]
    scores = score_each_caption(
        sets, lambda captions: [scorer.score(c, i) for i, c in enumerate(captions)]
    )
    assert scores[7] == [scorer.score(caption, 7) for caption in sets[7]]
    first = sum(of_clip[0] for of_clip in scores) / 60
    assert best_of(scores)[0] >= first > expected_of(scores)[0]  # only the first is of its clip


def mutual_bleu_by_pycocoevalcap(sets: list[list[str]]) -> float:
    """Luo's and Aneja's way: Bleu(4) of the j-th captions against the others, averaged over j."""
    package = pytest.importorskip("pycocoevalcap.bleu.bleu")
    cut = [[" ".join(tokenize(caption)) for caption in captions] for captions in sets]
    count = len(cut[0])
    total = 0.0
    for j in range(count):
        others = {i: captions[:j] + captions[j + 1 :] for i, captions in enumerate(cut)}
        chosen = {i: [captions[j]] for i, captions in enumerate(cut)}
        total += package.Bleu(4).compute_score(others, chosen, verbose=0)[0][3]
    return total / count


def test_mutual_bleu_equals_pycocoevalcap() -> None:
    found = mutual_bleu_4(mutual_bleu_counts(SETS))
    assert found == pytest.approx(mutual_bleu_by_pycocoevalcap(SETS), abs=1e-6)
    of_clips = mutual_bleu_4_of_clips(mutual_bleu_counts(SETS))
    assert of_clips == pytest.approx([mutual_bleu_by_pycocoevalcap([s]) for s in SETS], abs=1e-6)


def test_mutual_bleu_equals_pycocoevalcap_on_real_captions() -> None:
    sets = real_captions("clotho/clotho_captions_evaluation.csv", clips=200)
    expected = mutual_bleu_by_pycocoevalcap(sets)
    assert mutual_bleu_4(mutual_bleu_counts(sets)) == pytest.approx(expected, abs=1e-6)


def test_mutual_bleu_of_copies_is_one_and_of_strangers_nothing() -> None:
    copies = [["a dog barks in the rain"] * 3]
    assert mutual_bleu_4(mutual_bleu_counts(copies)) == pytest.approx(1.0)
    strangers = [["a dog barks loudly", "some birds sing now"]]
    assert mutual_bleu_4(mutual_bleu_counts(strangers)) == pytest.approx(0.0, abs=1e-2)


def test_clips_with_fewer_captions_take_part_in_fewer_passes() -> None:
    counts = mutual_bleu_counts(UNEVEN)
    assert counts.shape == (3, 4, 10)
    assert counts[2, 2].tolist() == counts[0, 3].tolist() == [0] * 10
    of_clips = mutual_bleu_4_of_clips(counts)
    assert of_clips[3] is None
    assert of_clips[:2] == pytest.approx(mutual_bleu_4_of_clips(mutual_bleu_counts(SETS)))
    assert mutual_bleu_4(counts) == mutual_bleu_4(mutual_bleu_counts(UNEVEN[:3]))
    assert mutual_bleu_4(mutual_bleu_counts([["a dog"], ["rain"]])) is None


def test_duplicates_are_counted_after_normalisation() -> None:
    share, of_clips = duplicate_share([["A dog.", "a dog", "rain"], ["rain"], ["", "...", "a"]])
    assert of_clips == pytest.approx([1 / 3, 0, 1 / 3])
    assert share == pytest.approx(2 / 9)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "at least one clip"),
        ([["a"], []], "at least one caption; clip 1"),
        (["a"], "list of.*clip 0"),
    ],
)
def test_missing_captions_are_an_error(sets: list[list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        duplicate_share(sets)
    with pytest.raises(DataError, match=message):
        mutual_bleu_counts(sets)
    with pytest.raises(DataError, match=message):
        score_each_caption(sets, lambda captions: [0.0] * len(captions))
