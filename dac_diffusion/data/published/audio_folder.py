"""The recordings below a folder, listed once, so that finding one costs no access to the disk."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from dac_diffusion.audio.loading import AUDIO_SUFFIXES, find_audio_files
from dac_diffusion.errors import AudioError, DataError


class AudioFolder:
    """All wav, flac, ogg and mp3 files below a folder, by their names.

    Raises DataError for a folder that is missing, cannot be listed or holds no recording.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.is_file():
            raise DataError(f"{root}: is a file; give the folder that holds the recordings")
        try:
            paths = find_audio_files(self.root)
        except AudioError as error:
            raise DataError(str(error)) from error
        self._by_stem: dict[str, list[Path]] = {}
        for path in paths:
            self._by_stem.setdefault(_composed(path.stem), []).append(path)

    def find(self, file_name: str) -> list[Path]:
        """The file at this path below the folder; else that of the same name with another ending.

        A list of one or none, and of several where only such endings are there.
        """
        wanted = self.root / file_name.replace("\\", "/")
        paths = self._named(_stem(wanted.name), lambda path: path.parent == wanted.parent)
        return _prefer(paths, lambda path: _composed(path.name) == _composed(wanted.name))

    def find_below(self, file_name: str, folder: str) -> list[Path]:
        """The files of this name in any folder; those in a folder called `folder`, if any are."""
        paths = self._named(_stem(file_name), lambda path: True)
        paths = _prefer(paths, lambda path: path.parent.name == folder)
        return _prefer(paths, lambda path: _composed(path.name) == _composed(file_name))

    def find_stem(
        self, stems: Iterable[str], fits: Callable[[Path], bool] = lambda path: True
    ) -> list[Path]:
        """The files of the first of these names, without ending, that has a fitting one anywhere.

        Of several endings the first of AUDIO_SUFFIXES counts.
        """
        for stem in stems:
            paths = self._named(stem, fits)
            if paths:
                best = min(_ending(path) for path in paths)
                return [path for path in paths if _ending(path) == best]
        return []

    def _named(self, stem: str, fits: Callable[[Path], bool]) -> list[Path]:
        return [path for path in self._by_stem.get(_composed(stem), ()) if fits(path)]


def _prefer(paths: list[Path], is_better: Callable[[Path], bool]) -> list[Path]:
    return [path for path in paths if is_better(path)] or paths


def _ending(path: Path) -> int:
    return AUDIO_SUFFIXES.index(path.suffix.lower())


def _stem(file_name: str) -> str:
    """The name without its ending, if that is one of a recording."""
    lower = file_name.lower()
    suffix = next((suffix for suffix in AUDIO_SUFFIXES if lower.endswith(suffix)), "")
    return file_name[: len(file_name) - len(suffix)]


def _composed(name: str) -> str:
    """The form in which letters with accents are one character; macOS stores them as two."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
