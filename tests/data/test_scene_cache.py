import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.audio.log_mel import LogMel
from dac_diffusion.data import scene_cache
from dac_diffusion.data.scene_cache import (
    SCENES_PER_JOB,
    ScenePool,
    load_or_render_pool,
    log_mel_shape,
    scene_log_mel,
)
from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset
from dac_diffusion.errors import DataError

CONFIG = SoundscapeConfig(shortest_seconds=1.0, longest_seconds=2.0)
COUNT = 4


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "2").mkdir()


def pool_of(folder: Path, count: int = COUNT, num_workers: int = 0) -> ScenePool:
    return load_or_render_pool(folder, CONFIG, "train", count, num_workers, progress=False)


def assert_same(first: ScenePool, second: ScenePool) -> None:
    assert np.array_equal(first.log_mel, second.log_mel)
    assert np.array_equal(first.num_samples, second.num_samples)
    assert (first.scenes, first.captions) == (second.scenes, second.captions)


def test_a_pool_holds_the_first_scenes_of_the_split(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    dataset, front_end = SoundscapeDataset(CONFIG, "train"), LogMel()
    assert len(pool) == COUNT
    assert pool.log_mel.shape == (COUNT, *log_mel_shape(CONFIG)) == (COUNT, 101, 64)
    assert pool.log_mel.dtype == np.float16
    for index in range(COUNT):
        example = dataset.example(index)
        assert pool.scenes[index] == example.scene
        assert pool.captions[index] == example.captions
        assert pool.num_samples[index] == len(example.waveform)
        expected = scene_log_mel(example, front_end, 64000).half().numpy()
        np.testing.assert_allclose(pool.log_mel[index], expected, atol=0.01)
        # Silence follows the scene: the front end's window is 32 ms long.
        after = pool.log_mel[index, len(example.waveform) // 640 + 2 :]
        np.testing.assert_allclose(after.astype(np.float32), np.log(1e-5), atol=0.01)


def test_worker_processes_give_the_same_pool(tmp_path: Path) -> None:
    count = SCENES_PER_JOB + 3  # two jobs
    assert_same(pool_of(tmp_path / "0", count), pool_of(tmp_path / "2", count, num_workers=2))


def test_a_pool_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pool_of(tmp_path)

    def fail(*arguments: object) -> None:
        pytest.fail("rendered again")

    monkeypatch.setattr(scene_cache, "_render_pool", fail)
    assert_same(pool_of(tmp_path), first)


def test_other_settings_make_another_pool(tmp_path: Path) -> None:
    pool_of(tmp_path / "0")
    pool_of(tmp_path / "0", 2)
    load_or_render_pool(tmp_path / "0", CONFIG, "validation", 2, progress=False)
    other = SoundscapeConfig(shortest_seconds=1.0, longest_seconds=2.0, seed=1)
    load_or_render_pool(tmp_path / "0", other, "train", 2, progress=False)
    assert len(list((tmp_path / "0").iterdir())) == 4


def test_held_out_labels_make_another_pool_and_none_leave_the_name_as_it_was(
    tmp_path: Path,
) -> None:
    def name(folder: str, **settings: Any) -> str:
        config = SoundscapeConfig(shortest_seconds=1.0, longest_seconds=2.0, **settings)
        load_or_render_pool(tmp_path / folder, config, "train", 1, progress=False)
        (pool,) = (tmp_path / folder).iterdir()
        return pool.name

    # As before there was the setting: pools rendered then are used on.
    settings = {"version": 2, "split": "train", "count": 1, **asdict(CONFIG)}
    del settings["held_out_labels"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    assert name("0") == f"train-{digest[:12]}"
    assert name("2", held_out_labels=("siren",)) != name("0")


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_cache, "SCENES_PER_JOB", 2)
    render = scene_cache._render_job

    def fail_at_the_second(*arguments: object) -> object:
        if arguments[-1] == 2:
            raise DataError("clips.csv: gone")
        return render(*arguments)

    monkeypatch.setattr(scene_cache, "_render_job", fail_at_the_second)
    with pytest.raises(DataError, match="gone"):
        pool_of(tmp_path / "0")
    assert list((tmp_path / "0").iterdir()) == []
    monkeypatch.setattr(scene_cache, "_render_job", render)
    assert len(pool_of(tmp_path / "0")) == COUNT


def test_rendering_leaves_the_number_of_threads_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        pool_of(tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
