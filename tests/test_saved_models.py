"""Models are read strictly; damaged files are tested with the captioner's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.errors import CheckpointError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.saved_models import WEIGHTS_FILE, load_saved_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    AudioTextScorer(50, 16, width=24, depth=1, embedding_dim=8).save_pretrained(tmp_path)
    return tmp_path


def test_weights_and_settings_come_back_in_the_type_asked_for(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    model = load_saved_model(AudioTextScorer, folder)
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name])
    half = load_saved_model(AudioTextScorer, folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    changed = load_saved_model(AudioTextScorer, folder, {"dropout": 0.5})
    assert changed.config.dropout == 0.5


def test_weights_in_several_files(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    names = sorted(weights)
    for number, part in enumerate((names[:5], names[5:]), start=1):
        path = folder / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, path)
    model = load_saved_model(AudioTextScorer, folder)
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())


def test_a_missing_weight_is_not_filled_in(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    save_file({k: v for k, v in weights.items() if k != "norm.bias"}, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=r"the weights lack norm\.bias"):
        load_saved_model(AudioTextScorer, folder)


def test_another_class_and_settings_that_build_nothing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "width": "wide"}))
    with pytest.raises(CheckpointError, match=r"cannot be loaded as AudioTextScorer \(\w+: "):
        load_saved_model(AudioTextScorer, folder)
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "Other"}))
    with pytest.raises(CheckpointError, match="describes Other, not AudioTextScorer"):
        load_saved_model(AudioTextScorer, folder)
