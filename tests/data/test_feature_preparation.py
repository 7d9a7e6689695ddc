"""Making a feature cache: the same whatever happens on the way, and nothing encoded twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.data import feature_jobs
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.errors import DataError
from tests.data.feature_caches import (
    SECONDS,
    contents,
    encode_alone,
    prepare,
    write_noise,
)

ROOT = Path(__file__).parents[2]


def test_features_are_those_of_the_encoder(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    made = prepare(dataset, tmp_path / "cache", weights)
    assert (made.clips, made.cut, made.encoded) == (7, 2, 7)
    assert (made.errors, made.other_shards) == ((), 0)
    cache = FeatureCache.open(tmp_path / "cache")
    assert [cache.name(i) for i in range(len(cache))] == [clip.name for clip in dataset.clips]
    for i, clip in enumerate(dataset.clips):
        features, pooled = encode_alone(weights, clip.path)
        stored = cache.batch([i])
        np.testing.assert_array_equal(stored.features[0], features.astype(np.float16))
        np.testing.assert_array_equal(stored.pooled[0], pooled)
        assert stored.mask.all()
        assert cache.captions(i) == clip.captions
        assert cache.seconds(i) == pytest.approx(SECONDS[i])
        assert cache.was_cut(i) == (SECONDS[i] > 2.0)


def test_the_index_says_where_everything_comes_from(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    index = json.loads((tmp_path / "cache/index.json").read_text())
    assert index["version"] == 1
    encoder = index["encoder"]
    assert {k: encoder[k] for k in ("name", "window_seconds", "sampling_rate", "feature_dim")} == {
        **{"name": "small", "window_seconds": 2.0, "sampling_rate": 32000, "feature_dim": 32}
    }
    assert encoder["settings"]["channels"] == [4, 4, 8, 8]
    assert len(encoder["weights_sha256"]) == 64
    assert [shard["clips"] for shard in index["shards"]] == [2, 2, 2, 1]
    status = dataset.clips[3].path.stat()
    clip = index["clips"][3]
    assert (clip["name"], clip["audio"]) == ("clip 3", "b/3.wav")
    assert (clip["size"], clip["modified_ns"]) == (status.st_size, status.st_mtime_ns)
    assert (clip["shard"], clip["row"], clip["start"], clip["frames"]) == (1, 1, 7, 7)
    lines = (tmp_path / "cache/index.json").read_text().splitlines()
    assert json.loads(lines[4].rstrip(","))["name"] == "clip 3"


def test_arrays_are_numpy_files(dataset: CaptionDataset, weights: Path, tmp_path: Path) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    cache = FeatureCache.open(tmp_path / "cache")
    folder = sorted((tmp_path / "cache/shards").iterdir())[1]
    features = np.load(folder / "features.npy", mmap_mode="r")
    pooled = np.load(folder / "pooled.npy")
    assert (features.dtype, features.shape, pooled.shape) == (np.float16, (14, 32), (2, 32))
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(features[7:], cache.batch([3]).features[0])
    np.testing.assert_array_equal(pooled[1], cache.batch([3]).pooled[0])


def test_an_interrupted_run_goes_on(
    dataset: CaptionDataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(dataset, tmp_path / "whole", weights)
    encode = feature_jobs.encode_recordings
    left = 5

    def encode_some(*arguments: Any) -> Any:
        nonlocal left
        for result in encode(*arguments):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            yield result

    with monkeypatch.context() as patched:
        patched.setattr(feature_jobs, "encode_recordings", encode_some)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, tmp_path / "cache", weights)
    with pytest.raises(DataError, match="this feature cache is not finished"):
        FeatureCache.open(tmp_path / "cache")
    assert len(list((tmp_path / "cache/shards").iterdir())) == 2
    assert prepare(dataset, tmp_path / "cache", weights).encoded == 3
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


KILLED_RUN = """
import sys, time
from pathlib import Path
from dac_diffusion.data import feature_encoding
from tests.data.feature_caches import prepare, write_dataset

audio, output, weights = map(Path, sys.argv[1:])
load_audio = feature_encoding.load_audio
feature_encoding.load_audio = lambda *a: (time.sleep(0.2), load_audio(*a))[1]
prepare(write_dataset(audio), output, weights)
"""


def test_a_killed_run_goes_on(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "cache"
    arguments = [str(tmp_path / "audio"), str(output), str(weights)]
    run = subprocess.Popen([sys.executable, "-c", KILLED_RUN, *arguments], cwd=ROOT)
    deadline = time.monotonic() + 60
    # A shard is there and the next one begun.
    while not (list(output.glob("shards/0*")) and list(output.glob("shards/.*.partial"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    done = len(list(output.glob("shards/0*")))
    assert 1 <= done < 4
    assert len(list(output.glob("shards/.*.partial"))) == 1
    clips = [
        CaptionedClip(f"clip {i}", tmp_path / f"audio/{'ab'[i % 2]}/{i}.wav", ("words",))
        for i in range(len(SECONDS))
    ]
    dataset = CaptionDataset(tmp_path / "audio", tuple(clips))
    assert prepare(dataset, output, weights).encoded == 7 - 2 * done
    prepare(dataset, tmp_path / "whole", weights)
    assert contents(output) == contents(tmp_path / "whole")


def test_several_processes_make_the_same_cache(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "audio/a/2.wav").write_bytes(b"broken")
    one = prepare(dataset, tmp_path / "one", weights)
    two = prepare(dataset, tmp_path / "two", weights, processes=2)
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_cache_that_is_complete_is_left_alone(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    before = contents(tmp_path / "cache")
    assert prepare(dataset, tmp_path / "cache", weights, processes=2).encoded == 0
    assert contents(tmp_path / "cache") == before


def test_captions_change_without_encoding(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    clips = [
        replace(clip, name=f"new {i}", captions=("new",)) for i, clip in enumerate(dataset.clips)
    ]
    assert prepare(replace(dataset, clips=tuple(clips)), tmp_path / "cache", weights).encoded == 0
    cache = FeatureCache.open(tmp_path / "cache")
    assert [cache.captions(i) for i in range(7)] == [("new",)] * 7
    assert cache.name(6) == "new 6"


def test_a_changed_recording_is_encoded_again(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    before = FeatureCache.open(tmp_path / "cache").batch([4]).features
    write_noise(dataset.clips[4].path, SECONDS[4], seed=99)  # of the same size
    assert prepare(dataset, tmp_path / "cache", weights).encoded == 1
    after = FeatureCache.open(tmp_path / "cache").batch([4]).features
    assert not torch.equal(before, after)
    prepare(dataset, tmp_path / "whole", weights)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_a_copied_recording_is_not_encoded_again(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    prepare(dataset, tmp_path / "cache", weights)
    shutil.copytree(tmp_path / "audio", tmp_path / "moved")
    os.utime(tmp_path / "moved/a/2.wav", ns=(0, 10**18))
    clips = [
        replace(clip, path=tmp_path / "moved" / clip.path.relative_to(dataset.audio))
        for clip in dataset.clips
    ]
    moved = CaptionDataset(tmp_path / "moved", tuple(clips))
    assert prepare(moved, tmp_path / "cache", weights).encoded == 0
    prepare(moved, tmp_path / "whole", weights)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_more_and_fewer_recordings(dataset: CaptionDataset, weights: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for clips, encoded in ((dataset.clips[1:3], 2), (dataset.clips, 5), (dataset.clips[1:], 0)):
        part = replace(dataset, clips=clips)
        assert prepare(part, cache, weights).encoded == encoded
        prepare(part, tmp_path / f"whole {len(clips)}", weights)
    expected = FeatureCache.open(tmp_path / "whole 6")
    found = FeatureCache.open(cache)
    assert [found.name(i) for i in range(6)] == [expected.name(i) for i in range(6)]
    for i in range(6):
        assert torch.equal(found.batch([i]).features, expected.batch([i]).features)


def test_a_smaller_selection_deletes_nothing(
    dataset: CaptionDataset, weights: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    prepare(dataset, cache, weights)
    whole = contents(cache)
    few = prepare(replace(dataset, clips=dataset.clips[:1]), cache, weights)
    assert (few.clips, few.encoded, few.other_shards) == (1, 0, 4)
    assert len(FeatureCache.open(cache)) == 1
    again = prepare(dataset, cache, weights)
    assert (again.encoded, again.other_shards) == (0, 0)
    assert contents(cache) == whole
