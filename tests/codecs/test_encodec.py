"""EncodecCodec against transformers' EncodecModel, and a clip's codes against what is around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import EncodecModel

from dac_diffusion.codecs.encodec import EncodecCodec
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model
from tests.codecs.published_codecs import HOP, RATE, make_encodec, noise, same_codes, save


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return make_encodec()


@pytest.fixture(scope="module")
def folder(model: EncodecModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("encodec"))


@pytest.fixture(scope="module")
def codec(folder: Path) -> EncodecCodec:
    return EncodecCodec.from_published(folder)


@torch.inference_mode()
def reference(model: EncodecModel, waveform: Tensor, bandwidth: float = 12.0) -> Tensor:
    """Codes (B, S, N) by transformers."""
    codes: Tensor = model.encode(waveform[:, None], bandwidth=bandwidth).audio_codes
    return codes[0].transpose(1, 2)


@torch.inference_mode()
def codes_of(codec: EncodecCodec, waveform: Tensor, *lengths: int) -> Tensor:
    codes: Tensor = codec(waveform, torch.tensor(lengths)).features
    return codes


def test_ten_seconds_at_twelve_kbit(codec: EncodecCodec, model: EncodecModel) -> None:
    waveform = noise(1, 10.0)
    with torch.inference_mode():
        audio = codec(waveform, torch.tensor([10 * RATE]))
    assert audio.features.shape == (1, 750, 16)
    assert audio.features.dtype == torch.long
    assert audio.mask.all()
    assert audio.pooled.tolist() == [[1.0]]
    assert (codec.num_codebooks, codec.codebook_size, codec.feature_dim) == (16, 1024, 16)
    same_codes(audio.features, reference(model, waveform))
    assert all(len(book.unique()) > 5 for book in audio.features[0].T)


@pytest.mark.parametrize(("bandwidth", "count"), [(1.5, 2), (3.0, 4), (6.0, 8), (24.0, 32)])
def test_the_bandwidth_decides_how_many_codebooks(
    folder: Path, model: EncodecModel, bandwidth: float, count: int
) -> None:
    codec, waveform = EncodecCodec.from_published(folder, bandwidth), noise(1, 1.0)
    codes = codes_of(codec, waveform, RATE)
    assert codec.num_codebooks == codes.shape[-1] == count
    same_codes(codes, reference(model, waveform, bandwidth))
    wide = codes_of(EncodecCodec.from_published(folder, 24.0), waveform, RATE)
    assert torch.equal(codes, wide[..., :count])


def test_nothing_behind_a_clip_reaches_it(codec: EncodecCodec, model: EncodecModel) -> None:
    frames = (90, 80, 130)
    waveform = noise(3, 2.0, seed=1)
    lengths = [count * HOP for count in frames]
    with torch.inference_mode():
        together = codec(waveform, torch.tensor(lengths))  # noise behind each clip
    assert together.mask.sum(dim=1).tolist() == list(frames)
    for row, count in enumerate(frames):
        assert not together.features[row, count:].any()
        same_codes(
            together.features[row : row + 1, :count],
            reference(model, waveform[row : row + 1, : lengths[row]]),
        )
    # What the model itself says of the noise would have been seen here.
    assert together.features.shape[1] == 150


def test_a_clip_ends_in_a_frame_filled_up_with_silence(
    codec: EncodecCodec, model: EncodecModel
) -> None:
    waveform = noise(1, 2.0, seed=2)
    length = 100 * HOP + 17
    filled = torch.zeros(1, 101 * HOP)
    filled[:, :length] = waveform[:, :length]
    with torch.inference_mode():
        audio = codec(waveform, torch.tensor([length]))
    assert audio.mask.sum() == 101
    same_codes(audio.features[:, :101], reference(model, filled))


@pytest.mark.parametrize("frames", [1, 4, 6])
def test_a_very_short_clip_is_heard_in_a_second_of_silence(
    codec: EncodecCodec, model: EncodecModel, frames: int
) -> None:
    waveform = noise(1, 0.1, seed=3)[:, : frames * HOP]
    second = torch.zeros(1, RATE)
    second[:, : frames * HOP] = waveform
    expected = reference(model, second)[:, :frames]
    for around in (waveform, second, torch.zeros(1, 3 * RATE)):
        around = around.clone()
        around[:, : frames * HOP] = waveform
        same_codes(codes_of(codec, around, frames * HOP)[:, :frames], expected)


def test_the_canvas_is_whole_seconds(codec: EncodecCodec) -> None:
    assert [codec.canvas_samples(n) for n in (1, RATE, RATE + 1, 10 * RATE)] == [
        RATE,
        RATE,
        2 * RATE,
        10 * RATE,
    ]


def test_autocast_changes_no_code(codec: EncodecCodec) -> None:
    waveform = noise(1, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        within = codes_of(codec, waveform, RATE)
    assert torch.equal(within, codes_of(codec, waveform, RATE))


def test_saved_and_loaded_again(codec: EncodecCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    again = load_saved_model(EncodecCodec, tmp_path)
    waveform = noise(1, 1.0)
    assert torch.equal(codes_of(again, waveform, RATE), codes_of(codec, waveform, RATE))


def test_the_names_of_older_files(folder: Path, codec: EncodecCodec, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    new = [name for name in weights if ".parametrizations." in name]
    assert len(new) > 20  # what transformers writes today
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in weights.items()
    }
    save_file(older, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, waveform = EncodecCodec.from_published(tmp_path), noise(1, 1.0)
    assert torch.equal(codes_of(loaded, waveform, RATE), codes_of(codec, waveform, RATE))


@pytest.mark.parametrize(
    ("settings", "bandwidth", "message"),
    [
        ({}, 5.0, r"bandwidth=5\.0: EnCodec has 1\.5, 3, 6, 12, 24 kbit/s"),
        ({"width": 3}, 12.0, "encodec_config: width unknown; use the names of EncodecConfig: targ"),
        ({"num_filters": "many"}, 12.0, "encodec_config: num_filters='many' is not possible"),
        ({"use_causal_conv": False}, 12.0, "use_causal_conv is False, but only EnCodec models for"),
        ({"audio_channels": 2}, 12.0, "audio_channels is 2, but only"),
        ({"chunk_length_s": 1.0}, 12.0, r"chunk_length_s is 1\.0, but only"),
        ({"normalize": True}, 12.0, "normalize is True, but only"),
        ({"norm_type": "time_group_norm"}, 12.0, "norm_type is 'time_group_norm', but only"),
    ],
)
def test_settings_that_make_no_codec(
    settings: dict[str, object], bandwidth: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EncodecCodec(settings, bandwidth)
    assert "\n" not in str(caught.value)
