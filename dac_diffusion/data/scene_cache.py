"""A memory-mapped pool of rendered scenes: their log-mel frames, and what is in them.

Rendering a scene costs more than a training step spends on it, so training renders a pool once
and sees each scene several times, with new captions and new augmentation every time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dac_diffusion.audio.log_mel import LogMel
from dac_diffusion.data.soundscapes.dataset import (
    SceneExample,
    SoundscapeConfig,
    SoundscapeDataset,
    Split,
)
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Scene
from dac_diffusion.files import atomic_folder

POOL_VERSION = 2  # raised when the scene generator changes what it makes
SCENES_PER_JOB = 100

# log_mel (N, T, M), numbers of samples, and a JSON row for each scene
RenderedScenes = tuple[np.ndarray, list[int], list[dict[str, Any]]]


@dataclass(frozen=True)
class ScenePool:
    """N rendered scenes of one split.

    log_mel: (N, T, M) float16, num_samples: (N,), scenes and five captions each: N.
    """

    log_mel: np.ndarray
    num_samples: np.ndarray
    scenes: Sequence[Scene]
    captions: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.scenes)


def load_or_render_pool(
    folder: Path,
    config: SoundscapeConfig,
    split: Split,
    count: int,
    num_workers: int = 0,
    progress: bool = True,
) -> ScenePool:
    """The first `count` scenes of a split, rendered into `folder` unless they are there already."""
    settings = {"version": POOL_VERSION, "split": split, "count": count, **asdict(config)}
    if not config.held_out_labels:
        del settings["held_out_labels"]  # scenes rendered before there was this setting
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    target = folder / f"{split}-{key}"
    if not (target / "scenes.jsonl").exists():
        with atomic_folder(target) as partial_folder:
            _render_pool(Path(partial_folder), config, split, count, num_workers, progress)
    return _open_pool(target)


def _open_pool(folder: Path) -> ScenePool:
    lines = (folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return ScenePool(
        np.load(folder / "log_mel.npy", mmap_mode="r"),
        np.load(folder / "num_samples.npy"),
        [scene_from_dict(row["scene"]) for row in rows],
        [tuple(row["captions"]) for row in rows],
    )


def scene_from_dict(row: dict[str, Any]) -> Scene:
    """A scene from its JSON form (`dataclasses.asdict`)."""
    events = tuple(PlacedEvent(**event) for event in row["events"])
    return Scene(events, row["relation"], row["seconds"])


def _render_pool(
    folder: Path,
    config: SoundscapeConfig,
    split: Split,
    count: int,
    num_workers: int,
    progress: bool,
) -> None:
    starts = range(0, count, SCENES_PER_JOB)
    render = partial(_render_job, config, split, count)
    frames, mels = log_mel_shape(config)
    log_mel = np.lib.format.open_memmap(
        folder / "log_mel.npy", mode="w+", dtype=np.float16, shape=(count, frames, mels)
    )
    num_samples = np.zeros(count, np.int64)
    with (folder / "scenes.jsonl").open("w", encoding="utf-8") as file:
        rendered = _run(render, starts, num_workers)
        bar = tqdm(total=count, desc=f"rendering {split} scenes", disable=not progress)
        for start, (mel, samples, rows) in zip(starts, rendered, strict=True):
            log_mel[start : start + len(rows)] = mel
            num_samples[start : start + len(rows)] = samples
            file.writelines(json.dumps(row) + "\n" for row in rows)
            bar.update(len(rows))
        bar.close()
    log_mel.flush()
    np.save(folder / "num_samples.npy", num_samples)


def _run(
    render: Callable[[int], RenderedScenes], starts: Sequence[int], num_workers: int
) -> Iterator[RenderedScenes]:
    if num_workers == 0:
        yield from map(render, starts)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as executor:
        yield from executor.map(render, starts)


def log_mel_shape(config: SoundscapeConfig) -> tuple[int, int]:
    """Frames and mel bands of a scene padded to the longest length."""
    samples = int(config.longest_seconds * config.sampling_rate)
    frames, mels = LogMel(config.sampling_rate)(torch.zeros(1, samples)).shape[1:]
    return frames, mels


def scene_log_mel(example: SceneExample, front_end: LogMel, total_samples: int) -> torch.Tensor:
    """The log-mel frames (T, M) of a scene padded with silence to `total_samples`."""
    waveform = torch.zeros(1, total_samples)
    length = min(total_samples, len(example.waveform))
    waveform[0, :length] = torch.from_numpy(example.waveform[:length])
    return front_end(waveform)[0]  # (T, M)


@lru_cache(maxsize=2)
def _dataset(config: SoundscapeConfig, split: Split) -> SoundscapeDataset:
    """One a process: its decoded recordings serve all jobs."""
    return SoundscapeDataset(config, split)


def _render_job(config: SoundscapeConfig, split: Split, count: int, start: int) -> RenderedScenes:
    dataset = _dataset(config, split)
    front_end = LogMel(config.sampling_rate)
    total = int(config.longest_seconds * config.sampling_rate)
    mels, samples, rows = [], [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several processes share the cores; and one gives the same bits
    try:
        for index in range(start, min(start + SCENES_PER_JOB, count)):
            example = dataset.example(index)
            mels.append(scene_log_mel(example, front_end, total).half().numpy())
            samples.append(min(total, len(example.waveform)))
            rows.append({"scene": asdict(example.scene), "captions": example.captions})
    finally:
        torch.set_num_threads(threads)  # this may be the process that trains
    return np.stack(mels), samples, rows
