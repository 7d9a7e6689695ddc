"""BLEU against pycocoevalcap, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bleu import bleu, bleu_counts, bleu_of_counts
from dac_diffusion.text.words import tokenize
from tests.metrics.real_captions import TABLES, held_out

REFERENCES = [
    ["A dog barks twice.", "a dog is barking, then it stops", "two barks"],
    ["Rain falls on a roof", "heavy rain is falling"],
    ["A door creaks open slowly", "a creaking door"],
    ["Birds sing", "small birds are singing in the morning"],
]
CANDIDATES = ["a dog barks and barks", "rain falls", "", "birds"]


def assert_same(candidates: list[str], references: list[list[str]]) -> None:
    reference = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4)
    expected_corpus, expected = reference.compute_score(
        {i: [" ".join(tokenize(r)) for r in clip] for i, clip in enumerate(references)},
        {i: [" ".join(tokenize(c))] for i, c in enumerate(candidates)},
        verbose=0,
    )
    corpus, clips = bleu(candidates, references)
    assert corpus == pytest.approx(expected_corpus, abs=1e-6)
    assert np.array(clips) == pytest.approx(np.array(expected).T, abs=1e-6)


def test_equals_pycocoevalcap_on_short_and_empty_captions() -> None:
    assert_same(CANDIDATES, REFERENCES)
    assert_same(CANDIDATES[::-1], REFERENCES)
    assert_same([""], [["a dog"]])


@pytest.mark.parametrize("table", TABLES)
def test_equals_pycocoevalcap_on_real_captions(table: str) -> None:
    candidates, references = held_out(table)
    assert_same(candidates, references)
    assert_same(candidates[1:] + candidates[:1], references)


def test_matches_are_clipped_as_in_the_article() -> None:
    references = [["The cat is on the mat.", "There is a cat on the mat."]]
    corpus, _ = bleu(["the the the the the the the"], references)
    assert corpus[0] == pytest.approx(2 / 7)  # Papineni et al. 2002, example 2


def test_the_closest_length_counts_and_the_shorter_of_two() -> None:
    counts = bleu_counts(["a b c d"], [["a b", "a b c d e f", "a b c d e f g"]])
    assert counts.tolist() == [[4, 3, 2, 1, 4, 3, 2, 1, 4, 2]]
    assert bleu_counts(["a b c d"], [["a b c d e", "a"]])[0, -1] == 5


def test_brevity_penalty() -> None:
    corpus, _ = bleu(["a b c"], [["a b c d"]])
    assert corpus[0] == pytest.approx(np.exp(1 - 4 / 3))


def test_corpus_is_the_sum_of_counts_and_not_the_mean_of_clips() -> None:
    counts = bleu_counts(CANDIDATES, REFERENCES)
    corpus, clips = bleu(CANDIDATES, REFERENCES)
    assert bleu_of_counts(counts.sum(axis=0)).tolist() == corpus
    assert corpus != pytest.approx(np.mean(clips, axis=0).tolist(), abs=1e-3)
    some = [0, 3, 3]
    assert bleu_of_counts(counts[some].sum(axis=0)).tolist() == pytest.approx(
        bleu([CANDIDATES[i] for i in some], [REFERENCES[i] for i in some])[0]
    )


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a"], [["a"], ["b"]], "got 1 captions for 2 clips"),
        ([], [], "at least one clip"),
        (["a", "b"], [["a"], []], "list of references for each clip; clip 1"),
        (["a"], ["a dog"], "list of references for each clip; clip 0"),
    ],
)
def test_lists_that_do_not_fit_are_errors(
    candidates: list[str], references: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=f"BLEU needs.*{message}"):
        bleu(candidates, references)
