"""Detection of errors by word order: hand-worked numbers, captions of the grammar, files."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_diffusion.data.soundscapes.captions import write_captions
from dac_diffusion.errors import CheckpointError, DataError
from dac_diffusion.ranking.detectors import TRIGRAMS_FILE
from dac_diffusion.ranking.trigram_errors import (
    TrigramErrorDetector,
    _logistic_fit,
    count_trigrams,
    spoil,
)
from tests.data.soundscapes.test_captions import random_scenes

BROKEN = [
    "a string is plucked, then a submarine sonar pings, and then an go buzzes",
    "wind blows while an excited rings three doorbell",
    "rain falls before a wind snores",
    "a crow is out",
    "a person is hoarsely",
]


@pytest.fixture(scope="module")
def captions() -> list[str]:
    rng = np.random.default_rng(0)
    return [text for scene in random_scenes(1500) for text in write_captions(scene, rng)]


@pytest.fixture(scope="module")
def detector(captions: list[str]) -> TrigramErrorDetector:
    return TrigramErrorDetector.fit(captions[:5000])


def test_ratios_are_those_of_witten_and_bell_worked_by_hand() -> None:
    detector = TrigramErrorDetector(count_trigrams([["a", "b"], ["a", "c"]]), -1.0, 0.0)
    # Six words and ends of four kinds: a twice, b, c, the end twice; an unseen word has 1 / 5.
    # p(a) = (2 + 4/5) / 10 = .28, p(b) = (1 + 4/5) / 10 = .18, p(end) = .28.
    # Behind the start and a: b, c. p(b|a) = (1 + 2 * .18) / 4 = .34, p(b|start a) = .42.
    assert detector.least_ratio(["a", "b"]) == pytest.approx(math.log(0.42 / 0.18), rel=1e-12)
    # p(b|start) = (0 + .18) / 3 = .06, p(b|start start) = (0 + .06) / 3 = .02.
    assert detector.least_ratio(["b"]) == pytest.approx(math.log(0.02 / 0.18), rel=1e-12)
    assert detector.probabilities(["A b."]) == [pytest.approx(1 / (1 + 0.42 / 0.18), rel=1e-12)]


@pytest.mark.parametrize("context", [(), ("a",), ("dog", "barks"), ("barks", "unseen")])
def test_the_likelihoods_of_all_words_sum_to_one(
    detector: TrigramErrorDetector, context: tuple[str, ...]
) -> None:
    words = {word for following in detector.trigrams.values() for word in following}
    total = sum(detector._likelihood(word, context) for word in [*words, "never seen"])
    assert total == pytest.approx(1, abs=1e-9)


def test_good_captions_pass_and_spoilt_ones_are_found(
    captions: list[str], detector: TrigramErrorDetector
) -> None:
    order = random.Random(7)
    unseen = sorted(set(captions[5000:]) - set(captions[:5000]))
    words = [word for caption in captions for word in caption.split()]
    spoilt = [" ".join(spoil(caption.split(), words, order)) for caption in unseen]
    wrong = np.mean(np.array(detector.probabilities(unseen)) > 0.9)
    found = np.mean(np.array(detector.probabilities(spoilt)) > 0.9)
    assert len(unseen) > 500
    assert wrong < 0.05
    assert found > 0.4


def test_the_same_captions_and_seed_give_the_same_detector_in_any_order(
    captions: list[str],
) -> None:
    first = TrigramErrorDetector.fit(captions[:1000])
    again = TrigramErrorDetector.fit(captions[:1000][::-1])
    other = TrigramErrorDetector.fit(captions[:1000], seed=1)
    assert (first.slope, first.intercept) == (again.slope, again.intercept)
    assert first.trigrams == again.trigrams == other.trigrams
    assert first.slope != other.slope


def test_the_fit_is_where_the_gradient_of_the_log_likelihood_is_zero() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(1, 2, 300), rng.normal(-2, 2, 200)
    slope, intercept = _logistic_fit(good.tolist(), bad.tolist())
    ratios, targets = np.r_[good, bad], np.repeat([0, 1], [300, 200])
    miss = 1 / (1 + np.exp(-(slope * ratios + intercept))) - targets
    assert slope < -0.5
    assert abs(miss.sum()) < 0.01
    assert abs((miss * ratios).sum()) < 0.01


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_spoilt_caption_is_one_edit_away(count: int) -> None:
    order, words = random.Random(0), [f"w{i}" for i in range(count)]
    for _ in range(200):
        spoilt = spoil(words, ["new"], order)
        assert spoilt
        assert abs(len(spoilt) - count) <= 1
        assert len(set(words) - set(spoilt)) <= 1


def test_what_the_builtin_trigrams_say() -> None:
    detector = TrigramErrorDetector.load(TRIGRAMS_FILE)
    good = ["a dog barks and then rain falls", "wind blows loudly while a doorbell rings loudly"]
    assert min(detector.probabilities(BROKEN)) > 0.9
    assert max(detector.probabilities(good)) < 0.2
    assert detector.probabilities(["", "..."]) == [1.0, 1.0]
    assert detector.probabilities(["a violin plays"])[0] > 0.9  # it knows no violin


def test_a_saved_detector_is_the_same(
    captions: list[str], detector: TrigramErrorDetector, tmp_path: Path
) -> None:
    detector.save(tmp_path / "d.json")
    loaded = TrigramErrorDetector.load(tmp_path / "d.json")
    texts = captions[:200] + BROKEN
    assert loaded.probabilities(texts) == detector.probabilities(texts)


def test_too_little_to_learn_from() -> None:
    with pytest.raises(DataError, match="2 different captions: a detector needs at least 200"):
        TrigramErrorDetector.fit(["a dog barks", "A dog barks.", "rain", ""])
    in_any_order = [" ".join(words) for words in itertools.product("abcd", repeat=5)]
    with pytest.raises(DataError, match="1024 different captions: spoilt ones look like the othe"):
        TrigramErrorDetector.fit(in_any_order)
    rng = np.random.default_rng(0)
    of_their_own = [" ".join(f"w{i}" for i in rng.integers(0, 10**6, 5)) for _ in range(300)]
    with pytest.raises(DataError, match="300 different captions: spoilt ones look like the others"):
        TrigramErrorDetector.fit(of_their_own)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"slope": None},
        {"intercept": float("nan")},
        {"trigrams": {}},
        {"trigrams": {"a": {"b": 1}}},
        {"trigrams": {"a b": {"c": 0}}},
        {"trigrams": {"a b": {"c": "1"}}},
        {"trigrams": {"a b": []}},
    ],
)
def test_files_of_something_else(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    TrigramErrorDetector(count_trigrams([["a"]]), -1.0, 0.0).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=r"d\.json: is no error detector; `dac-diffusion"):
        TrigramErrorDetector.load(path)


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    with pytest.raises(CheckpointError, match=r"d\.json: there is no such file; `dac-diffusion"):
        TrigramErrorDetector.load(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"d\.json: damaged, not valid JSON"):
        TrigramErrorDetector.load(path)
