"""The cache of answers: what a killed run leaves, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.errors import DacError, DataError

FIRST, SECOND = '{"score": 7.5}\n', "é \u2028 \\"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cache.jsonl"
    with AnswerCache(path) as cache:
        cache.add("one", FIRST, {"file_name": "é\u2028.wav", "score": 7.5})
        cache.add("two", SECOND, {})
        assert cache["one"] == FIRST
    return path


def test_what_was_added_is_there_again(path: Path) -> None:
    with AnswerCache(path) as cache:
        assert ("one" in cache, "two" in cache, "three" in cache) == (True, True, False)
        assert (cache["one"], cache["two"]) == (FIRST, SECOND)
        cache.add("two", FIRST, {})
    with AnswerCache(path) as cache:
        assert cache["two"] == FIRST
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("kept", [1, 5, 9, 30, 200])
def test_a_line_that_was_cut_off_is_removed(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:kept])
    with AnswerCache(path) as cache:
        assert "one" in cache
        cache.add("three", SECOND, {})
    with AnswerCache(path) as cache:
        assert cache["three"] == SECOND
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"file_name,caption_predicted\na.wav,rain\n", 1),
        (b"a secret without a line end", 1),
        (b'{"file_name": "a.wav", "captions": []}\n', 1),
        (b'{"key": "a", "score": 1}\n', 1),
        (b'{"key": "a", "answer": 1}\n', 1),
        (b'{"key": 1, "answer": "a"}\n', 1),
        (b"[]\n", 1),
        (b"\xff\xfe\n", 1),
        (b'{"key": "a", "answer": "a"}\nx', 2),
    ],
)
def test_another_file_is_an_error_and_stays_as_it_is(
    tmp_path: Path, content: bytes, line: int
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="give another file as cache") as caught:
        AnswerCache(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "cache.jsonl"):
        with pytest.raises(DacError, match="choose a file in a folder you can write to") as caught:
            AnswerCache(path)
        assert str(path) in str(caught.value)


def test_a_full_disk(path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with AnswerCache(path) as cache:
        cache._file.close()
        cache._file = full.open("ab", buffering=0)
        with pytest.raises(DacError, match="No space left"):
            cache.add("three", FIRST, {})
        assert "three" not in cache


def test_what_the_judge_wrote_in_earlier_versions_is_read(path: Path) -> None:
    grades = '"score": 5.0, "correctness": 5.0, "completeness": 5.0, "fluency": 10.0'
    row = f'{{"key": "old", {grades}, "file_name": "a.wav", "answer": "{{}}"}}\n'
    path.write_text(row)
    with AnswerCache(path) as cache:
        assert cache["old"] == "{}"
