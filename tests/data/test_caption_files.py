"""Caption files that are read and written back: what is kept, and which rows are left out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from dac_diffusion.data.caption_files import CsvFile, JsonlFile, read_caption_file
from dac_diffusion.errors import DataError


def written(file: CsvFile | JsonlFile) -> str:
    output = io.StringIO()
    file.write(output)
    return output.getvalue()


def test_a_csv_keeps_its_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    text = 'score,file_name,caption_predicted\n0.5,a.wav,"rain, wind"\n0.4,"b\n""c.wav",\n'
    path.write_text("\ufeff" + text, encoding="utf-8")
    file = read_caption_file(path)
    assert file.texts() == ["rain, wind", ""]
    assert written(file) == text
    file.replace(["thunder", 'a "dog"'])
    assert written(file) == (
        'score,file_name,caption_predicted\n0.5,a.wav,thunder\n0.4,"b\n""c.wav","a ""dog"""\n'
    )
    assert file.errors == []


def test_jsonl_keeps_everything_and_the_original(tmp_path: Path) -> None:
    rows = [
        {
            "file_name": "é\u2028.wav",
            "captions": [{"text": "a", "score": 0.5}, {"text": "b"}],
            "x": 1,
        },
        {"file_name": "b.wav", "captions": [], "repeats_removed": 1},
        {"file_name": "c.wav", "error": "cannot be read"},
        {"file_name": "d.wav", "captions": [{"text": "c", "original": "first"}]},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    file = read_caption_file(path)
    assert file.texts() == ["a", "b", "c"]
    assert [json.loads(line) for line in written(file).split("\n")[:-1]] == rows
    file.replace(["A", "b", "C"])
    changed = [json.loads(line) for line in written(file).split("\n")[:-1]]
    assert changed[0]["captions"] == [{"text": "A", "score": 0.5, "original": "a"}, {"text": "b"}]
    assert changed[1:3] == rows[1:3]
    assert changed[3]["captions"] == [{"text": "C", "original": "first"}]
    with pytest.raises(ValueError, match="zip"):
        file.replace(["A"])


def test_bad_lines_of_jsonl_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    good = b'{"file_name": "a.wav", "captions": [{"text": "rain"}]}'
    bad = [
        b"no json",
        b'{"file_name": "a.wav", "captions": [{"text": "\xff"}]}',
        b'{"file_name": "a.wav", "captions": [{"text": "\\ud800"}]}',
        b"[]",
        b'{"captions": []}',
        b'{"file_name": "a.wav"}',
        b'{"file_name": "a.wav", "captions": {}}',
        b'{"file_name": "a.wav", "captions": ["rain"]}',
        b'{"file_name": "a.wav", "captions": [{"text": 1}]}',
    ]
    path.write_bytes(b"\n".join([good, *bad, good]))
    file = read_caption_file(path)
    assert file.texts() == ["rain", "rain"]
    assert len(file.errors) == len(bad)
    for number, error in enumerate(file.errors, start=2):
        assert error.startswith(f"{path}, line {number}: ")
        assert error.endswith("; this row was left out")
    reasons = [error.split(": ", 1)[1] for error in file.errors]
    assert reasons[0].startswith("is no JSON (Expecting value")
    assert reasons[1].startswith("is not UTF-8 text;")
    assert reasons[2].startswith("is not UTF-8 text;")
    assert set(reasons[3:]) == {
        'should be an object with a "file_name" and "captions", each with a "text"; '
        "this row was left out"
    }


def test_bad_rows_of_a_csv_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_bytes(
        b"file_name,caption_predicted\n"
        b"a.wav,rain\n"
        b"b.wav,rain, wind\n"
        b"c.wav\n"
        b"\n"
        b"d.wav,\xff\n"
        b'e.wav,"rain" falls\n'
        b"f.wav,wind\n"
        b'g.wav,"never closed\n'
    )
    file = read_caption_file(path)
    assert file.texts() == ["rain", "wind"]
    assert [error.removeprefix(f"{path}, ").split("(")[0] for error in file.errors] == [
        "line 3: 3 columns where the first line has 2; this row was left out",
        "line 4: 1 columns where the first line has 2; this row was left out",
        "line 6: is not UTF-8 text; this row was left out",
        "line 7: is no CSV ",
        "line 9: is no CSV ",
    ]
    assert all("check its double quotes; this row" in error for error in file.errors[3:])


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (
            ['b.wav,"rain', "c.wav,wind", "d.wav,hail"],
            "is no CSV (unexpected end of data); ",
        ),
        (['b.wav,"rain', "c.wav,wind", 'd.wav,"hail"'], "is no CSV (',' expected after"),
        (['b.wav,"rain', "c.wav,wind", 'd.wav",hail'], "3 columns where the first line has 2"),
    ],
)
def test_rows_that_a_stray_quote_swallows_are_all_named(
    tmp_path: Path, lines: list[str], fault: str
) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("\n".join(["file_name,caption_predicted", "a.wav,rain", *lines]) + "\n")
    file = read_caption_file(path)
    assert file.texts() == ["rain"]
    (error,) = file.errors
    start = f"{path}, lines 3 to 5: are one row, as line 3 opens a double quote that it does not "
    assert error.startswith(f"{start}close: {fault}")
    assert error.endswith("; these lines were left out; close it if it should end there")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b" \n", "is empty; it should hold captions"),
        (b"clip.wav  (0.4 s)\n", "line 1: no column file_name and caption_predicted; give what"),
        (b"file_name,caption_1\n", "line 1: no column caption_predicted; give what `dac-diffusion"),
        (b'"file_name" x,caption_predicted\n', "line 1: is no CSV ("),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "captions"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_caption_file(path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)
