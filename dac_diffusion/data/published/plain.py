"""A table of one's own: CSV or JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dac_diffusion.data.published.audio_folder import AudioFolder
from dac_diffusion.data.published.dataset import CaptionDataset, ClipCollector
from dac_diffusion.data.published.text_files import (
    caption_columns,
    find_table,
    read_rows,
    read_text,
)
from dac_diffusion.errors import DataError


def read_plain(captions: str | Path, audio: str | Path) -> CaptionDataset:
    """Captions of any recordings, in one of three forms; file_name is a path below `audio`.

    CSV file_name,caption: one row for each caption, as many rows of a recording as it has captions.
    CSV file_name,caption_1,...,caption_n: one row for each recording; cells may be left empty.
    JSON lines: {"file_name": "...", "captions": ["...", "..."]}, one line for each recording.
    A file that begins with "{" is taken for JSON lines, any other for a CSV.

    Raises DataError where the table or the folder cannot be read, or no clip is left.
    """
    table = find_table(captions, "*.csv", "*.jsonl")
    folder = AudioFolder(audio)
    collector = ClipCollector(folder.root)
    text = read_text(table, lambda where, fault: None)  # what is wrong is reported below
    if text.lstrip().startswith("{"):
        _read_json_lines(table, folder, collector)
    else:
        _read_csv(table, folder, collector)
    return collector.finish(table)


def _read_csv(table: Path, folder: AudioFolder, collector: ClipCollector) -> None:
    several: dict[str, tuple[str, list[str]]] = {}  # where and captions by file_name
    for where, row in read_rows(table, collector.report, ("file_name",)):
        columns = caption_columns(row)
        if not columns:
            raise DataError(
                f"{table}: has neither a column caption nor caption_1, caption_2, ...; "
                f"found: {', '.join(row)}"
            )
        name = row["file_name"].strip()
        if not name:
            collector.report(where, "has no file_name")
        elif columns == ["caption"]:
            captions = several.setdefault(name, (where, []))[1]
            if row["caption"] in captions:
                collector.report(where, f"the same caption of '{name}' was there before")
            else:
                captions.append(row["caption"])
        elif not collector.is_repeated(where, name):
            captions = [row[column] for column in columns if row[column].strip()]
            collector.add(where, name, folder.find(name), captions)
    for name, (where, captions) in several.items():
        collector.add(where, name, folder.find(name), captions)


def _read_json_lines(table: Path, folder: AudioFolder, collector: ClipCollector) -> None:
    # Not splitlines: it also cuts at characters that may stand inside a JSON string.
    for number, line in enumerate(read_text(table, collector.report).split("\n"), start=1):
        where = f"{table.name}, line {number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            collector.report(where, f"is no JSON ({error})")
            continue
        if not _is_entry(entry):
            collector.report(where, 'should be {"file_name": "...", "captions": ["...", "..."]}')
        elif not collector.is_repeated(where, entry["file_name"]):
            name = entry["file_name"]
            collector.add(where, name, folder.find(name), entry["captions"])


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file_name"), str)
        and bool(entry["file_name"].strip())
        and isinstance(entry.get("captions"), list)
        and all(isinstance(caption, str) for caption in entry["captions"])
    )
