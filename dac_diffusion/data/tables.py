"""Readers of caption tables: Clotho's and AudioCaps' CSV columns."""

from __future__ import annotations

import csv
from pathlib import Path

from dac_diffusion.errors import DataError


def read_captions(path: str | Path) -> dict[str, list[str]]:
    """All captions of a table by recording, in the table's order.

    Clotho: file_name,caption_1,...,caption_5. AudioCaps: audiocap_id,youtube_id,start_time,caption
    with one row per caption; a recording is then named <youtube_id>_<start_time>.
    Raises DataError for a file that cannot be read or has other columns.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV of captions ({error})") from error
    captions: dict[str, list[str]] = {}
    numbered = [name for name in columns if name.startswith("caption_")]
    if "file_name" in columns and numbered:
        for row in rows:
            texts = [row[name].strip() for name in numbered if row[name]]
            captions.setdefault(row["file_name"], []).extend(text for text in texts if text)
    elif {"youtube_id", "start_time", "caption"} <= set(columns):
        for row in rows:
            name = f"{row['youtube_id']}_{row['start_time']}"
            captions.setdefault(name, []).append((row["caption"] or "").strip())
    else:
        raise DataError(
            f"{path}: has neither Clotho's columns (file_name,caption_1,...) nor AudioCaps' "
            f"(youtube_id,start_time,caption); found: {', '.join(columns) or 'none'}"
        )
    return captions


def read_all_captions(path: str | Path) -> list[str]:
    """All captions of a table in its order, whatever they belong to; see `read_captions`."""
    return [text for group in read_captions(path).values() for text in group]
