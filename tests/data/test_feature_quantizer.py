"""Fitting a quantiser on a feature cache, clip by clip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting, fit_quantizer
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.feature_quantizer import CacheFrames, fit_quantizer_on_cache
from dac_diffusion.errors import ConfigError, DataError
from tests.data.code_caches import prepare_codes, save_code_encoder
from tests.data.feature_caches import prepare, save_encoder, write_dataset

FRAMES = (1, 4, 7, 7, 3, 6, 7)  # of the clips


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    prepare(write_dataset(folder / "audio"), folder / "cache", save_encoder(folder / "encoder"))
    return folder


def test_batches_hold_every_real_frame_once(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    clips = [cache.batch([i]).features[0] for i in range(7)]
    assert [len(clip) for clip in clips] == list(FRAMES)
    # Read clip by clip, so nothing that pads a shorter one can be among them.
    every = sorted(map(tuple, torch.cat(clips).tolist()))
    for size in (1, 8, 1000):
        batches = list(CacheFrames(cache, size))
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert sorted(map(tuple, torch.cat(batches).tolist())) == every
    first, again, other = (next(iter(CacheFrames(cache, 99, seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_quantiser_of_a_cache(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    fitting = QuantizerFitting(steps=5, seed=3)
    quantizer, left = fit_quantizer_on_cache(
        cache, 2, 6, fitting=fitting, batch_frames=10, progress=False
    )
    assert 1 > left[0] > left[1] > 0
    expected = ResidualQuantizer(32, 2, 6)
    assert fit_quantizer(expected, list(CacheFrames(cache, 10, 3)), fitting, False) == left
    assert torch.equal(quantizer.codebooks, expected.codebooks)
    assert quantizer.config.fitted_on == cache.encoder
    assert not quantizer.training
    normalised, _ = fit_quantizer_on_cache(
        cache, 1, 6, normalise=True, fitting=fitting, progress=False
    )
    assert normalised.config.normalise
    assert not torch.equal(normalised.mean, quantizer.mean)


def test_what_cannot_be_fitted(made: Path, tmp_path: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    with pytest.raises(DataError, match="only 35 different features were found for 1024 entries"):
        fit_quantizer_on_cache(cache, progress=False)
    with pytest.raises(ConfigError, match="batch_frames=0: must be at least 1"):
        fit_quantizer_on_cache(cache, batch_frames=0)
    save_code_encoder(tmp_path / "codes", made / "encoder")
    prepare_codes(write_dataset(made / "audio"), tmp_path / "cache", tmp_path / "codes")
    with pytest.raises(DataError, match="cache: holds codes already; give a cache of features"):
        fit_quantizer_on_cache(FeatureCache.open(tmp_path / "cache"))
