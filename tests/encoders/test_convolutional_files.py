"""The small encoder from its files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import CheckpointError
from dac_diffusion.saved_models import WEIGHTS_FILE

BUILTIN = Path(__file__).parents[2] / "dac_diffusion/builtin/encoder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2)
    encoder.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@torch.inference_mode()
def features(encoder: ConvolutionalEncoder) -> torch.Tensor:
    waveform = torch.randn(1, 80000, generator=torch.Generator().manual_seed(0)) * 0.1
    return encoder(waveform, torch.tensor([70000])).features


def test_builtin_is_the_encoder_of_the_captioner_to_the_last_bit() -> None:
    encoder = ConvolutionalEncoder.from_published("builtin")
    assert not encoder.training
    captioner = DiffusionCaptioner.from_pretrained("builtin", "float32")
    assert torch.equal(features(encoder), features(captioner.encoder))
    assert torch.equal(features(ConvolutionalEncoder.from_published(BUILTIN)), features(encoder))


def test_the_window_is_a_setting(folder: Path) -> None:
    assert ConvolutionalEncoder.from_published(folder).window_seconds == 10.0
    encoder = ConvolutionalEncoder.from_published(folder, window_seconds=4)
    assert encoder.window_seconds == encoder.config.window_seconds == 4.0
    assert torch.equal(features(encoder), features(ConvolutionalEncoder.from_published(folder)))


def test_folders_of_other_things(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"has no config\.json; give such a folder, or builtin"
    ):
        ConvolutionalEncoder.from_published(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=rf"has no config\.json; give {folder}"):
        ConvolutionalEncoder.from_published(tmp_path)
    with pytest.raises(
        CheckpointError, match="describes CaptionDenoiser, not ConvolutionalEncoder"
    ):
        ConvolutionalEncoder.from_published(BUILTIN.parent / "denoiser")
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="a JSON object was expected"):
        ConvolutionalEncoder.from_published(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: damaged, not valid JSON"):
        ConvolutionalEncoder.from_published(folder)


def test_settings_that_build_nothing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "heads": 0, "num_mels": "many"}))
    with pytest.raises(CheckpointError, match=r"cannot be loaded as ConvolutionalEncoder \(\w+: "):
        ConvolutionalEncoder.from_published(folder)


def test_weights_that_are_missing_damaged_or_of_another_encoder(
    folder: Path, tmp_path: Path
) -> None:
    weights = folder / WEIGHTS_FILE
    shutil.copy(weights, tmp_path / "kept")
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"damaged or cut off \(.*\); copy it again"):
        ConvolutionalEncoder.from_published(folder)
    tensors = load_file(tmp_path / "kept")
    for changed in (
        {name: tensor for name, tensor in tensors.items() if name != "norm.weight"},
        {**tensors, "norm.weight": torch.ones(3)},
        {**tensors, "another": torch.ones(3)},
    ):
        save_file(changed, weights)
        with pytest.raises(
            CheckpointError, match=r"encoder: (the weights (lack|have)|cannot be loaded as)"
        ):
            ConvolutionalEncoder.from_published(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS_FILE}: is missing; copy the"):
        ConvolutionalEncoder.from_published(folder)
