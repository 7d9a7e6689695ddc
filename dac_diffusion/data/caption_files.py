"""Files of captions as `dac-diffusion caption` writes them, read to be written back changed.

Unlike the readers of predictions.py, these keep all that a row holds, and go on after a bad row.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from dac_diffusion.data.predictions import CSV_COLUMNS
from dac_diffusion.errors import DataError

CaptionFile: TypeAlias = "CsvFile | JsonlFile"


@dataclass
class CsvFile:
    """Rows with a column caption_predicted; `errors` names the rows that were left out."""

    columns: list[str]
    rows: list[list[str]]
    errors: list[str]

    def texts(self) -> list[str]:
        """All captions, in the file's order."""
        at = self.columns.index(CSV_COLUMNS[1])
        return [row[at] for row in self.rows]

    def replace(self, texts: Sequence[str]) -> None:
        """Put other captions in the place of all captions."""
        at = self.columns.index(CSV_COLUMNS[1])
        for row, text in zip(self.rows, texts, strict=True):
            row[at] = text

    def write(self, file: IO[str]) -> None:
        """Write all rows."""
        csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])


@dataclass
class JsonlFile:
    """Objects with a list of captions each; `errors` names the lines that were left out."""

    rows: list[dict[str, Any]]
    errors: list[str]

    def texts(self) -> list[str]:
        """All captions of all recordings, in the file's order."""
        return [caption["text"] for caption in self._captions()]

    def replace(self, texts: Sequence[str]) -> None:
        """Put other captions in the place of all; what differs keeps its "original"."""
        for caption, text in zip(self._captions(), texts, strict=True):
            if text != caption["text"]:
                caption.setdefault("original", caption["text"])
                caption["text"] = text

    def write(self, file: IO[str]) -> None:
        """Write all rows."""
        for row in self.rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _captions(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            yield from row.get("captions", [])


def read_caption_file(path: Path) -> CaptionFile:
    """Read what `caption --format csv` or `--format jsonl` wrote; the content tells which.

    Bad rows are left out and named. Raises DataError for a file that cannot be read, is empty or
    has other columns.
    """
    try:
        # Bytes that are no UTF-8 become characters that no text has: only their rows are bad.
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not text.strip():
        raise DataError(f"{path}: is empty; it should hold captions")
    return _read_jsonl(path, text) if text.lstrip()[0] in "{[" else _read_csv(path, text)


def _read_csv(path: Path, text: str) -> CsvFile:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader)
    except csv.Error as error:
        raise DataError(f"{path}, line 1: is no CSV ({error}); check its double quotes") from error
    missing = [name for name in CSV_COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {' and '.join(missing)}; give what `dac-diffusion caption "
            "--format csv` or `--format jsonl` wrote"
        )
    file = CsvFile(columns, [], [])
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return file
        except csv.Error as error:
            fault = f"is no CSV ({error}); check its double quotes"
            file.errors.append(_left_out(path, first, reader.line_num, fault))
            continue
        if row and len(row) != len(columns):
            fault = f"{len(row)} columns where the first line has {len(columns)}"
            file.errors.append(_left_out(path, first, reader.line_num, fault))
        elif row and not _is_utf8("".join(row)):
            file.errors.append(_left_out(path, first, reader.line_num, "is not UTF-8 text"))
        elif row:
            file.rows.append(row)


def _read_jsonl(path: Path, text: str) -> JsonlFile:
    file = JsonlFile([], [])
    # Not splitlines: it also cuts at characters that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            fault = f"is no JSON ({error}), where each line should hold one recording"
            file.errors.append(_left_out(path, number, number, fault))
            continue
        if not _is_utf8(line) or not _is_utf8(json.dumps(row, ensure_ascii=False)):
            file.errors.append(_left_out(path, number, number, "is not UTF-8 text"))
        elif not _is_clip(row):
            fault = 'should be an object with a "file_name" and "captions", each with a "text"'
            file.errors.append(_left_out(path, number, number, fault))
        else:
            file.rows.append(row)
    return file


def _is_clip(row: Any) -> bool:
    """Whether it is a recording with captions, or one that could not be captioned."""
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        return False
    captions = row.get("captions", [] if "error" in row else None)
    return isinstance(captions, list) and all(
        isinstance(caption, dict) and isinstance(caption.get("text"), str) for caption in captions
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _left_out(path: Path, first: int, last: int, fault: str) -> str:
    if first == last:
        return f"{path}, line {first}: {fault}; this row was left out"
    return (
        f"{path}, lines {first} to {last}: are one row, as line {first} opens a double quote that "
        f"it does not close: {fault}; these lines were left out; close it if it should end there"
    )
