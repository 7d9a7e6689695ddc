"""A shard of a feature cache: one folder with the features of some recordings.

features.npy     (frames, D) float16, the features of all its recordings, joined along time; codes
                 are int16, or uint16 where a codebook has more than 32768 entries
pooled.npy       (N, P) float32, one vector for each of them
recordings.json  what the recordings are, and which rows of the two arrays are theirs; besides the
                 recordings that could not be encoded, and why

A shard is written under another name and renamed once it is whole. float16 because features follow
a normalisation or are near 1: it keeps 11 bits of them where bfloat16 keeps 8, so features computed
in bfloat16 lose nothing either; anything beyond its range of 65504 is refused when it is written.
numpy.load reads the arrays. Here they are mapped by torch, which needs no open file for each, so
that a cache may have more shards than a process may open files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from dac_diffusion.errors import DataError

FEATURES_FILE, POOLED_FILE, RECORDINGS_FILE = "features.npy", "pooled.npy", "recordings.json"
FEATURES_TYPE, POOLED_TYPE = np.dtype("<f2"), np.dtype("<f4")
CODE_TYPES = (np.dtype("<i2"), np.dtype("<u2"))
HEADER_BYTES = 128  # of every .npy file here, whatever its shape
AGAIN = "run the same `dac-diffusion prepare features` again to repair it"


@dataclass(frozen=True)
class AudioFile:
    """A recording as it was found: its path below the audio folder, bytes, time of last change."""

    audio: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class StoredRecording:
    """A recording in a shard: its row of pooled.npy, and its frames' first row of features.npy.

    sha256: of the file. seconds: of the whole recording. cut: whether only its first
    window_seconds were encoded.
    """

    file: AudioFile
    sha256: str
    row: int
    start: int
    frames: int
    seconds: float
    cut: bool


@dataclass(frozen=True)
class BrokenRecording:
    """A recording that could not be encoded, with the line that says why."""

    file: AudioFile
    error: str


@dataclass(frozen=True)
class Shard:
    """What a shard holds. The checksums are those of the bytes of the two arrays."""

    recordings: tuple[StoredRecording, ...]
    broken: tuple[BrokenRecording, ...]
    frames: int
    features_sha256: str
    pooled_sha256: str


def features_type(codebook_size: int | None) -> np.dtype:
    """The type that features are stored in, codes where there is a codebook_size.

    Raises DataError for a codebook of more than 65536 entries.
    """
    if codebook_size is None:
        return FEATURES_TYPE
    for kind in CODE_TYPES:
        if codebook_size - 1 <= np.iinfo(kind).max:
            return kind
    raise DataError(
        f"codes of {codebook_size} entries cannot be stored: a feature cache takes up to 65536"
    )


class ShardWriter:
    """Takes recordings one by one; `write_shard` makes it."""

    def __init__(self, features: IO[bytes], features_type: np.dtype) -> None:
        self._features, self._type = features, features_type
        self._digest = hashlib.sha256()
        self._pooled: list[np.ndarray] = []
        self._recordings: list[StoredRecording] = []
        self._broken: list[BrokenRecording] = []
        self._frames = 0

    def add(
        self,
        file: AudioFile,
        sha256: str,
        features: np.ndarray,
        pooled: np.ndarray,
        seconds: float,
        cut: bool,
    ) -> None:
        """Append features (S, D) and a pooled vector (P,)."""
        data = np.ascontiguousarray(features, self._type).data
        self._features.write(data)
        self._digest.update(data)
        row, frames = len(self._recordings), len(features)
        self._recordings.append(
            StoredRecording(file, sha256, row, self._frames, frames, seconds, cut)
        )
        self._pooled.append(pooled.astype(POOLED_TYPE))
        self._frames += frames

    def add_broken(self, file: AudioFile, error: str) -> None:
        """Note a recording that could not be encoded."""
        self._broken.append(BrokenRecording(file, error))

    def finish(self, feature_dim: int, pooled_dim: int) -> tuple[Shard, np.ndarray]:
        """What was written, and the pooled vectors (N, P)."""
        pooled = np.zeros((len(self._pooled), pooled_dim), POOLED_TYPE)  # (N, P)
        for row, vector in zip(pooled, self._pooled, strict=True):
            row[:] = vector
        self._features.seek(0)
        self._features.write(npy_header(self._type, (self._frames, feature_dim)))
        shard = Shard(
            tuple(self._recordings),
            tuple(self._broken),
            self._frames,
            self._digest.hexdigest(),
            hashlib.sha256(pooled.data).hexdigest(),
        )
        return shard, pooled


@contextmanager
def write_shard(
    folder: Path, feature_dim: int, pooled_dim: int, features_type: np.dtype = FEATURES_TYPE
) -> Iterator[ShardWriter]:
    """Write a shard into an empty folder; its arrays are complete when the block has ended."""
    with open(folder / FEATURES_FILE, "wb") as features:
        features.write(bytes(HEADER_BYTES))  # its shape is known at the end
        writer = ShardWriter(features, features_type)
        yield writer
        shard, pooled = writer.finish(feature_dim, pooled_dim)
    with open(folder / POOLED_FILE, "wb") as file:
        file.write(npy_header(POOLED_TYPE, pooled.shape))
        file.write(pooled.data)
    content = {
        "features_sha256": shard.features_sha256,
        "pooled_sha256": shard.pooled_sha256,
        "frames": shard.frames,
        "recordings": [_flat(each) for each in shard.recordings],
        "broken": [_flat(each) for each in shard.broken],
    }
    (folder / RECORDINGS_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _flat(recording: StoredRecording | BrokenRecording) -> dict[str, Any]:
    fields = asdict(recording)
    return {**fields.pop("file"), **fields}


def read_shard(
    folder: Path, feature_dim: int, pooled_dim: int, features_type: np.dtype = FEATURES_TYPE
) -> Shard:
    """What a shard holds, by its recordings.json; raises DataError where it is not whole."""
    path = folder / RECORDINGS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shard = Shard(
            tuple(StoredRecording(_file(row), **row) for row in content["recordings"]),
            tuple(BrokenRecording(_file(row), **row) for row in content["broken"]),
            content["frames"],
            content["features_sha256"],
            content["pooled_sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or damaged ({error}); {AGAIN}") from error
    clips = len(shard.recordings)
    check_arrays(folder, clips, shard.frames, feature_dim, pooled_dim, features_type)
    return shard


def _file(row: dict[str, Any]) -> AudioFile:
    """Takes the identity of the file out of a row."""
    return AudioFile(row.pop("audio"), row.pop("size"), row.pop("modified_ns"))


def check_arrays(
    folder: Path,
    clips: int,
    frames: int,
    feature_dim: int,
    pooled_dim: int,
    features_type: np.dtype = FEATURES_TYPE,
) -> None:
    """Raise DataError where a shard's arrays are missing, cut off or of another shape."""
    if not folder.is_dir():
        raise DataError(f"{folder}: this shard is missing; {AGAIN}")
    _check_array(folder / FEATURES_FILE, features_type, (frames, feature_dim))
    _check_array(folder / POOLED_FILE, POOLED_TYPE, (clips, pooled_dim))


def _check_array(path: Path, kind: np.dtype, shape: Sequence[int]) -> None:
    expected = HEADER_BYTES + math.prod(shape) * kind.itemsize
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
            size = file.seek(0, 2)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    if size != expected:
        raise DataError(
            f"{path}: damaged or cut off, {size:,} bytes instead of {expected:,}; {AGAIN}"
        )
    if header != npy_header(kind, shape):
        raise DataError(f"{path}: damaged, its header is not that of {shape}; {AGAIN}")


def map_shard(
    folder: Path,
    clips: int,
    frames: int,
    feature_dim: int,
    pooled_dim: int,
    features_type: np.dtype = FEATURES_TYPE,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (frames, D) and pooled vectors (N, P), read from the disk as they are used."""
    return (
        _map(folder / FEATURES_FILE, features_type, (frames, feature_dim)),
        _map(folder / POOLED_FILE, POOLED_TYPE, (clips, pooled_dim)),
    )


def _map(path: Path, kind: np.dtype, shape: Sequence[int]) -> np.ndarray:
    count = math.prod(shape)
    if count == 0:
        return np.zeros(shape, kind)
    # Numbers of two or four bytes, whatever they are: torch knows fewer types than numpy.
    dtype = torch.int16 if kind.itemsize == 2 else torch.int32
    header = HEADER_BYTES // kind.itemsize
    try:
        # Not shared: what a caller might write there by mistake never reaches the file.
        mapped = torch.from_file(str(path), shared=False, size=header + count, dtype=dtype)
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be read any more; {AGAIN}") from error
    array: np.ndarray = mapped[header:].reshape(tuple(shape)).numpy().view(kind)
    return array


def npy_header(kind: np.dtype, shape: Sequence[int]) -> bytes:
    """The first HEADER_BYTES of a .npy file, version 1.0 of the format."""
    fields = {"descr": kind.str, "fortran_order": False, "shape": tuple(int(n) for n in shape)}
    length = HEADER_BYTES - 10
    text = repr(fields).ljust(length - 1).encode("ascii") + b"\n"
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text
