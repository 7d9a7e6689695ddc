"""BERTScore against torchmetrics, one pair at a time, on a small random BERT."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from dac_diffusion.metrics.bert_score import BertScore, BertScorer
from tests.metrics.tiny_bert import save_tiny_bert

CANDIDATES = ["a dog barks", "heavy rain falls on the roof, then stops", "two dogs", "rain"]
REFERENCES = [
    ["the dogs bark and bark", "a dog is barking"],
    ["rain falls"],
    ["two dogs", "rain and rain and rain"],
    ["heavy rain, then two dogs barking on a roof", "a roof", "rain"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_tiny_bert(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> BertScorer:
    return BertScorer(folder)


def by_torchmetrics(folder: Path, candidate: str, reference: str, layer: int) -> BertScore:
    text = pytest.importorskip("torchmetrics.functional.text.bert")
    found = text.bert_score(
        [candidate],
        [reference],
        model_name_or_path=str(folder),
        num_layers=layer,
        max_length=40,
        device="cpu",
    )
    return BertScore(*(float(found[name]) for name in ("precision", "recall", "f1")))


def values(score: BertScore) -> tuple[float, float, float]:
    return score.precision, score.recall, score.f1


@pytest.mark.parametrize("layer", [1, 3])
def test_equals_torchmetrics_given_one_pair_at_a_time(folder: Path, layer: int) -> None:
    found = BertScorer(folder, layer).score(CANDIDATES, REFERENCES)
    for score, candidate, references in zip(found, CANDIDATES, REFERENCES, strict=True):
        pairs = [values(by_torchmetrics(folder, candidate, r, layer)) for r in references]
        assert values(score) == pytest.approx(tuple(map(max, zip(*pairs, strict=True))), abs=1e-5)


def test_the_last_layer_is_the_default(folder: Path, scorer: BertScorer) -> None:
    assert scorer.layer == 3
    assert scorer.score(CANDIDATES, REFERENCES) == BertScorer(folder, 3).score(
        CANDIDATES, REFERENCES
    )


def test_scores_do_not_depend_on_the_clips_beside_them(
    scorer: BertScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = scorer.score(CANDIDATES, REFERENCES)
    backwards = scorer.score(CANDIDATES[::-1], REFERENCES[::-1])[::-1]
    monkeypatch.setattr("dac_diffusion.metrics.bert_score.CLIPS_AT_ONCE", 2)
    monkeypatch.setattr("dac_diffusion.metrics.bert_score.BATCH_SIZE", 3)
    in_pieces = scorer.score(CANDIDATES, REFERENCES)
    for index, score in enumerate(together):
        (alone,) = scorer.score(CANDIDATES[index : index + 1], REFERENCES[index : index + 1])
        for other in (alone, backwards[index], in_pieces[index]):
            assert values(score) == pytest.approx(values(other), abs=1e-6)


def test_the_same_words_score_one(scorer: BertScorer) -> None:
    (score,) = scorer.score(["a dog barks"], [["rain", "a dog barks"]])
    assert values(score) == pytest.approx((1, 1, 1), abs=1e-6)


def test_precision_and_recall_exchange_with_the_texts(scorer: BertScorer) -> None:
    (there,) = scorer.score(["a dog barks"], [["heavy rain falls on a roof"]])
    (back,) = scorer.score(["heavy rain falls on a roof"], [["a dog barks"]])
    assert values(there) == pytest.approx((back.recall, back.precision, back.f1), abs=1e-6)
    assert there.precision != pytest.approx(there.recall, abs=1e-4)


def test_no_words_score_zero(scorer: BertScorer) -> None:
    nothing = BertScore(0.0, 0.0, 0.0)
    assert scorer.score(["", "...", "rain"], [["a"], ["."], [""]]) == [nothing] * 3


def test_very_long_captions_are_cut_and_not_an_error(scorer: BertScorer) -> None:
    (score,) = scorer.score(["rain falls " * 100], [["rain"]])
    assert 0 < score.f1 < 1


def test_lists_that_do_not_fit_are_errors(scorer: BertScorer) -> None:
    with pytest.raises(DataError, match="BERTScore needs one caption per clip"):
        scorer.score(["a"], [])


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_is_not_there(folder: Path, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer}: .* has layers 0 to 3"):
        BertScorer(folder, layer)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model here, config\.json missing"):
        BertScorer(tmp_path)
    with pytest.raises(CheckpointError, match="no model here"):
        BertScorer("bert-base-uncased")  # a Hub name is no folder, and nothing is downloaded


def test_a_damaged_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read as a model") as caught:
        BertScorer(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_replaced_by_chance(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1.attention" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack \d+ tensors of the model, such as .*layer\.1"):
        BertScorer(tmp_path)


def test_a_model_with_a_decoder(folder: Path, tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = BartConfig(
        vocab_size=30,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_position_embeddings=16,
    )
    BartModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="needs an encoder such as BERT"):
        BertScorer(tmp_path)
