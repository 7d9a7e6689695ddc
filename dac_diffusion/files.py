"""Outputs that are either complete or absent: written under another name, then renamed."""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from dac_diffusion.errors import DacError, DataError


@contextmanager
def atomic_write(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only once the block has ended without an error.

    Text is UTF-8 with line ends left as written (what the csv module asks for). On any failure
    the temporary file is removed and an older file at `path` stays as it was. A device or a pipe,
    such as /dev/stdout, has no name to protect and is written directly.

    Raises DacError for a missing or read-only folder, a `path` that is a folder, or a full disk.
    """
    target = Path(path)
    if _is_stream(target):
        with _full_disk_explained(path), _open(target, target, mode) as stream:
            yield stream
        return
    target = target.resolve()  # a link keeps pointing to the file it names
    _check_target(target, Path(path), wants_folder=False)
    temporary = _temporary_beside(target)
    try:
        # Outermost, because closing the file may be what finds the disk full.
        with _full_disk_explained(path), _open(temporary, Path(path), mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, target, Path(path))
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path`, in place of an older one, when the block ends.

    On any failure the new folder is removed and the older one stays. A process killed in the
    instant between the two renames leaves the older folder beside it under a hidden name.

    Raises DacError for a missing or read-only parent folder, a `path` that is a file, or a full
    disk.
    """
    target = Path(path).resolve()
    _check_target(target, Path(path), wants_folder=True)
    temporary, older = _temporary_beside(target), _temporary_beside(target)
    try:
        temporary.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with _full_disk_explained(path):
            yield temporary
        had_older = target.is_dir()
        if had_older:
            _rename(target, older, Path(path))
        try:
            _rename(temporary, target, Path(path))
        except DacError:
            if had_older:
                _rename(older, target, Path(path))
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _check_target(target: Path, named: Path, wants_folder: bool) -> None:
    if not target.parent.is_dir():
        raise DacError(f"{named}: the folder {target.parent} does not exist; create it first")
    if target.is_dir() and not wants_folder:
        raise DacError(f"{named}: is a folder; give the name of a file")
    if target.is_file() and wants_folder:
        raise DacError(f"{named}: is a file; give the name of a folder")


def _temporary_beside(target: Path) -> Path:
    # In the same folder, because a rename is atomic only within one file system; short, because
    # the final name may already be as long as the file system allows.
    return target.parent / f".{uuid.uuid4().hex[:12]}.partial"


def _open(opened: Path, named: Path, mode: Literal["w", "wb"]) -> IO[Any]:
    try:
        if mode == "wb":
            return open(opened, mode)
        return open(opened, mode, encoding="utf-8", newline="")
    except OSError as error:
        raise _cannot_write(named, error) from error


def _rename(source: Path, target: Path, named: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        raise _cannot_write(named, error) from error


@contextmanager
def _full_disk_explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _cannot_write(path, error) from error
        raise


def _cannot_write(path: str | Path, error: OSError) -> DacError:
    reason = error.strerror or str(error)
    return DacError(f"{path}: cannot be written ({reason}); choose a folder you can write to")


def check_replaceable(path: str | Path, is_earlier_result: bool) -> None:
    """Raise DataError for a folder that is neither empty nor an earlier result of the same work.

    For what is written where a user says: it would delete or mix with whatever else is there.
    """
    folder = Path(path)
    if is_earlier_result or not folder.is_dir():
        return
    try:
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not is_empty:
        raise DataError(f"{path}: holds something else; choose another output folder")


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; raises DacError in one line where that cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DacError(
            f"{folder}: cannot be created ({error.strerror}); choose another folder"
        ) from error
    return folder
