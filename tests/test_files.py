"""Outputs are complete or absent, and what stands in the way is said in one line."""

import errno
import os
from pathlib import Path

import pytest

from dac_diffusion import files
from dac_diffusion.errors import AudioError, DacError, DataError
from dac_diffusion.files import atomic_folder, atomic_write, check_replaceable


def fail_after(written: int, failure: type[BaseException]) -> None:
    assert written > 0
    raise failure


def test_error_text_is_one_printable_line() -> None:
    name = os.fsdecode(b"caf\xe9\nsecond.wav")  # a Latin-1 name with a line break
    text = str(AudioError(f"{name}: is missing"))
    assert "\n" not in text
    assert "second.wav" in text
    text.encode("utf-8")


def test_write_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    with atomic_write(path) as file:
        file.write("é,a\r\n")
        assert not path.exists()
    assert path.read_bytes() == "é,a\r\n".encode()
    assert os.listdir(tmp_path) == ["captions.csv"]


def test_write_bytes(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin", mode="wb") as file:
        file.write(b"\x00\r\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failed_write_keeps_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_write(path) as file:
        fail_after(file.write("half"), failure)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_honours_the_umask_and_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".csv")
    with atomic_write(path) as file:
        file.write("x")
    with open(tmp_path / "plain", "w"):
        pass
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_write(tmp_path / "link.txt") as file:
        file.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_write_to_a_missing_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(DacError, match=r"nowhere.a\.csv: the folder .* does not exist; create"),
        atomic_write(tmp_path / "nowhere" / "a.csv"),
    ):
        pytest.fail("the block must not run")


def test_write_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DacError, match="is a folder"), atomic_write(tmp_path):
        pytest.fail("the block must not run")


def test_write_to_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no permission bits stop.
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with (
        pytest.raises(DacError, match=r"a\.csv: cannot be written \(Permission denied\); choose"),
        atomic_write(tmp_path / "a.csv"),
    ):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with (
        pytest.raises(DacError, match=r"a\.csv: cannot be written \(No space left"),
        atomic_write(tmp_path / "a.csv") as file,
    ):
        file.write("x")
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_block_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.csv"):
        (tmp_path / "other").read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_devices_are_written_directly() -> None:
    with atomic_write("/dev/null") as file:
        file.write("x")
    assert Path("/dev/null").is_char_device()
    with (
        pytest.raises(DacError, match="/dev/full: cannot be written"),
        atomic_write("/dev/full") as file,
    ):
        file.write("x")


def test_folder_appears_only_at_the_end_and_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for name in ("first", "second"):
        with atomic_folder(path) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / name).write_text(name)
            assert folder.parent == path.parent
            assert not (path / "sub" / name).exists()
        assert [file.name for file in (path / "sub").iterdir()] == [name]
        assert os.listdir(tmp_path) == ["checkpoint"]


def test_failed_folder_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as folder:
        fail_after((folder / "new").write_text("half"), RuntimeError)
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_folder_whose_last_rename_fails_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "old").write_text("old")
    replace, calls = os.replace, []

    def fail_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_second)
    with (
        pytest.raises(DacError, match="checkpoint: cannot be written"),
        atomic_folder(path) as folder,
    ):
        (folder / "new").write_text("new")
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_folder_in_a_missing_or_read_only_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(DacError, match="does not exist; create it first"),
        atomic_folder(tmp_path / "nowhere" / "checkpoint"),
    ):
        pytest.fail("the block must not run")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(DacError, match="Read-only file system"),
        atomic_folder(tmp_path / "checkpoint"),
    ):
        pytest.fail("the block must not run")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(DacError, match="is a file"), atomic_folder(tmp_path / "a"):
        pytest.fail("the block must not run")


def test_only_empty_folders_and_earlier_results_are_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "data", is_earlier_result=False)
    (tmp_path / "data").mkdir()
    check_replaceable(tmp_path / "data", is_earlier_result=False)
    (tmp_path / "data" / ".hidden").write_text("mine")
    with pytest.raises(DataError) as caught:
        check_replaceable(tmp_path / "data", is_earlier_result=False)
    assert str(caught.value) == (
        f"{tmp_path / 'data'}: holds something else; choose another output folder"
    )
    check_replaceable(tmp_path / "data", is_earlier_result=True)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DacError, match=r"cannot be written \(Permission denied\); choose a folder"):
        check_replaceable(tmp_path, is_earlier_result=False)
