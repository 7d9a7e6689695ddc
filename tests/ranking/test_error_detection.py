"""The published error detector over a fabricated checkpoint in its format."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch

from dac_diffusion.errors import CheckpointError
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from tests.metrics.fabricated_models import save_error_detector

CAPTIONS = ["A dog barks!", "rain falls on the roof and then stops", "two dogs; heavy rain", "."]


@pytest.fixture
def detector(tmp_path: Path) -> FluencyErrorDetector:
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert")
    return FluencyErrorDetector(tmp_path / "checker.ckpt", tmp_path / "bert")


def test_probabilities_are_the_last_output_of_the_classifier(
    tmp_path: Path, detector: FluencyErrorDetector
) -> None:
    from transformers import BertModel, BertTokenizer

    weights = torch.load(detector.checkpoint, weights_only=True)["state_dict"]
    model = BertModel.from_pretrained(detector.encoder).eval()
    tokenizer = BertTokenizer(str(detector.encoder / "vocab.txt"))
    long = "a dog barks and " * 40
    expected = []
    for caption in [*CAPTIONS, long]:
        text = re.sub(r"[^\w\s]", "", caption).lower()
        batch = tokenizer(
            text, truncation=True, max_length=64, padding="max_length", return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**batch).last_hidden_state[:, 0] @ weights["clf.weight"].T
        expected.append((logits + weights["clf.bias"])[0, -1].sigmoid().item())
    assert detector.missing() == []
    assert detector.probabilities([*CAPTIONS, long]) == pytest.approx(expected, abs=1e-6)
    assert detector.probabilities(CAPTIONS * 40)[-4:] == pytest.approx(expected[:4], abs=1e-6)


def test_the_model_is_loaded_once(
    detector: FluencyErrorDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = detector.probabilities(CAPTIONS)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded again"))
    assert detector.probabilities(CAPTIONS) == first
    assert detector.probabilities([]) == []


def test_missing_files_are_named_with_the_way_out(detector: FluencyErrorDetector) -> None:
    (detector.encoder / "vocab.txt").unlink()
    detector.checkpoint.unlink()
    with pytest.raises(CheckpointError) as caught:
        detector.probabilities(CAPTIONS)
    assert str(caught.value) == (
        f"the error detector needs {detector.checkpoint} (release V0.1 of "
        f"github.com/blmoistawinde/fense has it) and {detector.encoder / 'vocab.txt'} (the one of "
        "bert-base-uncased, or of prajjwal1/bert-tiny for the tiny checkpoint)"
    )
    assert len(detector.missing()) == 2


@pytest.mark.parametrize("change", [1, -1])
def test_pieces_of_another_model_are_refused(detector: FluencyErrorDetector, change: int) -> None:
    path = detector.encoder / "vocab.txt"
    pieces = path.read_text().split()
    path.write_text("\n".join([*pieces, "cat"][: len(pieces) + change]) + "\n")
    with pytest.raises(CheckpointError) as caught:
        detector.probabilities(["a dog"])
    assert str(caught.value) == (
        f"{path}: has {len(pieces) + change} pieces, but config.json beside it says {len(pieces)}; "
        "copy both from the same model"
    )


def test_a_damaged_or_unsafe_checkpoint_is_refused(
    tmp_path: Path, detector: FluencyErrorDetector
) -> None:
    path = detector.checkpoint
    touched = tmp_path / "touched"

    class Unsafe:
        def __reduce__(self) -> tuple[object, ...]:
            return touched.touch, ()

    whole = torch.load(path, weights_only=True)
    contents = [
        pickle.dumps(Unsafe()),
        b"not a checkpoint",
        {"model_type": "bert-base-uncased", "num_classes": 6},
        whole | {"num_classes": 5},
        whole | {"state_dict": {}},
    ]
    for content in contents:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(CheckpointError, match="is no error detector that fits") as caught:
            detector.probabilities(["a dog"])
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    torch.save({"state_dict": {}, "num_classes": Unsafe()}, path)
    with pytest.raises(CheckpointError):
        detector.probabilities(["a dog"])
    assert not touched.exists()
