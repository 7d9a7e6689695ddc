"""CIDEr-D against pycocoevalcap, and its edges."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.cider import CiderD, cider_d
from dac_diffusion.text.words import tokenize

CAPTIONS = Path(__file__).parents[2] / "../shared/data/captions"

REFERENCES = [
    ["A dog barks twice.", "a dog is barking, then it stops", "two barks of a dog"],
    ["Rain falls on a roof", "heavy rain is falling", "it rains and rains on the roof"],
    ["A door creaks open slowly", "an old door's hinge creaks", "a creaking door"],
    ["Birds sing", "small birds are singing in the morning", "birds chirp and sing"],
]
CANDIDATES = ["a dog barks and barks", "rain rain rain", "", "birds are singing in the morning"]


def by_pycocoevalcap(
    candidates: list[str], references: list[list[str]]
) -> tuple[float, list[float]]:
    cider = pytest.importorskip("pycocoevalcap.cider.cider").Cider()

    def words(text: str) -> str:
        return " ".join(tokenize(text))

    corpus, scores = cider.compute_score(
        {i: [words(r) for r in clip] for i, clip in enumerate(references)},
        {i: [words(c)] for i, c in enumerate(candidates)},
    )
    return float(corpus), [float(score) for score in scores]


def assert_same(candidates: list[str], references: list[list[str]]) -> None:
    corpus, scores = cider_d(candidates, references)
    expected_corpus, expected = by_pycocoevalcap(candidates, references)
    assert corpus == pytest.approx(expected_corpus, abs=1e-6)
    assert scores == pytest.approx(expected, abs=1e-6)


def test_equals_pycocoevalcap_on_small_sets() -> None:
    assert_same(CANDIDATES, REFERENCES)
    assert_same(CANDIDATES[::-1], REFERENCES)
    assert_same([clip[0] for clip in REFERENCES], REFERENCES)
    assert_same(CANDIDATES[:1], REFERENCES[:1])


def real_captions() -> list[list[str]]:
    table = CAPTIONS / "clotho/clotho_captions_evaluation.csv"
    audiocaps = CAPTIONS / "audiocaps/test.csv"
    if not table.exists() or not audiocaps.exists():
        pytest.skip("needs the shared caption files in ../shared/data/captions")
    with table.open(encoding="utf-8", newline="") as file:
        clips = [[row[f"caption_{i}"] for i in range(1, 6)] for row in csv.DictReader(file)][:150]
    by_clip: dict[str, list[str]] = {}
    with audiocaps.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_clip.setdefault(row["youtube_id"], []).append(row["caption"])
    return clips + list(by_clip.values())[:150]


def test_equals_pycocoevalcap_on_real_captions() -> None:
    clips = real_captions()
    assert_same([clip[0] for clip in clips], [clip[1:] for clip in clips])
    others = random.Random(0).sample([clip[0] for clip in clips], len(clips))
    assert_same(others, clips)


def test_right_captions_score_above_exchanged_ones() -> None:
    right = [clip[0] for clip in REFERENCES]
    rest = [clip[1:] for clip in REFERENCES]
    assert cider_d(right, rest)[0] > 4 * cider_d(right[1:] + right[:1], rest)[0]


def test_scorer_gives_the_same_as_the_function() -> None:
    scorer = CiderD(REFERENCES)
    assert len(scorer) == len(REFERENCES)
    assert [scorer.score(c, i) for i, c in enumerate(CANDIDATES)] == cider_d(
        CANDIDATES, REFERENCES
    )[1]


def test_case_and_punctuation_do_not_matter() -> None:
    shouted = [c.upper() + "!!" for c in CANDIDATES]
    assert cider_d(shouted, REFERENCES) == cider_d(CANDIDATES, REFERENCES)


def test_one_clip_alone_and_no_words_score_zero() -> None:
    assert cider_d(["a dog barks"], [["a dog barks"]]) == (0.0, [0.0])
    assert cider_d(["", "..."], [["a dog"], [""]])[0] == 0.0


@pytest.mark.parametrize(
    ("candidates", "references"),
    [(["a"], [["a"], ["b"]]), ([], []), (["a", "b"], [["a"], []])],
)
def test_mismatched_or_missing_input_is_an_error(
    candidates: list[str], references: list[list[str]]
) -> None:
    with pytest.raises(DataError):
        cider_d(candidates, references)


def test_a_bare_string_is_not_a_list_of_references() -> None:
    with pytest.raises(DataError, match="list of references"):
        cider_d(["a dog"], ["a dog"])
