"""Folders of empty files: readers look for recordings by name and decode none of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

MakeFiles = Callable[..., Path]


@pytest.fixture
def audio(tmp_path: Path) -> MakeFiles:
    """Makes a folder of empty files of the given names."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "audio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "audio"

    return make


@pytest.fixture
def table(tmp_path: Path) -> MakeFiles:
    """Writes a table of captions."""

    def write(content: str | bytes, name: str = "captions.csv") -> Path:
        path = tmp_path / "tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
