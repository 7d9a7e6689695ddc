"""What goes wrong while a feature cache is made: a line for each, and the other recordings stay."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.data import feature_jobs
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import CheckpointError, ConfigError, DacError, DataError
from tests.data.feature_caches import (
    contents,
    prepare,
    save_encoder,
    write_noise,
)


def test_broken_recordings_are_named_and_the_others_encoded(
    dataset: CaptionDataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, broken = tmp_path / "cache", dataset.clips[2].path
    broken.write_bytes(b"RIFF of another kind")
    dataset.clips[5].path.unlink()
    made = prepare(dataset, cache, weights)
    assert made.clips == 5
    assert [line.partition(": ")[0] for line in made.errors] == [
        str(broken), str(dataset.clips[5].path)
    ]  # fmt: skip
    assert "not a recording that can be read" in made.errors[0]
    assert "does not exist" in made.errors[1]
    before = contents(cache)
    with monkeypatch.context() as patched:  # still broken: named again, the shards left alone
        patched.setattr(feature_jobs, "encode_recordings", None)
        again = prepare(dataset, cache, weights)
    assert (again.encoded, again.errors) == (0, made.errors)
    assert contents(cache) == before
    opened = FeatureCache.open(cache)
    assert [opened.name(i) for i in range(5)] == [f"clip {i}" for i in (0, 1, 3, 4, 6)]
    write_noise(broken, 1.0, seed=2)
    write_noise(dataset.clips[5].path, 1.0, seed=5)
    assert prepare(dataset, cache, weights).encoded == 2
    prepare(dataset, tmp_path / "whole", weights)
    assert contents(cache) == contents(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_recording_that_could_not_be_read_is_tried_again(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    dataset.clips[0].path.chmod(0)
    assert len(prepare(dataset, tmp_path / "cache", weights).errors) == 1
    dataset.clips[0].path.chmod(0o644)
    made = prepare(dataset, tmp_path / "cache", weights)
    assert (made.encoded, made.errors, made.clips) == (1, (), 7)


def test_a_recording_that_was_unreadable_for_a_time_is_tried_again(
    dataset: CaptionDataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dac_diffusion.data import feature_encoding
    from dac_diffusion.errors import AudioError

    load = feature_encoding.load_audio

    def fail_once(path: Path, rate: int) -> np.ndarray:
        if path.name == "1.wav":
            raise AudioError(f"{path}: cannot be read (stale file handle)")
        return load(path, rate)

    with monkeypatch.context() as patched:
        patched.setattr(feature_encoding, "load_audio", fail_once)
        assert len(prepare(dataset, tmp_path / "cache", weights).errors) == 1
    made = prepare(dataset, tmp_path / "cache", weights)
    assert (made.encoded, made.errors, made.clips) == (1, (), 7)
    prepare(dataset, tmp_path / "whole", weights)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_nothing_but_broken_recordings_is_an_error(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    for clip in dataset.clips:
        clip.path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no recording could be encoded; first: .*0\.wav: the file"
    ):
        prepare(dataset, tmp_path / "cache", weights)


def test_features_beyond_float16_are_refused(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    encoder = ConvolutionalEncoder.from_published(weights)
    torch.nn.init.constant_(encoder.norm.weight, 1e5)
    encoder.save_pretrained(tmp_path / "large")
    with pytest.raises(DataError, match=r"first: .*gives no features for it that float16 can hold"):
        prepare(dataset, tmp_path / "cache", tmp_path / "large")


def test_another_encoder_in_the_same_folder_is_refused(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    prepare(dataset, cache, weights)
    before = contents(cache)
    with pytest.raises(DataError, match=r"holds features of another encoder \(weights_sha256 "):
        prepare(dataset, cache, save_encoder(tmp_path / "other", seed=1))
    with pytest.raises(
        DataError, match=r"\(window_seconds 2\.0 there and 1\.5 now\); give another"
    ):
        prepare(dataset, cache, weights, window_seconds=1.5)
    config = json.loads((weights / "config.json").read_text())
    shutil.copytree(weights, tmp_path / "hop")
    (tmp_path / "hop/config.json").write_text(json.dumps({**config, "hop_length": 320}))
    with pytest.raises(DataError, match=r"\(hop_length 640 there and 320 now\)"):
        prepare(dataset, cache, tmp_path / "hop")
    shutil.copytree(weights, tmp_path / "same")
    assert prepare(dataset, cache, tmp_path / "same").encoded == 0
    assert contents(cache) == before


def test_a_shard_that_was_damaged_is_made_again(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    prepare(dataset, cache, weights)
    before = contents(cache)
    first, second, third, _ = sorted((cache / "shards").iterdir())
    (first / "features.npy").write_bytes((first / "features.npy").read_bytes()[:-2])
    (second / "recordings.json").write_text("{")
    shutil.rmtree(third)
    assert prepare(dataset, cache, weights).encoded == 6
    assert contents(cache) == before


def test_only_one_run_writes_into_a_folder(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "cache").mkdir()
    with open(tmp_path / "cache/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DacError, match="cache: another run is writing here; wait for it"):
            prepare(dataset, tmp_path / "cache", weights)
    prepare(dataset, tmp_path / "cache", weights)


def test_a_lost_process_is_an_error_of_one_line(
    dataset: CaptionDataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenExecutor:
        def __init__(self, *arguments: object) -> None: ...

        def __enter__(self) -> BrokenExecutor:
            return self

        def __exit__(self, *error: object) -> None: ...

        def submit(self, *arguments: object) -> Future[int]:
            future: Future[int] = Future()
            future.set_exception(BrokenProcessPool())
            return future

    monkeypatch.setattr(feature_jobs, "ProcessPoolExecutor", BrokenExecutor)
    with pytest.raises(DacError, match=r"a process ended without a word.*fewer --processes"):
        prepare(dataset, tmp_path / "cache", weights, processes=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_seconds": 0.0}, "window_seconds=0.0: must be a number of seconds above 0"),
        ({"window_seconds": float("nan")}, "window_seconds=nan: must be"),
        ({"processes": 0}, "processes=0: must be at least 1"),
        ({"clips_per_shard": 0}, "clips_per_shard=0: must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(
    dataset: CaptionDataset, weights: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(dataset, tmp_path / "cache", weights, **settings)


def test_folders_and_weights_that_cannot_be_used(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is no folder of the small encoder"):
        prepare(dataset, tmp_path / "cache", tmp_path / "audio")
    with pytest.raises(DacError, match="cannot be created"):
        prepare(dataset, dataset.clips[0].path / "cache", weights)
    (tmp_path / "cache/encoder.json").write_text("{}")
    with pytest.raises(DataError, match=r"encoder\.json: is of version None, this installation"):
        prepare(dataset, tmp_path / "cache", weights)


def test_a_folder_of_other_things_is_refused(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    output = tmp_path / "website"
    (output / "shards/.begun.partial").mkdir(parents=True)
    (output / "index.json").write_text("mine")
    with pytest.raises(DataError, match="website: holds something else; choose another output"):
        prepare(dataset, output, weights)
    assert sorted(path.name for path in output.iterdir()) == ["index.json", "shards"]
    assert (output / "shards/.begun.partial").is_dir()
    assert (output / "index.json").read_text() == "mine"
