"""Recordings are found in folders, always in the same order."""

import errno
import os
from pathlib import Path

import pytest

from dac_diffusion.audio.loading import find_audio_files
from dac_diffusion.errors import AudioError


def test_folders_are_searched_and_sorted(tmp_path: Path) -> None:
    names = ["b.wav", "sub/a.FLAC", "sub/deeper/ü.ogg", "z.mp3"]
    for name in [*names, "notes.txt", "._b.wav", ".hidden/c.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio_files(tmp_path) == sorted(tmp_path / name for name in names)
    assert find_audio_files(str(tmp_path / "sub")) == [
        tmp_path / "sub/a.FLAC",
        tmp_path / "sub/deeper/ü.ogg",
    ]


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "a.aiff").touch()
    assert find_audio_files(tmp_path / "a.aiff") == [tmp_path / "a.aiff"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.wav").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert find_audio_files(root) == [root / "link/a.wav"]


def test_missing_path_and_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="nowhere: does not exist; check the path"):
        find_audio_files(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match="no recordings in this folder; it needs wav, flac"):
        find_audio_files(tmp_path)


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AudioError, match=r"cannot be listed \(Permission denied\)"):
        find_audio_files(tmp_path)
