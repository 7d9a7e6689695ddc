"""HtsatEncoder against transformers' ClapModel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import ClapModel, ClapProcessor

from dac_diffusion.audio.clap_mel import ClapLogMel
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError
from tests.metrics.fabricated_models import save_clap

RATE, SECOND = 8000, 8000  # the small model hears 1 s at 8 kHz
TIME_FRAMES, BANDS, WIDTH = 32, 2, 16


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLAP whose every weight is random, so that none can be left out unnoticed."""
    folder = tmp_path_factory.mktemp("clap")
    save_clap(folder, fused=request.param)
    model = ClapModel.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        bins = model.audio_model.audio_encoder.batch_norm
        bins.running_mean.copy_(-30 + 5 * torch.randn(16, generator=generator))
        bins.running_var.copy_(100 + 50 * torch.rand(16, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> HtsatEncoder:
    return HtsatEncoder.from_published(folder)


def changed(encoder: HtsatEncoder, **settings: Any) -> HtsatEncoder:
    """The same weights with other settings."""
    before = {name: value for name, value in encoder.config.items() if not name.startswith("_")}
    other = HtsatEncoder(**{**before, **settings})
    other.load_state_dict(encoder.state_dict())
    return other.eval()


def noise(length: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def encode(encoder: HtsatEncoder, clips: list[Tensor], canvas: int = SECOND) -> AudioFeatures:
    waveform = torch.stack([torch.nn.functional.pad(c, (0, canvas - len(c))) for c in clips])
    found: AudioFeatures = encoder(waveform, torch.tensor([len(clip) for clip in clips]))
    return found


@torch.inference_mode()
def reference(folder: Path, clip: Tensor, is_longer: bool = False) -> Any:
    extractor = ClapProcessor.from_pretrained(folder).feature_extractor
    found = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")
    return ClapModel.from_pretrained(folder).get_audio_features(
        input_features=found["input_features"], is_longer=torch.tensor([[is_longer]])
    )


@pytest.mark.parametrize("length", [SECOND, 5300, 900])
def test_outputs_are_those_of_clap_model(folder: Path, encoder: HtsatEncoder, length: int) -> None:
    audio, expected = encode(encoder, [noise(length)]), reference(folder, noise(length))
    torch.testing.assert_close(audio.pooled, expected.pooler_output, rtol=0, atol=1e-5)
    hidden = expected.last_hidden_state  # (1, D, bands, time)
    assert audio.features.shape == (1, TIME_FRAMES * BANDS, WIDTH)
    for time in range(TIME_FRAMES):
        for band in range(BANDS):
            ours = audio.features[0, BANDS * time + band]
            torch.testing.assert_close(ours, hidden[0, :, band, time], rtol=0, atol=1e-5)
    assert (encode(encoder, [noise(length, seed=1)]).pooled - audio.pooled).abs().max() > 1e-4


def test_no_clip_of_a_batch_is_taken_for_a_longer_one(folder: Path, encoder: HtsatEncoder) -> None:
    clips = [noise(length, seed=length) for length in (5300, 900, SECOND, 3000)]
    for clip, pooled in zip(clips, encode(encoder, clips).pooled, strict=True):
        expected = reference(folder, clip).pooler_output[0]
        torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)
        as_longer = reference(folder, clip, is_longer=True).pooler_output[0]
        assert ((as_longer - expected).abs().max() > 1e-4) == encoder.config.clap_config[
            "enable_fusion"
        ]


def test_a_clip_does_not_depend_on_its_batch_or_on_padding(encoder: HtsatEncoder) -> None:
    clips = [noise(length, seed=length) for length in (5300, 900, SECOND)]
    together, reverse = encode(encoder, clips), encode(encoder, clips[::-1])
    assert torch.equal(reverse.features.flip(0), together.features)
    assert torch.equal(reverse.pooled.flip(0), together.pooled)
    for index, clip in enumerate(clips):
        # What follows a clip's own samples is not heard, whatever it is.
        followed = torch.cat([clip, torch.ones(2 * SECOND - len(clip))])[None]
        with torch.inference_mode():
            alone = encoder(followed, torch.tensor([len(clip)]))
        torch.testing.assert_close(alone.features[0], together.features[index], rtol=0, atol=2e-5)
        torch.testing.assert_close(alone.pooled[0], together.pooled[index], rtol=0, atol=2e-5)


def test_nothing_is_left_to_chance(encoder: HtsatEncoder) -> None:
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        torch.manual_seed(seed)
        found.append(encode(encoder, [noise(3 * SECOND // 2)], canvas=2 * SECOND))
    assert torch.equal(found[0].features, found[1].features)
    first_second = encode(encoder, [noise(3 * SECOND // 2)[:SECOND]])
    assert torch.equal(found[0].features, first_second.features)
    assert torch.equal(found[0].pooled, first_second.pooled)


def test_features_are_in_the_order_of_time_then_frequency(encoder: HtsatEncoder) -> None:
    clip = noise(SECOND)
    before = encode(encoder, [clip]).features[0]
    for frame in (3, 16, 29):
        middle = round((frame + 0.5) * SECOND / TIME_FRAMES)
        times = torch.arange(200) / RATE
        for band, frequency in ((0, 300.0), (1, 3000.0)):
            louder = clip.clone()
            louder[middle - 100 : middle + 100] += (
                0.5 * torch.sin(2 * torch.pi * frequency * times) * torch.hann_window(200)
            )
            change = (encode(encoder, [louder]).features[0] - before).norm(dim=-1)  # (S,)
            assert int(change.argmax()) == BANDS * frame + band


def test_bands_can_be_averaged(encoder: HtsatEncoder) -> None:
    every = encode(encoder, [noise(5300)])
    mean = encode(changed(encoder, frequency_pooling="mean"), [noise(5300)])
    assert mean.features.shape == (1, TIME_FRAMES, WIDTH)
    expected = (every.features[:, 0::2] + every.features[:, 1::2]) / 2
    torch.testing.assert_close(mean.features, expected)
    assert mean.mask.shape == (1, TIME_FRAMES)


@pytest.mark.parametrize(("length", "frames"), [(1, 1), (250, 1), (251, 2), (4000, 16), (8000, 32)])
def test_the_mask_can_keep_to_the_first_copy(
    encoder: HtsatEncoder, length: int, frames: int
) -> None:
    assert encode(encoder, [noise(length)]).mask.all()
    first = encode(changed(encoder, real_frames="first_copy"), [noise(length)])
    real = [index < BANDS * frames for index in range(BANDS * TIME_FRAMES)]
    assert first.mask[0].tolist() == real
    pooled = changed(encoder, real_frames="first_copy", frequency_pooling="mean")
    assert int(encode(pooled, [noise(length)]).mask.sum()) == frames


@pytest.mark.parametrize(("num_samples", "canvas"), [(1, 1), (8000, 1), (8001, 2), (12000, 2)])
def test_the_canvas_is_a_multiple_of_what_the_model_hears(
    encoder: HtsatEncoder, num_samples: int, canvas: int
) -> None:
    assert encoder.canvas_samples(num_samples) == canvas * SECOND


def test_the_published_sizes_give_64_features_from_1001_frames() -> None:
    encoder = HtsatEncoder().eval()
    assert (encoder.sampling_rate, encoder.window_seconds) == (48000, 10.0)
    assert (encoder.feature_dim, encoder.pooled_dim) == (768, 512)
    audio = encode(encoder, [noise(48000)], canvas=480000)
    assert audio.features.shape == (1, 64, 768)
    assert audio.pooled.shape == (1, 512)
    torch.testing.assert_close(audio.pooled.norm(dim=-1), torch.ones(1))


def test_bfloat16_keeps_the_front_end_in_float32(encoder: HtsatEncoder) -> None:
    half = changed(encoder).to(torch.bfloat16)
    clips = [noise(5300)[None]]
    assert torch.equal(half.log_mel(clips[0]), encoder.log_mel(clips[0]))
    audio, exact = encode(half, [clips[0][0]]), encode(encoder, [clips[0][0]])
    assert audio.features.dtype == audio.pooled.dtype == torch.bfloat16
    assert (audio.pooled.float() * exact.pooled).sum() > 0.995


# Files


def test_saved_and_loaded_it_gives_the_same(folder: Path, tmp_path: Path) -> None:
    original = tmp_path / "original"
    shutil.copytree(folder, original)
    encoder = HtsatEncoder.from_published(original, window_seconds=0.5)
    encoder.save_pretrained(tmp_path / "saved")
    shutil.rmtree(original)  # what is saved must be enough
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = HtsatEncoder.from_config(HtsatEncoder.load_config(tmp_path / "saved")).eval()
    weights = load_file(tmp_path / "saved" / "diffusion_pytorch_model.safetensors")
    loaded.load_state_dict(weights)
    by_library = HtsatEncoder.from_pretrained(tmp_path / "saved").eval()
    assert loaded.window_seconds == by_library.window_seconds == 0.5
    before, after = (encode(model, [noise(3000)]) for model in (encoder, loaded))
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.pooled, after.pooled)
    for name, weight in by_library.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name])
    # Not to the last bit: the library leaves weights where they lie in the file, unaligned.
    mapped = encode(by_library, [noise(3000)])
    torch.testing.assert_close(mapped.features, before.features, rtol=0, atol=1e-5)


def test_older_folders_with_pickled_weights_load_too(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    weights = load_file(old / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(64)[None]
    computed = [n for n in weights if n.endswith(("relative_position_index", "batches_tracked"))]
    for name in computed:  # some years' files lack these
        del weights[name]
    torch.save(weights, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    extractor = json.loads((old / "processor_config.json").read_text())["feature_extractor"]
    (old / "preprocessor_config.json").write_text(json.dumps(extractor))
    (old / "processor_config.json").unlink()
    before, after = (HtsatEncoder.from_published(path) for path in (folder, old))
    assert computed
    assert torch.equal(
        encode(before, [noise(3000)]).features, encode(after, [noise(3000)]).features
    )


def test_without_the_extractor_the_published_log_mel_is_taken(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "processor_config.json").unlink()
    settings = json.loads((bare / "config.json").read_text())
    with pytest.raises(
        CheckpointError, match="1001 log-mel frames do not fit HTSAT's image of 256"
    ):
        HtsatEncoder.from_published(bare)
    settings["audio_config"]["spec_size"] = 128  # 1024 frames, as in published models
    (bare / "config.json").write_text(json.dumps(settings))
    encoder = HtsatEncoder.from_published(bare)
    assert (encoder.sampling_rate, encoder.config.f_min, encoder.config.f_max) == (48000, 50, 14000)
    scale = "htk" if settings["audio_config"]["enable_fusion"] else "slaney"
    assert torch.equal(
        encoder.log_mel.filter_bank, ClapLogMel(num_mels=16, mel_scale=scale).filter_bank
    )


def test_by_name_it_comes_frozen(folder: Path) -> None:
    encoder = load_encoder("htsat", folder, window_seconds=0.5)
    assert isinstance(encoder, HtsatEncoder)
    assert not encoder.training
    assert not any(weight.requires_grad for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_seconds": 11.0}, r"window_seconds=11.0: CLAP takes up to 10 s at once; longer"),
        ({"window_seconds": 0.0}, "window_seconds=0.0"),
        ({"padding": "zeros"}, "padding='zeros' is unknown: use 'repeatpad' or 'repeat' or 'pad'"),
        ({"frequency_pooling": "max"}, "frequency_pooling='max' is unknown: use 'none' or 'mean'"),
        ({"real_frames": "some"}, "real_frames='some' is unknown: use 'all' or 'first_copy'"),
        ({"mel_scale": "bark"}, "mel_scale='bark': must be htk or slaney"),
        ({"clap_config": {"dephts": [2]}}, "clap_config: dephts unknown; use the names of"),
        (
            {"clap_config": {"hidden_size": 512}},
            "hidden_size is 512, but .* doubled 3 times is 768",
        ),
        ({"hop_length": 240}, "2001 log-mel frames do not fit HTSAT's image of 1024"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HtsatEncoder(**settings)


def test_a_window_longer_than_the_published_one_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"window_seconds=2: CLAP takes up to 1 s at once"):
        HtsatEncoder.from_published(folder, window_seconds=2)
