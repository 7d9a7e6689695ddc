"""The index of a feature cache: its clips, their captions, and where their features are.

index.json is one JSON object: version (1, or 2 where the features are codes, which older
installations cannot read), encoder (what made the features), audio (the folder of the recordings),
shards ([{name, clips, frames, features_sha256, pooled_sha256}]) and clips ([{name,
captions, audio, size, modified_ns, sha256, shard, row, start, frames, seconds, cut}]), each clip on
a line of its own: `shard` is a place in the list of shards, `row` a row of its pooled.npy, `start`
and `frames` the rows of its features.npy. Captions are nowhere else, so they change by writing the
index anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dac_diffusion.data.feature_shards import (
    AGAIN,
    AudioFile,
    Shard,
    StoredRecording,
    check_arrays,
    features_type,
)
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.errors import DataError
from dac_diffusion.files import atomic_write

CACHE_VERSION, CODES_VERSION = 1, 2
ENCODER_FILE, INDEX_FILE, SHARDS_FOLDER = "encoder.json", "index.json", "shards"


@dataclass(frozen=True)
class FeatureIndex:
    """N clips in S shards.

    encoder: name, window_seconds, sampling_rate, feature_dim, pooled_dim, settings,
    weights_sha256, and of codes num_codebooks and codebook_size. shards: their folders' names.
    shard_clips, shard_frames: (S,), their sizes. checksums: of the arrays of each shard. shard,
    row, start, frames, seconds, cut: (N,).
    """

    encoder: dict[str, Any]
    shards: list[str]
    shard_clips: np.ndarray
    shard_frames: np.ndarray
    checksums: list[tuple[str, str]]
    names: list[str]
    captions: list[tuple[str, ...]]
    shard: np.ndarray
    row: np.ndarray
    start: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    cut: np.ndarray


def cache_version(encoder: Any) -> int:
    """The format version of a cache whose features this encoder made."""
    holds_codes = isinstance(encoder, dict) and "codebook_size" in encoder
    return CODES_VERSION if holds_codes else CACHE_VERSION


def write_index(
    folder: Path,
    encoder: dict[str, Any],
    dataset: CaptionDataset,
    files: Mapping[Path, AudioFile],
    shards: Mapping[str, Shard],
) -> int:
    """Write the clips whose recordings are in the shards; returns how many these are."""
    places: dict[str, tuple[int, StoredRecording]] = {
        recording.file.audio: (number, recording)
        for number, shard in enumerate(shards.values())
        for recording in shard.recordings
    }
    lines = []
    for clip in dataset.clips:
        place = places.get(files[clip.path].audio)
        if place is not None:
            row = {"name": clip.name, "captions": clip.captions, **_row(*place)}
            lines.append(json.dumps(row))
    head = {
        "version": cache_version(encoder),
        "encoder": encoder,
        "audio": str(dataset.audio),
        "shards": [
            {
                "name": name,
                "clips": len(shard.recordings),
                "frames": shard.frames,
                "features_sha256": shard.features_sha256,
                "pooled_sha256": shard.pooled_sha256,
            }
            for name, shard in shards.items()
        ],
    }
    with atomic_write(folder / INDEX_FILE) as file:
        file.write(json.dumps(head)[:-1] + ', "clips": [\n')
        file.write(",\n".join(lines) + "\n]}\n")
    return len(lines)


def _row(shard: int, recording: StoredRecording) -> dict[str, Any]:
    file = recording.file
    return {
        "audio": file.audio,
        "size": file.size,
        "modified_ns": file.modified_ns,
        "sha256": recording.sha256,
        "shard": shard,
        "row": recording.row,
        "start": recording.start,
        "frames": recording.frames,
        "seconds": recording.seconds,
        "cut": recording.cut,
    }


def read_head(path: Path) -> dict[str, Any]:
    """A JSON file of a cache, with a version and an encoder. Raises DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise DataError(f"{path}: damaged, no valid JSON ({error}); {AGAIN}") from error
    version = content.get("version") if isinstance(content, dict) else None
    readable = cache_version(content.get("encoder")) if isinstance(content, dict) else CACHE_VERSION
    if version != readable:
        raise DataError(
            f"{path}: is of version {version}, this installation reads {readable}; make the "
            "cache again in another folder"
        )
    if not isinstance(content.get("encoder"), dict):
        raise DataError(f"{path}: damaged, it names no encoder; {AGAIN}")
    return content


def read_index(folder: Path) -> FeatureIndex:
    """The index of a cache whose shards are all there and whole. Raises DataError."""
    path = folder / INDEX_FILE
    if not path.exists():
        if (folder / ENCODER_FILE).exists():
            raise DataError(f"{folder}: this feature cache is not finished; {AGAIN}")
        raise DataError(
            f"{folder}: is no feature cache, it has no {INDEX_FILE}; make one with "
            "`dac-diffusion prepare features`"
        )
    content = read_head(path)
    try:
        index = _parse(content)
        _check_places(index)
        sizes = int(index.encoder["feature_dim"]), int(index.encoder["pooled_dim"])
        kind = features_type(index.encoder.get("codebook_size"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}); {AGAIN}") from error
    for name, clips, frames in zip(
        index.shards, index.shard_clips.tolist(), index.shard_frames.tolist(), strict=True
    ):
        check_arrays(folder / SHARDS_FOLDER / name, clips, frames, *sizes, kind)
    return index


def _parse(content: dict[str, Any]) -> FeatureIndex:
    shards, clips = content["shards"], content["clips"]
    return FeatureIndex(
        encoder=content["encoder"],
        shards=[str(shard["name"]) for shard in shards],
        shard_clips=np.array([shard["clips"] for shard in shards], np.int64),
        shard_frames=np.array([shard["frames"] for shard in shards], np.int64),
        checksums=[(shard["features_sha256"], shard["pooled_sha256"]) for shard in shards],
        names=[str(clip["name"]) for clip in clips],
        captions=[tuple(map(str, clip["captions"])) for clip in clips],
        shard=np.array([clip["shard"] for clip in clips], np.int64),
        row=np.array([clip["row"] for clip in clips], np.int64),
        start=np.array([clip["start"] for clip in clips], np.int64),
        frames=np.array([clip["frames"] for clip in clips], np.int64),
        seconds=np.array([clip["seconds"] for clip in clips], np.float64),
        cut=np.array([clip["cut"] for clip in clips], np.bool_),
    )


def _check_places(index: FeatureIndex) -> None:
    """Raise ValueError for a clip that lies outside of its shard."""
    lies_within = (index.shard >= 0) & (index.shard < len(index.shards))
    if lies_within.all():
        lies_within &= (index.row >= 0) & (index.row < index.shard_clips[index.shard])
        lies_within &= (index.start >= 0) & (index.frames > 0)
        lies_within &= index.start + index.frames <= index.shard_frames[index.shard]
    if not lies_within.all():
        name = index.names[int(np.argmin(lies_within))]
        raise ValueError(f"'{name}' lies outside of its shard")
