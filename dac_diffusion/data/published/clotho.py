"""Clotho v1, v2 and v2.1 (Drossos et al. 2020, ICASSP): five captions of each recording."""

from __future__ import annotations

import re
from pathlib import Path

from dac_diffusion.data.published.audio_folder import AudioFolder
from dac_diffusion.data.published.dataset import CaptionDataset, ClipCollector
from dac_diffusion.data.published.text_files import caption_columns, find_table, read_rows

SPLITS = ("development", "validation", "evaluation")


def read_clotho(captions: str | Path, audio: str | Path) -> CaptionDataset:
    """clotho_captions_<split>.csv: file_name,caption_1,...,caption_5, one row for each clip.

    The recordings lie anywhere below `audio`. Where a name is there more than once, that in a
    folder called like the table's split (development, validation, evaluation) counts.

    Raises DataError where the table or the folder cannot be read, or no clip is left.
    """
    table = find_table(captions, "clotho_captions_*.csv")
    folder = AudioFolder(audio)
    collector = ClipCollector(folder.root)
    split = re.search("|".join(SPLITS), table.name.lower())
    for where, row in read_rows(table, collector.report, ("file_name", "caption_1")):
        name = row["file_name"].strip()
        if not name:
            collector.report(where, "has no file_name")
        elif not collector.is_repeated(where, name):
            found = folder.find_below(name, split[0] if split else "")
            collector.add(where, name, found, [row[column] for column in caption_columns(row)])
    return collector.finish(table)
