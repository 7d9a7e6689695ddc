"""PairedEncoder against the two encoders it is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.captioning.window_encoding import Window, encode_windows, window_batches
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.feature_encoding import FeatureSettings
from dac_diffusion.data.feature_preparation import prepare_features
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.loading import encoder_name, load_encoder, random_encoder
from dac_diffusion.encoders.paired import PairedEncoder
from dac_diffusion.errors import CheckpointError, ConfigError, DataError
from tests.data.feature_caches import save_encoder, write_dataset
from tests.metrics.fabricated_models import save_clap

# Features, vectors: at the same rate, at a higher and at a lower one.
PAIRS = [("fused", "unfused"), ("small", "unfused"), ("beats", "small")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("claps")
    save_clap(folder / "fused", fused=True, seed=1)
    save_clap(folder / "unfused", seed=2)
    save_encoder(folder / "small")
    return {
        "fused": HtsatEncoder.from_published(folder / "fused"),  # hear 1 s at 8 kHz
        "unfused": HtsatEncoder.from_published(folder / "unfused"),
        "small": ConvolutionalEncoder.from_published(folder / "small"),  # 2 s at 32 kHz
        "beats": random_encoder("beats"),
    }


def sound(seconds: float, rate: int, clips: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(clips, round(seconds * rate), generator=generator)


@torch.inference_mode()
def alone(encoder: Any, clip: Tensor, rate: int | None = None) -> AudioFeatures:
    """What an encoder gives for a clip (n,) at some rate, by itself, resampled by soxr."""
    if rate not in (None, encoder.sampling_rate):
        found = soxr.resample(clip.numpy(), rate, encoder.sampling_rate, "HQ")
        wanted = -(-len(clip) * encoder.sampling_rate // rate)
        clip = F.pad(torch.from_numpy(found)[:wanted], (0, max(0, wanted - len(found))))
    canvas = encoder.canvas_samples(len(clip))
    padded = F.pad(clip, (0, canvas - len(clip)))
    audio: AudioFeatures = encoder(padded[None], torch.tensor([len(clip)]))
    return audio


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_features_are_the_firsts_and_vectors_the_seconds(
    parts: dict[str, Any], first: str, second: str
) -> None:
    """To the bit, alone or in a batch, whatever follows a clip."""
    features, vectors = parts[first], parts[second]
    pair = PairedEncoder.from_parts(features, vectors)
    rate = pair.sampling_rate
    assert rate == max(features.sampling_rate, vectors.sampling_rate)
    assert (pair.feature_dim, pair.pooled_dim) == (features.feature_dim, vectors.pooled_dim)
    assert pair.window_seconds == features.window_seconds
    waveform = sound(1.0, rate, clips=3)  # noise behind every clip
    lengths = [round(0.4 * rate), rate, round(0.73 * rate) + 1]
    with torch.inference_mode():
        together = pair(waveform, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        clip = waveform[row, :length]
        expected, vector = alone(features, clip, rate), alone(vectors, clip, rate).pooled
        frames = expected.features.shape[1]
        for audio, place in ((together, row), (alone(pair, clip), 0)):
            assert torch.equal(audio.features[place, :frames], expected.features[0])
            assert torch.equal(audio.mask[place, :frames], expected.mask[0])
            assert not audio.mask[place, frames:].any()
            assert torch.equal(audio.pooled[place], vector[0])
    assert not torch.equal(together.pooled[0], together.pooled[1])


def test_windows_through_the_captioners_own_batching(parts: dict[str, Any]) -> None:
    pair = PairedEncoder.from_parts(parts["beats"], parts["small"])
    clips = [sound(seconds, 32000, seed=9)[0] for seconds in (0.5, 1.4, 0.9, 2.9)]
    windows = [Window(str(i), 0.0, clip.numpy()) for i, clip in enumerate(clips)]
    seen = []
    with torch.inference_mode():
        for batch in window_batches(windows, pair, 8):
            audio = encode_windows(pair, [windows[i] for i in batch], torch.device("cpu"))
            for row, i in enumerate(batch):
                assert torch.equal(audio.pooled[row], alone(pair, clips[i]).pooled[0])
                assert torch.equal(audio.features[row], alone(pair, clips[i]).features[0])
                seen.append(i)
    assert sorted(seen) == [0, 1, 2, 3]


def test_windows_of_one_canvas_have_one_canvas_in_both(parts: dict[str, Any]) -> None:
    pair, seen = PairedEncoder.from_parts(parts["small"], parts["unfused"]), {}
    for length in range(1, 6 * 32000, 997):
        canvas = pair.canvas_samples(length)
        assert canvas >= length
        assert pair.canvas_samples(canvas) == canvas
        own = (
            parts["small"].canvas_samples(length),
            parts["unfused"].canvas_samples(-(-length // 4)),
        )
        assert seen.setdefault(canvas, own) == own


def test_the_vector_of_a_clip_longer_than_its_encoder_hears(parts: dict[str, Any]) -> None:
    pair = PairedEncoder.from_parts(parts["small"], parts["unfused"])
    clip = sound(2.0, 32000)[0]
    resampled = torch.from_numpy(soxr.resample(clip.numpy(), 32000, 8000, "HQ"))
    halves = [alone(parts["unfused"], half).pooled[0] for half in resampled.split(8000)]
    assert len(halves) == 2
    expected = torch.stack(halves).mean(dim=0)
    torch.testing.assert_close(alone(pair, clip).pooled[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_saved_and_loaded_again(
    parts: dict[str, Any], first: str, second: str, tmp_path: Path
) -> None:
    pair = PairedEncoder.from_parts(parts[first], parts[second])
    pair.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = load_encoder("paired", tmp_path)
    assert encoder_name(loaded) == "paired"
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    clip = sound(0.6, pair.sampling_rate)[0]
    before, after = alone(pair, clip), alone(loaded, clip)
    assert torch.equal(before.features, after.features)
    assert torch.equal(before.pooled, after.pooled)
    shorter = load_encoder("paired", tmp_path, window_seconds=0.5)
    assert shorter.window_seconds == shorter.features_encoder.window_seconds == 0.5
    assert shorter.vectors_encoder.window_seconds == parts[second].window_seconds


def test_the_parts_stay_as_they_are(parts: dict[str, Any]) -> None:
    pair = PairedEncoder.from_parts(parts["fused"], parts["unfused"])
    before = next(parts["fused"].parameters()).clone()
    with torch.no_grad():
        next(pair.features_encoder.parameters()).add_(1)
    assert torch.equal(next(parts["fused"].parameters()), before)


def test_in_another_floating_point_type(parts: dict[str, Any]) -> None:
    pair = PairedEncoder.from_parts(parts["fused"], parts["unfused"]).to(torch.bfloat16)
    clip = sound(0.6, 8000)[0]
    audio = alone(pair, clip)
    assert audio.features.dtype == audio.pooled.dtype == torch.bfloat16
    assert torch.equal(audio.features, alone(pair.features_encoder, clip).features)
    assert torch.equal(audio.pooled, alone(pair.vectors_encoder, clip).pooled)


def test_a_feature_cache_belongs_to_both_sets_of_weights(
    parts: dict[str, Any], tmp_path: Path
) -> None:
    pair = PairedEncoder.from_parts(parts["small"], parts["unfused"])
    pair.save_pretrained(tmp_path / "pair")
    dataset = write_dataset(tmp_path / "audio", (0.3, 2.0, 0.7))

    def prepare(folder: str) -> None:
        settings = FeatureSettings("paired", tmp_path / folder)
        prepare_features(dataset, tmp_path / "cache", settings, progress=False)

    prepare("pair")
    batch = FeatureCache.open(tmp_path / "cache").batch([1, 2])
    for row, seconds in ((0, 2.0), (1, 0.7)):
        samples, _ = soundfile.read(dataset.clips[row + 1].path, dtype="float32")
        assert len(samples) == seconds * 32000
        expected = alone(pair, torch.from_numpy(samples))
        frames = expected.features[0][expected.mask[0]]
        assert torch.equal(batch.features[row, : len(frames)], frames.half().float())
        assert torch.equal(batch.pooled[row], expected.pooled[0])
    for part in ("features_encoder", "vectors_encoder"):
        other = PairedEncoder.from_parts(parts["small"], parts["unfused"])
        with torch.no_grad():
            next(getattr(other, part).parameters()).view(-1)[0].add_(1e-3)
        other.save_pretrained(tmp_path / part)
        with pytest.raises(DataError, match=r"features of another encoder \(weights_sha256 "):
            prepare(part)


def test_pairs_that_cannot_be(parts: dict[str, Any], tmp_path: Path) -> None:
    def refused(message: str, *names: str, **settings: Any) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            PairedEncoder(*names, **settings)
        assert "\n" not in str(caught.value)

    refused("features_name='codes': give an encoder of features by itself", "codes", "htsat")
    refused("vectors_name='paired': give an encoder of features by itself", "htsat", "paired")
    refused("encoder='panns' is unknown: use one of small, beats", "panns", "htsat")
    refused("window_seconds=11.0: CLAP takes up to 10 s", "htsat", "htsat", window_seconds=11.0)
    with pytest.raises(ConfigError, match="Linear is none of the encoders small, beats"):
        PairedEncoder.from_parts(parts["small"], torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="frequency_pooling: a pair has no such setting; it"):
        load_encoder("paired", tmp_path, frequency_pooling="mean")


def test_folders_that_hold_no_pair(parts: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_encoder("paired", folder)
        assert "\n" not in str(caught.value)

    refused(r"folder/config\.json: is missing, so this is no complete checkpoint")
    parts["small"].save_pretrained(folder)
    refused("describes ConvolutionalEncoder, not PairedEncoder; give another folder")
    PairedEncoder.from_parts(parts["small"], parts["unfused"]).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "vectors_name": "small",
                                                    "vectors_config": {}}))  # fmt: skip
    refused("the weights lack vectors_encoder")
