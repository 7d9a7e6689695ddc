"""Reading a feature cache for training: batches of audio features, and captions, by clip."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.data.feature_index import SHARDS_FOLDER, FeatureIndex, read_index
from dac_diffusion.data.feature_shards import (
    AGAIN,
    FEATURES_FILE,
    POOLED_FILE,
    features_type,
    map_shard,
)
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import DataError


class FeatureCache:
    """Features of N clips, made by `dac-diffusion prepare features`; see feature_index.py.

    Features are read from the disk as they are asked for. A cache may be pickled and used in any
    number of processes: each maps the files anew.

    num_codebooks, codebook_size: of a cache of codes, whose features are long, (B, S, N) and 0 to
    codebook_size - 1; None in a cache of other features.
    """

    def __init__(self, folder: Path, index: FeatureIndex, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self.encoder = index.encoder
        self.feature_dim = int(index.encoder["feature_dim"])
        self.pooled_dim = int(index.encoder["pooled_dim"])
        self.num_codebooks: int | None = index.encoder.get("num_codebooks")
        self.codebook_size: int | None = index.encoder.get("codebook_size")
        self._index, self._features_type = index, features_type(self.codebook_size)
        self._maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._process = os.getpid()

    @classmethod
    def open(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> FeatureCache:
        """The cache in a folder; its batches have the floating-point type `dtype`.

        Raises DataError for a folder that is no finished cache, an index that is damaged or of
        another version, and shards that are missing, cut off or of another shape.
        """
        return cls(Path(folder), read_index(Path(folder)), dtype)

    def __len__(self) -> int:
        return len(self._index.names)

    def name(self, i: int) -> str:
        """The clip's name in its data set."""
        return self._index.names[i]

    def captions(self, i: int) -> tuple[str, ...]:
        """The clip's captions."""
        return self._index.captions[i]

    def seconds(self, i: int) -> float:
        """The length of the clip's whole recording."""
        return float(self._index.seconds[i])

    def was_cut(self, i: int) -> bool:
        """Whether the features are those of the recording's first window_seconds only."""
        return bool(self._index.cut[i])

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> AudioFeatures:
        """The features of B clips, padded with zeros to the longest of them.

        features (B, S, D), of codes (B, S, N) long; mask (B, S) True on real audio; pooled (B, P).
        Raises IndexError for a clip that is not there, DataError where a shard cannot be read any
        more.
        """
        chosen = np.asarray(indices, dtype=np.int64)  # (B,)
        frames = self._index.frames[chosen]
        size, longest = len(chosen), int(frames.max(initial=0))
        shape = size, longest, self.feature_dim
        features = np.empty(shape, self._features_type)  # (B, S, D)
        pooled = np.empty((size, self.pooled_dim), np.float32)  # (B, P)
        places = zip(
            self._index.shard[chosen].tolist(),
            self._index.row[chosen].tolist(),
            self._index.start[chosen].tolist(),
            frames.tolist(),
            strict=True,
        )
        # One copy of all frames of a clip at a time: they lie one after another, and a gather of
        # single rows would be slower.
        for place, (shard, row, start, count) in enumerate(places):
            shard_features, shard_pooled = self._arrays(shard)
            features[place, :count] = shard_features[start : start + count]
            features[place, count:] = 0
            pooled[place] = shard_pooled[row]
        mask = torch.arange(longest) < torch.from_numpy(frames)[:, None]  # (B, S)
        if self.codebook_size is None:
            found = _converted(features, self.dtype)
        else:
            found = torch.from_numpy(features.astype(np.int64))
        return AudioFeatures(found, mask, torch.from_numpy(pooled).to(self.dtype))

    def pooled(self) -> Tensor:
        """The pooled vectors (N, P) of all clips, float32, without reading their features."""
        places = zip(self._index.shard.tolist(), self._index.row.tolist(), strict=True)
        rows = [self._arrays(shard)[1][row] for shard, row in places]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def verify(self) -> None:
        """Read everything once and raise DataError for a shard whose bytes have changed."""
        for shard, expected in enumerate(self._index.checksums):
            names = (FEATURES_FILE, POOLED_FILE)
            for name, array, checksum in zip(names, self._arrays(shard), expected, strict=True):
                if hashlib.sha256(array.data).hexdigest() != checksum:
                    path = self._shard_folder(shard) / name
                    raise DataError(f"{path}: damaged, delete its folder and {AGAIN}")

    def _shard_folder(self, shard: int) -> Path:
        return self.folder / SHARDS_FOLDER / self._index.shards[shard]

    def _arrays(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (frames, D) and pooled vectors (N, P) of a shard, mapped by this process."""
        if self._process != os.getpid():  # forked
            self._maps, self._process = {}, os.getpid()
        if shard not in self._maps:
            self._maps[shard] = map_shard(
                self._shard_folder(shard),
                int(self._index.shard_clips[shard]),
                int(self._index.shard_frames[shard]),
                self.feature_dim,
                self.pooled_dim,
                self._features_type,
            )
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def _converted(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """An array of float16 in another floating-point type.

    Into memory that numpy allocates, because it asks the system for large pages: for a batch of
    200 MB the many small ones of torch take longer than the conversion.
    """
    source = torch.from_numpy(array)
    if dtype == source.dtype or array.size == 0:
        return source.to(dtype)
    memory = torch.from_numpy(np.empty(array.size * dtype.itemsize, np.uint8))
    return memory.view(dtype).view(array.shape).copy_(source)
