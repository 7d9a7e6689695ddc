"""Bad recordings and outputs on the command line: one clear line, the rest still captioned."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers import RATE, caption_quickly, noise, only_error


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    soundfile.write(path.with_suffix(".flac"), noise(1.0), RATE)
    content = path.with_suffix(".flac").read_bytes()
    path.with_suffix(".flac").unlink()
    path.write_bytes(content[:200])


def text_named_wav(path: Path) -> None:
    path.write_text("This is no recording.\n" * 100)


def silent(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE), RATE)


def not_a_number(path: Path) -> None:
    samples = noise(1.0)
    samples[100] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def infinite(path: Path) -> None:
    samples = noise(1.0)
    samples[100] = np.inf
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def one_sample(path: Path) -> None:
    soundfile.write(path, noise(1.0)[:1], RATE)


def missing(path: Path) -> None:
    pass


def folder_without_audio(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("nothing to hear")


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:  # root reads everything but this
        path.symlink_to("/proc/self/mem")
        return
    soundfile.write(path, noise(0.3), RATE)
    path.chmod(0)


@pytest.mark.parametrize(
    "make",
    [
        empty,
        truncated,
        text_named_wav,
        silent,
        not_a_number,
        infinite,
        one_sample,
        missing,
        folder_without_audio,
        unreadable,
    ],
)
def test_a_bad_recording_is_named_and_the_other_captioned(
    make: Callable[[Path], None],
    checkpoint: Path,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.wav"
    make(bad)
    target = tmp_path / "out.jsonl"
    assert caption_quickly(checkpoint, bad, good, "--output", target) == 1
    assert str(bad) in only_error(capsys)
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert row["file_name"] == good.name
    assert row["captions"]


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(32000, 8, 0.5), (4000, 1, 1.0), (192000, 1, 0.5), (44100, 2, 0.5)],
)
def test_unusual_recordings_are_captioned(
    rate: int, channels: int, seconds: float, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    samples = np.random.default_rng(0).normal(0, 0.1, (round(rate * seconds), channels))
    soundfile.write(tmp_path / "unusual.wav", samples, rate)
    assert caption_quickly(checkpoint, tmp_path / "unusual.wav") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["duration_seconds"] == pytest.approx(seconds, abs=0.01)
    assert len(row["captions"]) == 2


def test_ten_minutes_are_captioned(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", noise(600, rate=4000), 4000)
    assert caption_quickly(checkpoint, tmp_path / "long.wav") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["duration_seconds"] == pytest.approx(600, abs=0.01)
    assert len(row["captions"]) == 2


@pytest.mark.parametrize("name", ["Hündin – 犬.wav", "tab\tand\nline.wav"])
def test_unusual_names_are_kept(
    name: str, checkpoint: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = good.rename(good.with_name(name))
    assert caption_quickly(checkpoint, path) == 0
    assert json.loads(capsys.readouterr().out)["file_name"] == name


def test_names_that_are_no_utf8_are_captioned(checkpoint: Path, good: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.wav"
    try:
        os.rename(good, path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    target = tmp_path / "out.jsonl"
    assert caption_quickly(checkpoint, os.fsdecode(path), "--output", target) == 0
    assert json.loads(target.read_text(encoding="utf-8"))["file_name"] == "\ufffd.wav"


def test_a_missing_output_folder_is_an_error(
    checkpoint: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption_quickly(checkpoint, good, "--output", tmp_path / "no" / "out.csv") == 1
    assert str(tmp_path / "no") in only_error(capsys)


def test_a_read_only_output_folder_is_an_error(
    checkpoint: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.geteuid() == 0:  # root writes everywhere but there
        folder = Path("/proc/self")
        if not folder.is_dir():
            pytest.skip("no folder that root cannot write to")
    assert caption_quickly(checkpoint, good, "--output", folder / "out.csv") == 1
    assert "out.csv" in only_error(capsys)


def test_no_output_replaces_an_older_one_when_all_inputs_fail(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("from before")
    assert caption_quickly(checkpoint, tmp_path / "missing.wav", "--output", target) == 1
    assert "missing.wav" in only_error(capsys)
    assert target.read_text() == "from before"
    assert list(tmp_path.iterdir()) == [target]
