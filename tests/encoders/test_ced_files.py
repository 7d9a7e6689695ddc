"""CED from published files: every layout gives the encoder, every fault one clear line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dac_diffusion.encoders.ced import CedEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from tests.encoders.published_layouts import (
    CED_BASE,
    TINY_CED,
    ced_shapes,
    ced_weights,
    encode,
    htk_filters,
    hub_layout,
    loae_layout,
    noise,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> CedEncoder:
    path = tmp_path_factory.mktemp("ced") / "ced.pt"
    torch.save(ced_weights(), path)
    return CedEncoder.from_published(path)


def test_a_file_of_the_published_size(tmp_path: Path) -> None:
    one = torch.ones(())  # expanded, it takes four bytes in the file
    weights = {name: one.expand(shape) for name, shape in ced_shapes(CED_BASE).items()}
    weights["front_end.0.spectrogram.window"] = torch.hann_window(512)
    weights["front_end.0.mel_scale.fb"] = htk_filters()
    assert len(weights) == 161
    assert sum(tensor.numel() for tensor in weights.values()) == 85_728_848
    torch.save(weights, tmp_path / "ced.pt")
    encoder = CedEncoder.from_published(tmp_path / "ced.pt")
    assert sum(weight.numel() for weight in encoder.parameters()) == 85_304_960
    sizes = {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072, "patch_size": 16}
    sizes |= {"num_mels": 64, "time_patches": 63}
    defaults = CedEncoder.from_config({"depth": 1}).config
    assert {name: encoder.config[name] for name in sizes} == sizes
    assert all(defaults[name] == sizes[name] for name in sizes if name != "depth")
    assert (encoder.feature_dim, encoder.pooled_dim) == (768, 768)
    assert (encoder.sampling_rate, encoder.window_seconds) == (16000, 10.0)


def test_every_layout_gives_the_same_encoder(tmp_path: Path, encoder: CedEncoder) -> None:
    weights = ced_weights()
    hub = tmp_path / "hub"
    hub.mkdir()
    save_file(hub_layout(weights), hub / "model.safetensors")
    torch.save(hub_layout(weights), tmp_path / "pytorch_model.bin")
    torch.save(loae_layout(weights), tmp_path / "loae.pt")
    torch.save(loae_layout(hub_layout(weights)), tmp_path / "loae_encoder.pt")
    names = ["hub/model.safetensors", "hub", "pytorch_model.bin", "loae.pt", "loae_encoder.pt"]
    for name in names:
        loaded = load_encoder("ced", tmp_path / name, window_seconds=30.0)
        assert loaded.window_seconds == 30.0
        assert not any(weight.requires_grad for weight in loaded.parameters())
        assert loaded.state_dict().keys() == encoder.state_dict().keys()
        for entry, tensor in encoder.state_dict().items():
            assert torch.equal(loaded.state_dict()[entry], tensor)


def test_smaller_models_have_fewer_heads_of_64(tmp_path: Path) -> None:
    for width, heads in ((192, 3), (256, 4), (384, 6)):
        size = TINY_CED | {"width": width, "depth": 1, "hidden": 4 * width}
        torch.save(ced_weights(size), tmp_path / "ced.pt")
        config = CedEncoder.from_published(tmp_path / "ced.pt").config
        assert (config.embed_dim, config.num_heads, config.mlp_dim) == (width, heads, 4 * width)


def failure(path: Path, content: Any) -> str:
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        CedEncoder.from_published(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_a_file_whose_entries_do_not_fit(tmp_path: Path) -> None:
    path, weights = tmp_path / "ced.pt", ced_weights()
    wrong: dict[str, Any] = dict(weights, surplus=torch.ones(1), freq_pos_embed=torch.ones(4))
    del wrong["blocks.1.norm2.bias"]
    assert failure(path, wrong) == (
        "is not a published CED: lacks blocks.1.norm2.bias; has the unknown surplus; "
        "freq_pos_embed is (4,) instead of (1, 128, 4, 1)"
    )
    without = {name: tensor for name, tensor in weights.items() if "blocks.0.attn" not in name}
    assert failure(path, without).startswith(
        "is not a published CED: lacks blocks.0.attn.qkv.weight, blocks.0.attn.qkv.bias, blocks.0.a"
    )
    split = loae_layout(weights)
    del split["blocks.0.attn.k_proj.bias"]
    assert failure(path, split) == (
        "is not a published CED: lacks blocks.0.attn.qkv.bias; "
        "has the unknown blocks.0.attn.q_proj.bias, blocks.0.attn.v_proj.bias"
    )
    twice = weights | {"encoder.norm.weight": weights["norm.weight"]}
    assert failure(path, twice) == "is not a published CED: it has norm.weight twice"


def test_a_file_without_one_of_its_blocks(tmp_path: Path) -> None:
    weights = ced_weights(TINY_CED | {"depth": 3})
    weights = {name: tensor for name, tensor in weights.items() if "blocks.1." not in name}
    assert failure(tmp_path / "ced.pt", weights).startswith(
        "is not a published CED: lacks blocks.1.norm1.weight, blocks.1.norm1.bias, blocks.1.norm2."
    )


def test_a_file_of_another_front_end(tmp_path: Path) -> None:
    weights, name = ced_weights(), "front_end.0.mel_scale.fb"
    start = "was trained on another mel spectrogram than CED's: front_end.0."
    slaney = dict(weights, **{name: weights[name] * 0.9})
    assert failure(tmp_path / "ced.pt", slaney) == f"{start}mel_scale.fb differs"
    broken = dict(weights, **{name: weights[name] * torch.nan})
    assert failure(tmp_path / "ced.pt", broken) == f"{start}mel_scale.fb differs"
    longer = weights | {"front_end.0.spectrogram.window": torch.hann_window(400)}
    assert failure(tmp_path / "ced.pt", longer) == f"{start}spectrogram.window differs"


def test_files_of_other_models(tmp_path: Path) -> None:
    path = tmp_path / "ced.pt"
    assert failure(path, {"cfg": {"encoder_layers": 12}, "model": {}}) == (
        "is not a published CED: it has no time_pos_embed of 4 dimensions; it holds cfg, model"
    )
    assert failure(path, ced_weights() | {"init_bn.1.weight": [1.0]}).startswith(
        "is not a published CED: it has no init_bn.weight of 1 dimensions; it holds time_pos_embed"
    )
    odd = ced_weights(TINY_CED | {"width": 100})
    assert failure(path, odd) == ("is not a published CED: its width 100 is no multiple of 64")
    patch = ced_weights() | {"patch_embed.proj.weight": torch.ones(128, 1, 15, 16)}
    assert failure(path, patch).startswith("its sizes make no model: a width of 128 and 64 bands")


def test_settings_that_make_no_model() -> None:
    with pytest.raises(ConfigError, match="frequency_pooling='max' is unknown: use 'none' or 'm"):
        CedEncoder(frequency_pooling="max")
    with pytest.raises(ConfigError, match="a width of 768 and 64 bands cannot be divided into 5"):
        CedEncoder(num_heads=5)


def test_saved_and_loaded_it_gives_the_same(tmp_path: Path, encoder: CedEncoder) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = CedEncoder.from_pretrained(tmp_path).eval()
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == {
        k: v for k, v in encoder.config.items() if k[0] != "_"
    }
    waveform = noise(20000)
    before, after = (encode(model, waveform, [20000]) for model in (encoder, loaded))
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.pooled, after.pooled)
    assert not list(tmp_path.glob("*.bin"))
