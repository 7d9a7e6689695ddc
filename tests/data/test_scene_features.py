from pathlib import Path

import numpy as np
import pytest
import torch

from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting, fit_quantizer
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.augmentation import AugmentationConfig
from dac_diffusion.data.scene_cache import ScenePool, load_or_render_pool
from dac_diffusion.data.scene_features import (
    Hearings,
    SceneFeatures,
    encode_pool,
    load_or_encode_pool,
    quantize_scenes,
    real_frames,
)
from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder

SCENES, VIEWS = 5, 3


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ScenePool:
    folder: Path = tmp_path_factory.mktemp("pool")
    config = SoundscapeConfig(shortest_seconds=1.0, longest_seconds=3.0)
    return load_or_render_pool(folder, config, "train", SCENES, progress=False)


@pytest.fixture(scope="module")
def encoder() -> ConvolutionalEncoder:
    torch.manual_seed(0)
    return ConvolutionalEncoder(channels=(4, 8, 8, 16), width=16, depth=1).eval()


def encode(
    encoder: ConvolutionalEncoder, pool: ScenePool, views: int = VIEWS, seed: int = 0
) -> SceneFeatures:
    return encode_pool(encoder, pool, Hearings(views, AugmentationConfig(), seed), progress=False)


def test_the_first_view_is_the_scene_as_it_is(
    encoder: ConvolutionalEncoder, pool: ScenePool
) -> None:
    features = encode(encoder, pool)
    frames = 10  # of 3 s at 3.1 frames a second
    assert features.num_views == VIEWS
    assert features.features.shape == (VIEWS, SCENES, frames, 16)
    assert features.pooled.shape == (VIEWS, SCENES, 16)
    log_mel = torch.from_numpy(pool.log_mel.astype(np.float32))
    with torch.inference_mode():
        expected = encoder.encode_log_mel(log_mel, torch.from_numpy(pool.num_samples))
    # The pool is encoded in bfloat16 and kept in float16.
    torch.testing.assert_close(
        features.features[0].float(), expected.features[:, :frames], rtol=0.05, atol=0.1
    )
    assert torch.equal(features.mask, expected.mask[:, :frames])
    counts = [-(-int(n) // 10240) for n in pool.num_samples]
    assert features.mask.sum(dim=1).tolist() == counts


def test_other_views_are_augmented_differently(
    encoder: ConvolutionalEncoder, pool: ScenePool
) -> None:
    views = encode(encoder, pool).features.float()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (views[a] - views[b]).abs().amax(dim=(1, 2)).min() > 0.01
    same = encode_pool(encoder, pool, Hearings(2), progress=False).features
    assert torch.equal(same[0], same[1])


def test_the_seed_decides(encoder: ConvolutionalEncoder, pool: ScenePool) -> None:
    first, second, other = (encode(encoder, pool, 2, seed).features for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_select_takes_each_scene_in_its_own_view(
    encoder: ConvolutionalEncoder, pool: ScenePool
) -> None:
    features = encode(encoder, pool)
    audio = features.select(np.array([4, 0, 4]), np.array([2, 0, 1]))
    assert audio.features.dtype == audio.pooled.dtype == torch.float32
    for row, (scene, view) in enumerate(((4, 2), (0, 0), (4, 1))):
        assert torch.equal(audio.features[row], features.features[view, scene].float())
        assert torch.equal(audio.pooled[row], features.pooled[view, scene].float())
        assert torch.equal(audio.mask[row], features.mask[scene])


def test_features_are_computed_once_for_all_that_decides_them(
    encoder: ConvolutionalEncoder,
    pool: ScenePool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(seed: int = 0, encoder: ConvolutionalEncoder = encoder) -> SceneFeatures:
        hearings = Hearings(2, AugmentationConfig(), seed)
        return load_or_encode_pool(tmp_path, encoder, pool, hearings, progress=False)

    first = load()
    load(seed=1)
    torch.manual_seed(1)
    load(encoder=ConvolutionalEncoder(channels=(4, 8, 8, 16), width=16, depth=1))
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr("dac_diffusion.data.scene_features.encode_pool", pytest.fail)
    again = load()
    direct = encode(encoder, pool, 2)
    for name in ("features", "pooled", "mask"):
        assert torch.equal(getattr(again, name), getattr(first, name))
        assert torch.equal(getattr(again, name), getattr(direct, name))


@torch.inference_mode()
def test_in_full_precision_only_float16_rounds(
    encoder: ConvolutionalEncoder, pool: ScenePool, tmp_path: Path
) -> None:
    log_mel = torch.from_numpy(pool.log_mel.astype(np.float32))
    expected = encoder.encode_log_mel(log_mel, torch.from_numpy(pool.num_samples))
    for kept in range(2):
        exact = load_or_encode_pool(tmp_path, encoder, pool, Hearings(), False, bfloat16=False)
        assert torch.equal(exact.features[0], expected.features[:, :10].half())
        assert torch.equal(exact.pooled[0], expected.pooled.half())
        rounded = load_or_encode_pool(tmp_path, encoder, pool, Hearings(), progress=False)
        assert not torch.equal(rounded.features, exact.features)
        assert len(list(tmp_path.iterdir())) == 2, kept


def test_scenes_become_codes(encoder: ConvolutionalEncoder, pool: ScenePool) -> None:
    features = encode(encoder, pool)
    batches = real_frames(features, 20)
    frames = int(features.mask.sum())
    assert sum(map(len, batches)) == VIEWS * frames
    expected = [features.features[v][features.mask] for v in range(VIEWS)]
    assert sorted(map(tuple, torch.cat(batches).tolist())) == sorted(
        map(tuple, torch.cat(expected).tolist())
    )
    quantizer = ResidualQuantizer(16, num_codebooks=3, codebook_size=8)
    fit_quantizer(quantizer, batches, QuantizerFitting(4), progress=False)
    coded = quantize_scenes(features, quantizer, progress=False)
    assert coded.features.shape == (VIEWS, SCENES, 10, 3)
    assert coded.features.dtype == torch.int16
    assert coded.num_views == VIEWS
    assert torch.equal(coded.pooled, features.pooled)
    assert torch.equal(coded.mask, features.mask)
    audio = coded.select(np.array([4, 0]), np.array([2, 1]))
    assert audio.features.dtype == torch.long
    assert audio.pooled.dtype == torch.float32
    for row, (scene, view) in enumerate(((4, 2), (0, 1))):
        own = features.mask[scene]
        one = quantizer.codes(features.features[view, scene].float())
        assert torch.equal(audio.features[row][own], one[own])
        assert not audio.features[row][~own].any()
    many = ResidualQuantizer(16, 1, 2**15 + 1)
    many.codebooks[0, -1] = 1.0
    assert quantize_scenes(features, many, progress=False).features.dtype == torch.int32
    with pytest.raises(ValueError, match="features of width 16 do not fit a quantiser of width 8"):
        quantize_scenes(features, ResidualQuantizer(8))
