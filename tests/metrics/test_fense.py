"""FENSE and SPIDEr-FL over fabricated models in the published formats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dac_diffusion.errors import DataError, MissingExtraError
from dac_diffusion.metrics.fense import Fense, SpiderFl, penalize
from dac_diffusion.metrics.java_metrics import Spice, Spider
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from tests.metrics.fabricated_models import save_bert, save_error_detector, save_sentence_model
from tests.metrics.test_java_metrics import stand_in

CANDIDATES = ["A dog barks!", "rain falls on the roof and then stops", "two dogs; heavy rain", "."]
REFERENCES = [["the dog is barking", "dogs bark"], ["heavy rain"], ["two dogs bark"], ["rain"]]


@pytest.fixture
def detector(tmp_path: Path) -> FluencyErrorDetector:
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert")
    return FluencyErrorDetector(tmp_path / "checker.ckpt", tmp_path / "bert")


@pytest.fixture
def fense(tmp_path: Path, detector: FluencyErrorDetector) -> Fense:
    save_sentence_model(tmp_path / "sentences")
    return Fense(tmp_path / "sentences", detector)


def strict(fense: Fense) -> Fense:
    """The same with a detector that finds an error in every caption."""
    path, encoder = fense.detector.checkpoint.with_name("strict.ckpt"), fense.detector.encoder
    save_error_detector(path, encoder, bias=30.0)
    return replace(fense, detector=FluencyErrorDetector(path, encoder))


def test_fense_is_the_mean_cosine_with_the_references(fense: Fense) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(fense.sentence_model), device="cpu")
    ours = model.encode(CANDIDATES, normalize_embeddings=True)
    expected = [
        float((model.encode(group, normalize_embeddings=True) @ vector).mean())
        for vector, group in zip(ours, REFERENCES, strict=True)
    ]
    assert fense.missing() == []
    scores = fense.score(CANDIDATES, REFERENCES)
    assert scores[:3] == pytest.approx(expected[:3], abs=1e-5)
    assert scores[3] == 0  # without words


def test_an_error_of_fluency_costs_nine_tenths(fense: Fense) -> None:
    without = fense.score(CANDIDATES, REFERENCES)
    assert all(p < 0.9 for p in fense.detector.probabilities(CANDIDATES))
    assert strict(fense).score(CANDIDATES, REFERENCES) == pytest.approx([s / 10 for s in without])


def test_the_penalty_begins_above_the_threshold(
    detector: FluencyErrorDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FluencyErrorDetector, "probabilities", lambda self, captions: [0.9, 0.9001, 0.0]
    )
    found = penalize(["a", "b", "c"], [1.0, 1.0, 0.5], detector)
    assert found == pytest.approx([1.0, 0.1, 0.5])


def test_spider_fl_is_spider_with_the_penalty(tmp_path: Path, fense: Fense) -> None:
    (tmp_path / "coco").mkdir()
    spider = Spider(Spice(*stand_in(tmp_path / "coco")))
    spider_fl = SpiderFl(fense.detector, spider)
    assert spider_fl.missing() == []
    plain = spider.score(CANDIDATES, REFERENCES)
    assert max(plain) > 0
    assert spider_fl.score(CANDIDATES, REFERENCES) == plain
    spider_fl = SpiderFl(strict(fense).detector, spider)
    assert spider_fl.score(CANDIDATES, REFERENCES) == pytest.approx([s / 10 for s in plain])


def test_another_kind_of_sentence_model_is_named_before_the_start(fense: Fense) -> None:
    folder = fense.sentence_model
    (folder / "config.json").write_text('{"model_type": "mpnet"}')
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    layers = json.loads((folder / "modules.json").read_text())
    layers.append({"type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(layers))
    with pytest.raises(MissingExtraError) as caught:
        fense.score(CANDIDATES, REFERENCES)
    for part in ("of the BERT kind", "holds mpnet", "mean pooling only", "no layer after pooling"):
        assert part in str(caught.value)
    (folder / "config.json").write_text("no json")
    assert "holds None" in fense.missing()[0]


def test_a_bare_bert_and_the_newer_pooling_file_will_do(fense: Fense) -> None:
    (fense.sentence_model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert fense.missing() == []
    (fense.sentence_model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert len(fense.missing()) == 1
    save_bert(fense.sentence_model.parent / "bare")
    assert Fense(fense.sentence_model.parent / "bare", fense.detector).missing() == []


def test_lists_must_fit_together(fense: Fense) -> None:
    for metric in (fense, SpiderFl(fense.detector)):
        with pytest.raises(DataError, match="one caption per clip"):
            metric.score(CANDIDATES[:1], REFERENCES)
