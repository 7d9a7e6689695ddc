"""ResidualQuantizer against distances written out, and what its codes promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dac_diffusion.codecs import residual_quantizer as module
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer, nearest_entries
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.saved_models import load_saved_model


@pytest.fixture(scope="module")
def quantizer() -> ResidualQuantizer:
    """Three codebooks of five vectors in four dimensions, each of half the size of the last."""
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(feature_dim=4, num_codebooks=3, codebook_size=5)
    for stage in range(3):
        quantizer.codebooks[stage] = torch.randn(5, 4) / 2**stage
    return quantizer.eval()


def test_the_nearest_entry_is_that_of_the_least_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    rows, entries = torch.randn(50, 6), torch.randn(9, 6)
    expected = torch.cdist(rows.double(), entries.double()).argmin(dim=1)
    assert torch.equal(nearest_entries(rows, entries), expected)
    monkeypatch.setattr(module, "ROWS", 7)
    assert torch.equal(nearest_entries(rows, entries), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_entries(rows, entries), expected)


def test_each_codebook_codes_what_is_left(quantizer: ResidualQuantizer) -> None:
    torch.manual_seed(2)
    features = torch.randn(2, 7, 4)
    codes = quantizer.codes(features)
    assert codes.shape == (2, 7, 3)
    assert codes.dtype == torch.long
    for clip in range(2):
        for frame in range(7):
            left = features[clip, frame].double()
            for stage in range(3):
                book = quantizer.codebooks[stage].double()
                distances = ((left - book) ** 2).sum(dim=1)
                assert codes[clip, frame, stage] == distances.argmin()
                left = left - book[distances.argmin()]
            decoded = quantizer.decode(codes)[clip, frame].double()
            torch.testing.assert_close(features[clip, frame] - decoded, left, atol=1e-6, rtol=0)


def test_fewer_codebooks_give_the_first_codes(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(6, 4)
    codes = quantizer.codes(features)
    for count in (0, 1, 2, 3):
        assert torch.equal(quantizer.codes(features, count), codes[:, :count])
    expected = quantizer.codebooks[0][codes[:, 0]] + quantizer.codebooks[1][codes[:, 1]]
    torch.testing.assert_close(quantizer.decode(codes[:, :2]), expected)
    with pytest.raises(ValueError, match="num_codebooks=4: this quantiser has 3"):
        quantizer.codes(features, 4)


def test_normalisation_stands_before_and_after(quantizer: ResidualQuantizer) -> None:
    scaled = ResidualQuantizer(4, 3, 5, normalise=True)
    scaled.load_state_dict(quantizer.state_dict())
    mean, scale = torch.tensor([1.0, -2.0, 0.0, 30.0]), torch.tensor([2.0, 0.5, 1.0, 8.0])
    scaled.mean.copy_(mean)
    scaled.scale.copy_(scale)
    features = torch.randn(9, 4)
    codes = quantizer.codes(features)
    assert torch.equal(scaled.codes(features * scale + mean), codes)
    torch.testing.assert_close(scaled.decode(codes), quantizer.decode(codes) * scale + mean)


def test_half_precision_features_are_compared_in_float32(quantizer: ResidualQuantizer) -> None:
    features = torch.randn(40, 4).half()
    assert torch.equal(quantizer.codes(features), quantizer.codes(features.float()))


def test_saved_and_loaded_again(quantizer: ResidualQuantizer, tmp_path: Path) -> None:
    made = ResidualQuantizer(4, 3, 5, fitted_on={"name": "beats", "settings": {"depth": 2}})
    made.load_state_dict(quantizer.state_dict())
    made.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert json.loads((tmp_path / "config.json").read_text())["num_codebooks"] == 3
    loaded = load_saved_model(ResidualQuantizer, tmp_path)
    features = torch.randn(30, 4)
    assert torch.equal(loaded.codes(features), quantizer.codes(features))
    assert loaded.config.fitted_on == {"name": "beats", "settings": {"depth": 2}}
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_saved_model(ResidualQuantizer, tmp_path)


@pytest.mark.parametrize("name", ["feature_dim", "num_codebooks", "codebook_size"])
def test_sizes_below_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0: must be at least 1"):
        ResidualQuantizer(**{name: 0})
