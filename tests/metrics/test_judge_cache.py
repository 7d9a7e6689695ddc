"""The cache of verdicts: what a killed run leaves, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dac_diffusion.errors import DacError, DataError
from dac_diffusion.metrics.judge_cache import Verdict, VerdictCache

FIRST, SECOND = Verdict(7.5, 8, 7, 10), Verdict(0, 0, 1, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache.jsonl"
    with VerdictCache(path) as cache:
        cache.add("one", FIRST, {"file_name": "é\u2028.wav", "answer": "{}\n"})
        cache.add("two", SECOND, {})
        assert cache["one"] == FIRST
    return path


def test_what_was_added_is_there_again(path: Path) -> None:
    with VerdictCache(path) as cache:
        assert ("one" in cache, "two" in cache, "three" in cache) == (True, True, False)
        assert (cache["one"], cache["two"]) == (FIRST, SECOND)
        cache.add("two", FIRST, {})
    with VerdictCache(path) as cache:
        assert cache["two"] == FIRST
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("kept", [1, 5, 9, 30, 200])
def test_a_line_that_was_cut_off_is_removed(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:kept])
    with VerdictCache(path) as cache:
        assert "one" in cache
        cache.add("three", SECOND, {})
    with VerdictCache(path) as cache:
        assert cache["three"] == SECOND
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"file_name,caption_predicted\na.wav,rain\n", 1),
        (b"a secret without a line end", 1),
        (b'{"file_name": "a.wav", "captions": []}\n', 1),
        (b'{"key": "a", "score": 1}\n', 1),
        (b'{"key": "a", "score": [], "correctness": 1, "completeness": 1, "fluency": 1}\n', 1),
        (b"[]\n", 1),
        (b"\xff\xfe\n", 1),
        (b'{"key": "a", "score": 1, "correctness": 1, "completeness": 1, "fluency": 1}\nx', 2),
    ],
)
def test_another_file_is_an_error_and_stays_as_it_is(
    tmp_path: Path, content: bytes, line: int
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="give another file as cache") as caught:
        VerdictCache(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "cache.jsonl"):
        with pytest.raises(DacError, match="choose a file in a folder you can write to") as caught:
            VerdictCache(path)
        assert str(path) in str(caught.value)


def test_a_full_disk(path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with VerdictCache(path) as cache:
        cache._file.close()
        cache._file = full.open("ab", buffering=0)
        with pytest.raises(DacError, match="No space left"):
            cache.add("three", FIRST, {})
        assert "three" not in cache
