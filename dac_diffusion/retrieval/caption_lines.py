"""Clips and captions as JSON lines in one block of bytes; only what is asked for is read."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dac_diffusion.errors import DataError

NEWLINE = 10


class CaptionLines:
    """N lines {"clip": ..., "caption": ...}, in memory or mapped from a file."""

    def __init__(self, data: bytes | mmap.mmap, name: str) -> None:
        """name: of the lines in errors. Raises DataError where the last line has no end."""
        self.data, self.name = data, name
        bytes_ = np.frombuffer(data, np.uint8)
        self._ends = np.flatnonzero(bytes_ == NEWLINE)  # (N,)
        if len(bytes_) and bytes_[-1] != NEWLINE:
            raise DataError(f"{name}: its last line is cut off; copy it again")

    @classmethod
    def join(cls, clip_names: Sequence[str], captions: Sequence[str]) -> CaptionLines:
        """Lines in memory, of N clips and captions."""
        lines = [
            json.dumps({"clip": clip, "caption": caption}) + "\n"
            for clip, caption in zip(clip_names, captions, strict=True)
        ]
        return cls("".join(lines).encode(), "the datastore")

    @classmethod
    def open(cls, path: Path) -> CaptionLines:
        """The lines of a file, mapped. Raises DataError where it cannot be read."""
        try:
            with path.open("rb") as file:
                if path.stat().st_size == 0:  # which cannot be mapped
                    return cls(b"", str(path))
                return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> tuple[str, str]:
        """The clip and the caption of a line. Raises DataError where it is no such line."""
        start = int(self._ends[place - 1]) + 1 if place else 0
        try:
            row = json.loads(self.data[start : int(self._ends[place])])
            clip, caption = row["clip"], row["caption"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self.name}: line {place + 1} is no clip with a caption; make the datastore again"
            ) from error
        if not (isinstance(clip, str) and isinstance(caption, str)):
            raise DataError(
                f"{self.name}: line {place + 1} is no clip with a caption; make the datastore again"
            )
        return clip, caption
