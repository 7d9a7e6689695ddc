"""DescriptCodec against transformers' DacModel for each clip alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DacModel

from dac_diffusion.codecs.descript import CLIPS_AT_ONCE, DescriptCodec
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model
from tests.codecs.published_codecs import HOP, RATE, make_descript, noise, same_codes, save


@pytest.fixture(scope="module")
def model() -> DacModel:
    return make_descript()


@pytest.fixture(scope="module")
def folder(model: DacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("descript"))


@pytest.fixture(scope="module")
def codec(folder: Path) -> DescriptCodec:
    return DescriptCodec.from_published(folder)


@torch.inference_mode()
def reference(model: DacModel, waveform: Tensor, count: int | None = None) -> Tensor:
    """Codes (B, S, N) by transformers."""
    codes: Tensor = model.encode(waveform[:, None], n_quantizers=count).audio_codes
    return codes.transpose(1, 2)


@torch.inference_mode()
def codes_of(codec: DescriptCodec, waveform: Tensor, *lengths: int) -> Tensor:
    codes: Tensor = codec(waveform, torch.tensor(lengths)).features
    return codes


def test_ten_seconds(codec: DescriptCodec, model: DacModel) -> None:
    waveform = noise(1, 10.0)
    with torch.inference_mode():
        audio = codec(waveform, torch.tensor([10 * RATE]))
    assert audio.features.shape == (1, 750, 32)
    assert audio.features.dtype == torch.long
    assert audio.mask.all()
    assert audio.pooled.tolist() == [[1.0]]
    assert (codec.num_codebooks, codec.codebook_size, codec.feature_dim) == (32, 1024, 32)
    same_codes(audio.features, reference(model, waveform))
    assert all(len(book.unique()) > 5 for book in audio.features[0].T)


def test_the_first_codebooks(folder: Path, model: DacModel, codec: DescriptCodec) -> None:
    few, waveform = DescriptCodec.from_published(folder, num_codebooks=5), noise(1, 1.0)
    codes = codes_of(few, waveform, RATE)
    assert few.num_codebooks == few.feature_dim == 5
    same_codes(codes, reference(model, waveform, 5))
    assert torch.equal(codes, codes_of(codec, waveform, RATE)[..., :5])


def test_what_is_computed_for_a_clip_is_what_it_would_be_alone(
    codec: DescriptCodec, model: DacModel
) -> None:
    frames = (90, 31, 149)
    waveform = noise(3, 2.0, seed=1)
    lengths = [count * HOP for count in frames]
    with torch.inference_mode():
        together = codec(waveform, torch.tensor(lengths))  # noise behind each clip
        silent = waveform * (torch.arange(2 * RATE) < torch.tensor(lengths)[:, None])
        hidden = codec._hidden(silent, together.mask)
        padded = model.encoder(silent[:, None])
    assert together.mask.sum(dim=1).tolist() == list(frames)
    for row, count in enumerate(frames):
        own = waveform[row : row + 1, : lengths[row]]
        with torch.inference_mode():
            alone = model.encoder(own[:, None])
        torch.testing.assert_close(hidden[row : row + 1, :, :count], alone, rtol=0, atol=1e-4)
        # Silence behind it, which is what padding gives, changes the last frames: up to nine.
        changed = (padded[row, :, :count] - alone[0]).abs().amax(dim=0) > 1e-3
        assert 0 < changed.sum() <= 9
        assert not changed[:-9].any()
        assert not together.features[row, count:].any()
        same_codes(together.features[row : row + 1, :count], reference(model, own))


def test_a_clip_ends_in_a_frame_filled_up_with_silence(
    codec: DescriptCodec, model: DacModel
) -> None:
    waveform = noise(1, 2.0, seed=2)
    length = 100 * HOP + 17
    filled = torch.zeros(1, 101 * HOP)
    filled[:, :length] = waveform[:, :length]
    with torch.inference_mode():
        audio = codec(waveform, torch.tensor([length]))
    assert audio.mask.sum() == 101
    same_codes(audio.features[:, :101], reference(model, filled))


@pytest.mark.parametrize("frames", [1, 4])
def test_a_very_short_clip(codec: DescriptCodec, model: DacModel, frames: int) -> None:
    waveform = noise(1, 0.1, seed=3)
    own = waveform[:, : frames * HOP]
    codes = codes_of(codec, waveform, frames * HOP)[:, :frames]
    same_codes(codes, reference(model, own))


def test_many_clips_go_in_parts(codec: DescriptCodec) -> None:
    count = CLIPS_AT_ONCE + 3
    waveform = noise(count, 0.2, seed=4)
    lengths = [HOP * (3 + row) for row in range(count)]
    together = codes_of(codec, waveform, *lengths)
    assert together.shape == (count, 75, 32)
    for row in (0, CLIPS_AT_ONCE - 1, CLIPS_AT_ONCE, count - 1):
        same_codes(together[row : row + 1], codes_of(codec, waveform[row : row + 1], lengths[row]))


def test_training_mode_and_autocast_change_no_code(codec: DescriptCodec) -> None:
    waveform = noise(1, 1.0)
    expected = codes_of(codec, waveform, RATE)
    codec.train()  # in which the quantizer of transformers would leave out codebooks by chance
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(codes_of(codec, waveform, RATE), expected)
    finally:
        codec.eval()


def test_saved_and_loaded_again(codec: DescriptCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    again = load_saved_model(DescriptCodec, tmp_path)
    waveform = noise(1, 1.0)
    assert torch.equal(codes_of(again, waveform, RATE), codes_of(codec, waveform, RATE))


def test_weight_normalised_files(folder: Path, codec: DescriptCodec, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("conv1.weight")]:
        layer = nn.Conv1d(1, 1, 1)
        layer.weight = nn.Parameter(weights.pop(name))
        parts = torch.nn.utils.parametrizations.weight_norm(layer).state_dict()
        stem = name.removesuffix("weight")
        weights[f"{stem}weight_g"] = parts["parametrizations.weight.original0"]
        weights[f"{stem}weight_v"] = 2 * parts["parametrizations.weight.original1"]  # direction
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, waveform = DescriptCodec.from_published(tmp_path), noise(1, 1.0)
    same_codes(codes_of(loaded, waveform, RATE), codes_of(codec, waveform, RATE))


@pytest.mark.parametrize(
    ("settings", "count", "message"),
    [
        ({}, 33, "num_codebooks=33: this codec has 1 to 32"),
        ({}, 0, "num_codebooks=0: this codec has 1 to 32"),
        ({"width": 3}, None, "descript_config: width unknown; use the names of DacConfig: enc"),
        ({"codebook_dim": "wide"}, None, "descript_config: codebook_dim='wide' is not possible"),
    ],
)
def test_settings_that_make_no_codec(
    settings: dict[str, object], count: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        DescriptCodec(settings, count)
    assert "\n" not in str(caught.value)
