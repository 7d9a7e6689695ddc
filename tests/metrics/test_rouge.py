"""ROUGE-L against pycocoevalcap, and by hand."""

from __future__ import annotations

import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.rouge import rouge_l
from dac_diffusion.text.words import tokenize
from tests.metrics.real_captions import TABLES, held_out


def assert_same(candidates: list[str], references: list[list[str]]) -> None:
    reference = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    expected_mean, expected = reference.compute_score(
        {i: [" ".join(tokenize(r)) for r in clip] for i, clip in enumerate(references)},
        {i: [" ".join(tokenize(c))] for i, c in enumerate(candidates)},
    )
    mean, scores = rouge_l(candidates, references)
    assert mean == pytest.approx(float(expected_mean), abs=1e-6)
    assert scores == pytest.approx(expected.tolist(), abs=1e-6)


def test_equals_pycocoevalcap_on_small_sets() -> None:
    references = [["a dog barks", "two dogs are barking"], ["rain"], ["a b c a", "c b a"]]
    assert_same(["a dog is barking", "", "a c b a c"], references)
    assert_same(["wind", "rain rain", "c"], references)


@pytest.mark.parametrize("table", TABLES)
def test_equals_pycocoevalcap_on_real_captions(table: str) -> None:
    candidates, references = held_out(table, clips=300)
    assert_same(candidates, references)
    assert_same(candidates[1:] + candidates[:1], references)


def test_by_hand() -> None:
    # Lin 2004, section 3.1: three of four words in order.
    assert rouge_l(["police kill the gunman"], [["police killed the gunman"]])[0] == 0.75
    assert rouge_l(["the gunman kill police"], [["police killed the gunman"]])[0] == 0.5


def test_precision_and_recall_may_come_from_different_references() -> None:
    # Precision 3/3 from the long reference, recall 1/1 from the short one.
    assert rouge_l(["a dog barks"], [["a dog barks in the rain", "dog"]])[0] == pytest.approx(1.0)


def test_no_words_score_zero() -> None:
    assert rouge_l(["", "a dog"], [["a dog", ""], [""]]) == (0.0, [0.0, 0.0])
    assert rouge_l([""], [[""]])[0] == 0.0


def test_lists_that_do_not_fit_are_errors() -> None:
    with pytest.raises(DataError, match="ROUGE-L needs one caption per clip"):
        rouge_l(["a"], [])
