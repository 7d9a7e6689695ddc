"""Text, CSV and JSON files that may be faulty in places: what can be read is read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dac_diffusion.errors import DataError

Report = Callable[[str, str], None]  # takes where, and what is wrong there
LINES_PER_CELL = 20  # a quoted cell that seems to go on for longer lacks its closing quote
_UNDECODED = re.compile("[\udc80-\udcff]")
_BYTE_ORDER_MARKS_OF_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_GIT_LFS = "version https://git-lfs"


def find_table(path: str | Path, *patterns: str) -> Path:
    """The table at `path`: a file itself, or the only one in a folder whose name fits a pattern.

    Raises DataError for none and for several, because splits must not be mixed by accident.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    names = sorted(each.name for each in path.iterdir())
    found = [name for name in names if any(fnmatch(name.lower(), each) for each in patterns)]
    if len(found) != 1:
        fault = f"several tables ({', '.join(found)})" if found else f"no {' or '.join(patterns)}"
        raise DataError(f"{path}: holds {fault}; give the file that is meant")
    return path / found[0]


def read_text(path: Path, report: Report) -> str:
    """A UTF-8 file; bytes that are not UTF-8 are read as Windows-1252 and their lines reported.

    Windows-1252 has the letters of ISO-8859-1 in the same places. Raises DataError for a file that
    cannot be read, is empty, is UTF-16, or is Git's stand-in for a large file.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if raw.startswith(_BYTE_ORDER_MARKS_OF_UTF_16):
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8")
    text = raw.decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise DataError(f"{path}: is empty")
    if text.startswith(_GIT_LFS):
        raise DataError(f"{path}: is a pointer of Git LFS, not the file; run `git lfs pull`")
    if _UNDECODED.search(text):
        for number, line in enumerate(text.split("\n"), start=1):
            if _UNDECODED.search(line):
                report(f"{path.name}, line {number}", "is not UTF-8; read as Windows-1252")
        text = _UNDECODED.sub(_from_windows, text)
    return text


def _from_windows(undecoded: re.Match[str]) -> str:
    byte = bytes([ord(undecoded[0]) - 0xDC00])
    try:
        return byte.decode("cp1252")
    except UnicodeDecodeError:  # five values have no character there
        return byte.decode("latin-1")


def read_rows(
    path: Path, report: Report, required: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Where and cells by column of every good row of a CSV; the others are reported.

    Raises DataError where the file cannot be read or its first line lacks a required column.
    """
    records = read_records(path, report)
    _, columns = next(records, ("", []))
    columns = [column.strip() for column in columns]
    missing = [name for name in required if name not in columns]
    if missing:
        raise DataError(
            f"{path}: has no column {' and '.join(missing)}; found: {', '.join(columns) or 'none'}"
        )
    for where, row in records:
        surplus = row[len(columns) :]
        if len(row) < len(columns) or any(surplus):
            report(
                where,
                f"{len(row)} columns where the first line has {len(columns)}; "
                "put captions with commas in double quotes",
            )
            continue
        yield where, dict(zip(columns, row, strict=False))


def read_records(path: Path, report: Report) -> Iterator[tuple[str, list[str]]]:
    """Where and cells of every line of a CSV that is not blank; faulty lines are reported.

    One by one, because a single lacking quote would make csv swallow the rest of the file.
    Raises DataError as read_text does.
    """
    lines = [line.rstrip("\r") for line in read_text(path, report).split("\n")]
    start = 0
    while start < len(lines):
        where = f"{path.name}, line {start + 1}"
        used, row, fault = _parse_record(lines, start)
        if fault:
            report(where, f"is no CSV ({fault}); check its quotes")
        elif row:
            yield where, row
        start += used


def _parse_record(lines: list[str], start: int) -> tuple[int, list[str], str]:
    """Lines used, cells, and what is wrong, if anything, of the record that begins at a line."""
    fault = ""
    for end in range(start + 1, min(start + LINES_PER_CELL, len(lines)) + 1):
        text = "\n".join(lines[start:end])
        if "\0" in text:
            return 1, [], "it holds a zero byte"
        try:
            return end - start, next(csv.reader([text], strict=True), []), ""
        except csv.Error as error:
            fault = fault or str(error)
            if "unexpected end of data" not in str(error):
                break
    return 1, [], fault


def read_json(path: Path, report: Report) -> Any:
    """The content of a JSON file. Raises DataError."""
    text = read_text(path, report)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({error}); download it again") from error


def caption_columns(columns: Mapping[str, Any]) -> list[str]:
    """caption_1, caption_2, ... of these columns, by number; else caption, if that is there."""
    numbered = [name for name in columns if re.fullmatch(r"caption_\d+", name)]
    return sorted(numbered, key=lambda name: int(name[8:])) or [
        name for name in columns if name == "caption"
    ]
