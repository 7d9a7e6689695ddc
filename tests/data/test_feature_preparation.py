"""Making a feature cache: the same whatever happens on the way, and nothing encoded twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.data import feature_jobs
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.errors import CheckpointError, ConfigError, DacError, DataError
from tests.data.feature_caches import (
    SECONDS,
    contents,
    encode_alone,
    prepare,
    save_encoder,
    write_dataset,
    write_noise,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def dataset(tmp_path: Path) -> CaptionDataset:
    return write_dataset(tmp_path / "audio")


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
