"""MACS (Martín-Morató and Mesaros 2021, DCASE Workshop): two to five captions of city scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dac_diffusion.data.published.audio_folder import AudioFolder
from dac_diffusion.data.published.dataset import CaptionDataset, ClipCollector
from dac_diffusion.data.published.text_files import Report, find_table, read_text
from dac_diffusion.errors import DataError


def read_macs(captions: str | Path, audio: str | Path) -> CaptionDataset:
    """MACS.yaml: files: [{filename, annotations: [{annotator_id, sentence, tags}]}].

    The recordings are those of TAU Urban Acoustic Scenes 2019, development, and lie anywhere below
    `audio`. Raises DataError where the table or the folder cannot be read, or no clip is left.
    """
    table = find_table(captions, "macs.yaml", "macs.yml")
    folder = AudioFolder(audio)
    collector = ClipCollector(folder.root)
    for number, entry in enumerate(_entries(table, collector.report), start=1):
        where = f"{table.name}, file {number}"
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            collector.report(where, "has no text under filename")
        elif not collector.is_repeated(where, name):
            sentences = _sentences(entry.get("annotations"), where, collector.report)
            collector.add(where, name, folder.find_below(Path(name).name, "audio"), sentences)
    return collector.finish(table)


def _entries(table: Path, report: Report) -> list[Any]:
    import yaml

    try:
        # The loader in C, where it is built in: 4,000 clips take a second instead of ten.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(read_text(table, report), Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{table}: is no YAML ({reason}); download it again") from error
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{table}: has no list under files, as MACS.yaml has it")
    return entries


def _sentences(annotations: Any, where: str, report: Report) -> list[str]:
    if not isinstance(annotations, list):
        report(where, "has no list under annotations")
        return []
    texts = [each.get("sentence") if isinstance(each, dict) else None for each in annotations]
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            report(where, f"annotation {number} has no text under sentence")
    return [text for text in texts if isinstance(text, str)]
