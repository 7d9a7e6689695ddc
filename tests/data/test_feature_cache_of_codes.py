"""Feature caches whose features are codes: 16-bit integers on the disk, long in a batch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.feature_shards import features_type
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import DataError
from tests.data.code_caches import BOOKS, ENTRIES, prepare_codes, save_code_encoder
from tests.data.feature_caches import (
    RATE,
    WINDOW_SECONDS,
    contents,
    prepare,
    save_encoder,
    write_dataset,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the codes of seven clips, with the encoders and the recordings beside it."""
    folder = tmp_path_factory.mktemp("codes")
    save_encoder(folder / "encoder")
    save_code_encoder(folder / "codes", folder / "encoder")
    dataset = write_dataset(folder / "audio")
    prepare_codes(dataset, folder / "cache", folder / "codes")
    prepare(dataset, folder / "floats", folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def dataset(made: Path) -> CaptionDataset:
    """The recordings as they are there."""
    paths = [made / f"audio/{'ab'[i % 2]}/{i}.wav" for i in range(7)]
    clips = [CaptionedClip(f"clip {i}", path, ("words",)) for i, path in enumerate(paths)]
    return CaptionDataset(made / "audio", tuple(clips))


def encode_alone(encoder: CodeEncoder, path: Path) -> AudioFeatures:
    samples, _ = soundfile.read(path, dtype="float32")
    samples = samples[: round(WINDOW_SECONDS * RATE)]
    with torch.inference_mode():
        audio: AudioFeatures = encoder(
            torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        )
    return audio


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_come_back_as_they_were(made: Path, dtype: torch.dtype) -> None:
    cache = FeatureCache.open(made / "cache", dtype)
    order = [4, 0, 6, 2]
    batch = cache.batch(order)
    assert batch.features.dtype == torch.long
    assert batch.pooled.dtype == dtype
    assert batch.features.shape == (4, 7, BOOKS)
    encoder = load_encoder("codes", made / "codes")
    for row, i in enumerate(order):
        alone = encode_alone(encoder, made / f"audio/a/{i}.wav")
        frames = int(alone.mask.sum())
        assert torch.equal(batch.features[row, :frames], alone.features[0, :frames])
        assert not batch.features[row, frames:].any()
        assert batch.mask[row].sum() == frames
        assert torch.equal(batch.pooled[row], alone.pooled[0].to(dtype))
    assert len(batch.features.unique()) > 3
    cache.verify()


def test_what_is_on_the_disk(made: Path) -> None:
    for path in sorted((made / "cache/shards").iterdir()):
        array = np.load(path / "features.npy")
        assert array.dtype == np.int16
        assert array.shape[1] == BOOKS
    for name in ("index.json", "encoder.json"):
        head = json.loads((made / "cache" / name).read_text())
        assert head["version"] == 2
        assert head["encoder"]["num_codebooks"] == head["encoder"]["feature_dim"] == BOOKS
        assert head["encoder"]["codebook_size"] == ENTRIES
        floats = json.loads((made / "floats" / name).read_text())
        assert floats["version"] == 1
        assert not {"num_codebooks", "codebook_size"} & floats["encoder"].keys()


def test_what_a_cache_says_of_its_codes(made: Path) -> None:
    cache, floats = FeatureCache.open(made / "cache"), FeatureCache.open(made / "floats")
    assert (cache.num_codebooks, cache.codebook_size) == (BOOKS, ENTRIES)
    assert (floats.num_codebooks, floats.codebook_size) == (None, None)
    assert cache.feature_dim == BOOKS


def test_making_it_again_encodes_nothing_and_copies_codes(
    made: Path, dataset: CaptionDataset, tmp_path: Path
) -> None:
    copy = shutil.copytree(made / "cache", tmp_path / "cache")
    before = {name: data for name, data in contents(copy).items() if name.startswith("shards")}
    assert prepare_codes(dataset, copy, made / "codes").encoded == 0
    fewer = CaptionDataset(dataset.audio, dataset.clips[1:])  # other shards
    assert prepare_codes(fewer, copy, made / "codes").encoded == 0
    expected = FeatureCache.open(made / "cache").batch(range(1, 7))
    assert torch.equal(FeatureCache.open(copy).batch(range(6)).features, expected.features)
    other = tmp_path / "two"
    assert prepare_codes(dataset, other, made / "codes").encoded == 7
    again = {name: data for name, data in contents(other).items() if name.startswith("shards")}
    assert again == before


def test_codes_beyond_sixteen_bits_with_a_sign(
    made: Path, dataset: CaptionDataset, tmp_path: Path
) -> None:
    shift = 2**16 - ENTRIES
    encoder = save_code_encoder(tmp_path / "codes", made / "encoder", 2**16, shift)
    short = CaptionDataset(dataset.audio, dataset.clips[:2])
    prepare_codes(short, tmp_path / "cache", tmp_path / "codes")
    array = np.load(next((tmp_path / "cache/shards").iterdir()) / "features.npy")
    assert array.dtype == np.uint16
    batch = FeatureCache.open(tmp_path / "cache").batch([0])
    alone = encode_alone(encoder, made / "audio/a/0.wav")
    assert torch.equal(batch.features, alone.features[:, : batch.features.shape[1]])
    assert int(batch.features.min()) >= shift


def test_how_codes_are_stored() -> None:
    assert features_type(None) == np.float16
    for size, kind in ((1, "int16"), (2**15, "int16"), (2**15 + 1, "uint16"), (2**16, "uint16")):
        assert features_type(size) == np.dtype(kind)
    with pytest.raises(DataError, match="codes of 65537 entries cannot be stored: a feature cache"):
        features_type(2**16 + 1)


def test_another_version_and_another_type(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "cache", tmp_path / "cache")
    head = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**head, "version": 1}))
    with pytest.raises(DataError, match=r"index\.json: is of version 1, this installation reads 2"):
        FeatureCache.open(copy)
    (copy / "index.json").write_text(json.dumps(head))
    features = next((copy / "shards").iterdir()) / "features.npy"
    features.write_bytes(features.read_bytes().replace(b"'<i2'", b"'<f2'"))
    with pytest.raises(DataError, match="damaged, its header is not that of"):
        FeatureCache.open(copy)


def test_a_cache_of_other_codes_is_not_mixed_in(
    made: Path, dataset: CaptionDataset, tmp_path: Path
) -> None:
    copy = shutil.copytree(made / "cache", tmp_path / "cache")
    save_code_encoder(tmp_path / "codes", made / "encoder", entries=ENTRIES + 1)
    message = r"holds features of another encoder \(.*codebook_size 6 there and 7 now"
    with pytest.raises(DataError, match=message):
        prepare_codes(dataset, copy, tmp_path / "codes")
