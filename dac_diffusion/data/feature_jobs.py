"""The work of making a feature cache, shard by shard, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.data.feature_encoding import (
    EncodedRecording,
    FeatureSettings,
    encode_recordings,
    hash_file,
    load_frozen_encoder,
)
from dac_diffusion.data.feature_shards import (
    AudioFile,
    ShardWriter,
    StoredRecording,
    features_type,
    map_shard,
    write_shard,
)
from dac_diffusion.errors import AudioError, DacError
from dac_diffusion.files import atomic_folder


@dataclass(frozen=True)
class Place:
    """Where a recording was stored before: in a shard of so many clips and frames."""

    shard: str
    clips: int
    shard_frames: int
    recording: StoredRecording


@dataclass(frozen=True)
class ShardJob:
    """A shard to write: its recordings, where they were before, and which were broken in it."""

    name: str
    files: tuple[AudioFile, ...]
    known: tuple[Place | None, ...]
    broken: tuple[str, ...] = ()


class _StoppedError(Exception):
    """Another process failed, or the user has enough."""


@dataclass(frozen=True)
class Workshop:
    """What every job needs. `done` is called with each recording; it may raise to stop."""

    encoder: Any
    device: torch.device
    audio: Path
    shards: Path
    done: Callable[[int], object]


def run_jobs(
    jobs: Sequence[ShardJob],
    encoder: Any,
    settings: FeatureSettings,
    audio: Path,
    shards: Path,
    progress: bool,
) -> int:
    """Write all shards; returns how many recordings were encoded for it."""
    if not jobs:
        return 0
    total = sum(len(job.files) for job in jobs)
    processes = min(settings.processes, len(jobs))
    with tqdm(total=total, desc="encoding", unit="clip", disable=not progress) as bar:
        if processes > 1:
            return _run_in_processes(jobs, settings, audio, shards, processes, bar)
        device = torch.device(settings.device)
        workshop = Workshop(encoder.to(device), device, audio, shards, bar.update)
        with _one_thread(device):
            return sum(make_shard(job, workshop) for job in jobs)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """One torch thread on a CPU: more would change last bits, and so the cache."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_shard(job: ShardJob, workshop: Workshop) -> int:
    """Write one shard; returns how many of its recordings were encoded now.

    A shard that is there but for broken recordings stays as it is if they are still broken.
    """
    workshop.done(0)  # raises for a job that was handed out before the end was known
    if job.broken and all(_is_broken(workshop, audio) for audio in job.broken):
        workshop.done(len(job.files))
        return 0
    reused = [
        place if place is not None and _is_same(workshop.audio, file, place.recording) else None
        for file, place in zip(job.files, job.known, strict=True)
    ]
    paths = [
        workshop.audio / file.audio
        for file, place in zip(job.files, reused, strict=True)
        if place is None
    ]
    encoder = workshop.encoder
    encoded = encode_recordings(encoder, paths, workshop.device)
    copier = _Copier(workshop)
    with (
        atomic_folder(workshop.shards / job.name) as folder,
        write_shard(folder, *_layout(encoder)) as writer,
    ):
        for file, place in zip(job.files, reused, strict=True):
            if place is not None:
                copier.copy(file, place, writer)
            else:
                _add(file, next(encoded), writer)
            workshop.done(1)
    return len(paths)


def _layout(encoder: Any) -> tuple[int, int, np.dtype]:
    """The widths of an encoder's features and pooled vectors, and how features are stored."""
    kind = features_type(getattr(encoder, "codebook_size", None))
    return encoder.feature_dim, encoder.pooled_dim, kind


def _is_broken(workshop: Workshop, audio: str) -> bool:
    try:
        load_audio(workshop.audio / audio, workshop.encoder.sampling_rate)
    except AudioError:
        return True
    return False


def _is_same(audio: Path, file: AudioFile, stored: StoredRecording) -> bool:
    """Whether a recording is still what was encoded; reads it where only its time differs."""
    if file == stored.file:
        return True
    if file.size != stored.file.size:
        return False
    try:
        return hash_file(audio / file.audio) == stored.sha256
    except AudioError:
        return False


class _Copier:
    """Copies recordings out of older shards, each mapped once."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._maps: dict[str, Any] = {}

    def copy(self, file: AudioFile, place: Place, writer: ShardWriter) -> None:
        encoder, old = self._workshop.encoder, place.recording
        if place.shard not in self._maps:
            folder = self._workshop.shards / place.shard
            sizes = place.clips, place.shard_frames, *_layout(encoder)
            self._maps[place.shard] = map_shard(folder, *sizes)
        features, pooled = self._maps[place.shard]
        frames = features[old.start : old.start + old.frames]
        writer.add(file, old.sha256, frames, pooled[old.row], old.seconds, old.cut)


def _add(file: AudioFile, result: EncodedRecording | AudioError, writer: ShardWriter) -> None:
    if isinstance(result, AudioError):
        writer.add_broken(file, str(result))
    else:
        writer.add(file, result.sha256, result.features, result.pooled, result.seconds, result.cut)


def _run_in_processes(
    jobs: Sequence[ShardJob],
    settings: FeatureSettings,
    audio: Path,
    shards: Path,
    processes: int,
    bar: tqdm,
) -> int:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    encoded = 0
    with ProcessPoolExecutor(
        processes, context, _start_worker, (settings, audio, shards, done, stop)
    ) as executor:
        pending = {executor.submit(_work, job) for job in jobs}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                encoded += sum(future.result() for future in finished)
        except BrokenProcessPool as error:
            raise DacError(
                "a process ended without a word, perhaps for lack of memory; run the same command "
                "again, which goes on where it was, with fewer --processes"
            ) from error
        finally:
            stop.set()
            for future in pending:
                future.cancel()
    bar.update(done.value - bar.n)
    return encoded


_WORKSHOP: Workshop | None = None  # of a worker process


def _start_worker(
    settings: FeatureSettings, audio: Path, shards: Path, done: Any, stop: Any
) -> None:
    global _WORKSHOP
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and sets `stop`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    device = torch.device(settings.device)
    encoder = load_frozen_encoder(settings)

    def count(recordings: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with done.get_lock():
            done.value += recordings

    _WORKSHOP = Workshop(encoder.to(device), device, audio, shards, count)


def _work(job: ShardJob) -> int:
    assert _WORKSHOP is not None
    try:
        return make_shard(job, _WORKSHOP)
    except _StoppedError:
        return 0


def _end_with_parent() -> None:
    """A worker whose first process was killed would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
