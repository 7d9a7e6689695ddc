"""Reading a feature cache, whole and damaged."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import DataError
from tests.data.feature_caches import SECONDS, encode_alone, prepare, save_encoder, write_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of seven clips in four shards, with its encoder and recordings beside it."""
    folder = tmp_path_factory.mktemp("made")
    prepare(write_dataset(folder / "audio"), folder / "cache", save_encoder(folder / "encoder"))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The cache, to be damaged."""
    return shutil.copytree(made / "cache", tmp_path / "cache")


def test_a_batch_is_padded_to_its_longest_clip(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    order = [4, 0, 6, 4]
    alone = [encode_alone(made / "encoder", made / f"audio/a/{i}.wav") for i in order]
    for indices in (order, np.array(order), torch.tensor(order), tuple(order)):
        batch = cache.batch(indices)
        assert batch.features.shape == (4, 7, 32)
        assert batch.features.dtype == batch.pooled.dtype == torch.float32
        assert batch.mask.dtype == torch.bool
        for row, (features, pooled) in enumerate(alone):
            frames = len(features)
            np.testing.assert_array_equal(batch.features[row, :frames], features.astype(np.float16))
            assert not batch.features[row, frames:].any()
            assert batch.mask[row].tolist() == [True] * frames + [False] * (7 - frames)
            np.testing.assert_array_equal(batch.pooled[row], pooled)
    assert batch.mask.sum(dim=1).tolist() == [3, 1, 7, 3]


def test_a_clip_does_not_depend_on_its_batch(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    together = cache.batch(range(7))
    for i in range(7):
        alone = cache.batch([i])
        assert torch.equal(alone.features[0], together.features[i, : alone.features.shape[1]])
        assert torch.equal(alone.pooled[0], together.pooled[i])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_type_is_a_setting(made: Path, dtype: torch.dtype) -> None:
    exact = FeatureCache.open(made / "cache").batch([1, 2])
    batch = FeatureCache.open(made / "cache", dtype).batch([1, 2])
    assert torch.equal(batch.features, exact.features.to(dtype))
    assert torch.equal(batch.pooled, exact.pooled.to(dtype))


def test_what_a_cache_says_of_itself(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    assert (len(cache), cache.feature_dim, cache.pooled_dim) == (7, 32, 32)
    assert cache.encoder["name"] == "small"
    assert cache.captions(2) == ("caption 0 of 2", "caption 1 of 2", "caption 2 of 2")
    assert [cache.seconds(i) for i in range(7)] == pytest.approx(SECONDS)
    for index in (7, -8):
        with pytest.raises(IndexError):
            cache.batch([0, index])


def test_a_batch_of_nothing(made: Path) -> None:
    batch = FeatureCache.open(made / "cache").batch([])
    assert batch.features.shape == (0, 0, 32)
    assert batch.pooled.shape == (0, 32)


def test_writing_into_a_batch_changes_no_file(made: Path) -> None:
    cache = FeatureCache.open(made / "cache", torch.float16)
    first = cache.batch([0])
    expected = first.features.clone()
    first.features.zero_()
    assert torch.equal(cache.batch([0]).features, expected)
    cache.verify()


class Batches(Dataset[AudioFeatures]):
    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> AudioFeatures:
        return self.cache.batch([index % 7, (index + 3) % 7])


def as_it_is(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_worker_processes_read_the_same(made: Path, method: str, workers: int) -> None:
    cache = FeatureCache.open(made / "cache")
    expected = [Batches(cache)[i] for i in range(6)]  # maps the files before the workers start
    loader = DataLoader(
        Batches(cache),
        batch_size=None,
        num_workers=workers,
        collate_fn=as_it_is,
        multiprocessing_context=method,
    )
    for batch, right in zip(loader, expected, strict=True):
        assert torch.equal(batch.features, right.features)
        assert torch.equal(batch.mask, right.mask)
        assert torch.equal(batch.pooled, right.pooled)


def test_a_pickle_holds_no_features(made: Path) -> None:
    cache = FeatureCache.open(made / "cache")
    expected = cache.batch(range(7))
    before = len(pickle.dumps(FeatureCache.open(made / "cache")))
    assert len(pickle.dumps(cache)) == before
    again = pickle.loads(pickle.dumps(cache))
    assert torch.equal(again.batch(range(7)).features, expected.features)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_stays_open(made: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    cache = FeatureCache.open(made / "cache")
    cache.batch(range(7))
    assert len(os.listdir("/proc/self/fd")) <= before


def shard_of(cache: Path, number: int) -> Path:
    return sorted((cache / "shards").iterdir())[number]


def test_shards_that_are_not_whole(copy: Path) -> None:
    features = shard_of(copy, 1) / "features.npy"
    content = features.read_bytes()
    features.write_bytes(content[:-1])
    with pytest.raises(
        DataError, match=r"features\.npy: damaged or cut off, 1,023 bytes instead of"
    ):
        FeatureCache.open(copy)
    features.write_bytes(content.replace(b"'<f2'", b"'<f4'"))
    with pytest.raises(DataError, match=r"damaged, its header is not that of \(14, 32\)"):
        FeatureCache.open(copy)
    features.unlink()
    with pytest.raises(DataError, match=r"features\.npy: cannot be read \(No such file"):
        FeatureCache.open(copy)
    shutil.rmtree(shard_of(copy, 2))
    features.write_bytes(content)
    with pytest.raises(DataError, match=r"shards/00002-\w+: this shard is missing; run the same"):
        FeatureCache.open(copy)


def test_a_shard_that_vanishes_later(copy: Path) -> None:
    cache = FeatureCache.open(copy)
    shutil.rmtree(copy / "shards")
    with pytest.raises(DataError, match=r"features\.npy: cannot be read any more"):
        cache.batch([0])


@pytest.mark.parametrize("name", ["features.npy", "pooled.npy"])
def test_verify_finds_a_changed_byte(copy: Path, name: str) -> None:
    FeatureCache.open(copy).verify()
    path = shard_of(copy, 3) / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"00003-\w+/{name}: damaged, delete its folder and run"):
        FeatureCache.open(copy).verify()


def test_folders_that_are_no_finished_cache(copy: Path, tmp_path: Path) -> None:
    (copy / "index.json").unlink()
    with pytest.raises(DataError, match="this feature cache is not finished; run the same"):
        FeatureCache.open(copy)
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"is no feature cache.*make one with `dac-diffusion"):
            FeatureCache.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 2, this installation reads 1; make the cache again"),
        ({"encoder": None}, "damaged, it names no encoder"),
        ({"encoder": {}}, r"damaged \(KeyError: 'feature_dim'\)"),
        ({"shards": None}, r"damaged \(TypeError"),
        ({"clips": [{}]}, r"damaged \(KeyError: 'name'\)"),
    ],
)
def test_an_index_that_cannot_be_used(copy: Path, change: dict[str, Any], message: str) -> None:
    path = copy / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        FeatureCache.open(copy)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("shard", 4), ("row", 2), ("start", 8), ("frames", 9), ("frames", 0)]
)
def test_a_clip_outside_of_its_shard(copy: Path, key: str, value: int) -> None:
    path = copy / "index.json"
    index = json.loads(path.read_text())
    index["clips"][3][key] = value
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"damaged \(ValueError: 'clip 3' lies outside"):
        FeatureCache.open(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_an_index_that_is_no_json_object(copy: Path, content: bytes) -> None:
    (copy / "index.json").write_bytes(content)
    with pytest.raises(
        DataError, match=r"index\.json: (damaged, no valid JSON|is of version None)"
    ):
        FeatureCache.open(copy)
