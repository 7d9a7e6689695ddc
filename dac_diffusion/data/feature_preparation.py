"""Making a feature cache: which recordings go into which shard, and what is left to encode.

A cache is a function of the data set and the encoder alone. Shard k holds the recordings
k * clips_per_shard and following of the data set, and its name holds a digest of them, so a run
that was killed goes on with the shards that are not there, and several processes share them. What
was encoded before is copied into new shards, not encoded again, as long as its file is the same:
the same path below the audio folder, the same size, and the same time of change or, where only that
differs (as after copying a data set), the same SHA-256.

encoder.json  what the features were made with, written first
shards/       see feature_shards.py
index.json    the clips with their captions and places in the shards, written last
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dac_diffusion.data.feature_encoding import (
    FeatureSettings,
    describe_encoder,
    load_frozen_encoder,
)
from dac_diffusion.data.feature_index import (
    ENCODER_FILE,
    SHARDS_FOLDER,
    cache_version,
    read_head,
    write_index,
)
from dac_diffusion.data.feature_jobs import Place, ShardJob, run_jobs
from dac_diffusion.data.feature_shards import AudioFile, Shard, features_type, read_shard
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.errors import ConfigError, DacError, DataError
from dac_diffusion.files import atomic_write, check_replaceable, make_folder

LOCK_FILE = ".lock"


@dataclass(frozen=True)
class PreparedFeatures:
    """What a run did: clips in the cache, recordings cut to window_seconds, recordings encoded now.

    errors: a line for each recording that could not be encoded. other_shards: shards kept though
    this data set does not use them, because another might.
    """

    clips: int
    cut: int
    encoded: int
    errors: tuple[str, ...]
    other_shards: int


def prepare_features(
    dataset: CaptionDataset, output: str | Path, settings: FeatureSettings, progress: bool = True
) -> PreparedFeatures:
    """Encode every recording of a data set into the folder `output`, but for those already there.

    Raises ConfigError for settings that make no sense, CheckpointError for weights that cannot be
    loaded, DataError for a folder with other things or made with another encoder, or where no
    recording can be encoded, DacError where the folder cannot be written or another run writes
    there.
    """
    _check(settings)
    begun = (Path(output) / name for name in (ENCODER_FILE, LOCK_FILE))
    check_replaceable(output, any(path.exists() for path in begun))
    folder = make_folder(output)
    encoder = load_frozen_encoder(settings)
    description = describe_encoder(settings.encoder, encoder)
    with _only_writer(folder):
        _check_encoder(folder, description)
        shards = make_folder(folder / SHARDS_FOLDER)
        _remove_partial(shards)
        stored = _stored_shards(shards, description)
        files = {clip.path: _audio_file(dataset.audio, clip.path) for clip in dataset.clips}
        plan = plan_shards(list(files.values()), settings.clips_per_shard)
        jobs = _jobs(plan, stored)
        encoded = run_jobs(jobs, encoder, settings, dataset.audio, shards, progress)
        made = _stored_shards(shards, description, list(plan))
        errors = tuple(each.error for shard in made.values() for each in shard.broken)
        if not any(shard.recordings for shard in made.values()):
            raise DataError(f"{dataset.audio}: no recording could be encoded; first: {errors[0]}")
        clips = write_index(folder, description, dataset, files, made)
        kept = _remove_superseded(shards, stored, plan)
    cut = sum(recording.cut for shard in made.values() for recording in shard.recordings)
    return PreparedFeatures(clips, cut, encoded, errors, kept)


def _check(settings: FeatureSettings) -> None:
    seconds = settings.window_seconds
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ConfigError(f"window_seconds={seconds}: must be a number of seconds above 0")
    for name in ("processes", "clips_per_shard"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}={getattr(settings, name)}: must be at least 1")


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system gives back however this process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock = folder / LOCK_FILE
    try:
        lock.touch()
    except OSError as error:
        raise DacError(f"{folder}: cannot be written ({error.strerror})") from error
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DacError(
                f"{folder}: another run is writing here; wait for it, or choose another folder"
            ) from error
        except OSError:
            pass  # some network file systems have no locks
        yield


def _check_encoder(folder: Path, description: dict[str, Any]) -> None:
    """Write down the encoder in a new folder; raise DataError in one made with another."""
    path = folder / ENCODER_FILE
    if not path.exists():
        with atomic_write(path) as file:
            head = {"version": cache_version(description), "encoder": description}
            json.dump(head, file, indent=1)
        return
    before, now = _flat(read_head(path)["encoder"]), _flat(description)
    differences = [
        f"{name} {_short(before.get(name))} there and {_short(now.get(name))} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise DataError(
            f"{folder}: holds features of another encoder ({'; '.join(differences)}); give another "
            "folder, or delete this one"
        )


def _flat(description: dict[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in description.items() if k != "settings"}, **description["settings"]}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def _audio_file(root: Path, path: Path) -> AudioFile:
    """A recording as it is now; one that is gone by now will be reported as broken."""
    name = path.relative_to(root).as_posix()
    try:
        status = path.stat()
    except OSError:
        return AudioFile(name, -1, -1)
    return AudioFile(name, status.st_size, status.st_mtime_ns)


def plan_shards(
    files: Sequence[AudioFile], clips_per_shard: int
) -> dict[str, tuple[AudioFile, ...]]:
    """The recordings of every shard by its name: its place, and a digest of its recordings."""
    plan = {}
    for start in range(0, len(files), clips_per_shard):
        part = tuple(files[start : start + clips_per_shard])
        digest = hashlib.sha256(
            json.dumps([(file.audio, file.size, file.modified_ns) for file in part]).encode()
        )
        plan[f"{start // clips_per_shard:05d}-{digest.hexdigest()[:12]}"] = part
    return plan


def _stored_shards(
    shards: Path, description: dict[str, Any], names: Sequence[str] | None = None
) -> dict[str, Shard]:
    """The named shards; without names all that are whole, others being made again."""
    kind = features_type(description.get("codebook_size"))
    sizes = description["feature_dim"], description["pooled_dim"], kind
    if names is not None:
        return {name: read_shard(shards / name, *sizes) for name in names}
    stored = {}
    for path in sorted(shards.iterdir()):
        try:
            stored[path.name] = read_shard(path, *sizes)
        except DataError:
            continue
    return stored


def _jobs(plan: dict[str, tuple[AudioFile, ...]], stored: dict[str, Shard]) -> list[ShardJob]:
    """What is left to do: shards that are not there, and those with broken recordings."""
    places = {
        recording.file.audio: Place(name, len(shard.recordings), shard.frames, recording)
        for name, shard in stored.items()
        for recording in shard.recordings
    }
    jobs = []
    for name, files in plan.items():
        shard = stored.get(name)
        if shard is not None and not shard.broken:
            continue
        own = {} if shard is None else {
            recording.file.audio: Place(name, len(shard.recordings), shard.frames, recording)
            for recording in shard.recordings
        }  # fmt: skip
        known = tuple(own.get(file.audio) or places.get(file.audio) for file in files)
        broken = () if shard is None else tuple(each.file.audio for each in shard.broken)
        jobs.append(ShardJob(name, files, known, broken))
    return jobs


def _remove_partial(shards: Path) -> None:
    """Remove what a killed run had begun."""
    for path in shards.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _remove_superseded(
    shards: Path, stored: dict[str, Shard], plan: dict[str, tuple[AudioFile, ...]]
) -> int:
    """Remove shards whose recordings are all in the new ones; returns how many others there are."""
    planned = {file.audio for files in plan.values() for file in files}
    others = 0
    for name, shard in stored.items():
        if name in plan:
            continue
        if all(recording.file.audio in planned for recording in shard.recordings):
            shutil.rmtree(shards / name, ignore_errors=True)
        else:
            others += 1
    return others
