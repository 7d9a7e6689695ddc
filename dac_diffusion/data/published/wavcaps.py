"""WavCaps (Mei et al. 2023, arXiv 2303.17395): 400,000 recordings with captions by a chat model.

AudioCaps was made from the videos of its AudioSet part, Clotho from the recordings of its Freesound
part: 17.6 % of AudioCaps and 89 % of Clotho are in it. Whoever evaluates on one of them must
exclude its clips from training, by the lists that are published for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dac_diffusion.data.published.audio_folder import AudioFolder
from dac_diffusion.data.published.dataset import CaptionDataset, ClipCollector
from dac_diffusion.data.published.text_files import (
    Report,
    caption_columns,
    read_json,
    read_records,
)
from dac_diffusion.errors import DataError

# The four parts, as their folders are called, and how their JSON files' names begin.
SOURCES = {
    "AudioSet_SL": "as_",
    "BBC_Sound_Effects": "bbc_",
    "FreeSound": "fsd_",
    "SoundBible": "sb_",
}
ID_COLUMNS = ("youtube_id", "sound_id", "id")  # of AudioCaps, of Clotho's metadata, of other lists
_YOUTUBE_ID = re.compile(r"Y?([\w-]{11})(\.\w+)?")
_FREESOUND_ID = re.compile(r"\d+")

ClipId = tuple[str, str]  # the part, and the id in it without Y or ending


@dataclass(frozen=True)
class WavCapsSettings:
    """Which clips are left out.

    exclude: files with the ids of clips that must not be used. The blacklists published with
    WavCaps, {"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}, take ids of those parts;
    in any other list (a JSON list; a CSV such as DCASE's list of forbidden Freesound ids,
    AudioCaps' tables by their youtube_id, Clotho's metadata by their sound_id, or one id a line)
    numbers are Freesound ids and the others YouTube ids. shortest_seconds, longest_seconds: by the
    duration that the JSON file gives; EnCLAP++ trains on clips of 1 to 30 s.
    """

    exclude: tuple[Path, ...] = ()
    shortest_seconds: float | None = None
    longest_seconds: float | None = None


def read_wavcaps(
    captions: str | Path, audio: str | Path, settings: WavCapsSettings | None = None
) -> CaptionDataset:
    """One part's JSON file, or a folder with those of several: {"data": [{id, caption, ...}]}.

    Published as AudioSet_SL/as_final.json, BBC_Sound_Effects/bbc_final.json,
    FreeSound/fsd_final.json and SoundBible/sb_final.json. A clip is named <part>/<id>, and its
    recording is <id>.wav, .flac, .ogg or .mp3 below a folder whose name begins with the part's
    (AudioSet_SL_flac); with a single JSON file also below `audio` outside of such folders.

    Raises DataError where a JSON file, a list of excluded ids or the folder cannot be read, or no
    clip is left.
    """
    settings = settings or WavCapsSettings()
    files = find_json_files(Path(captions))
    folder = AudioFolder(audio)
    collector = ClipCollector(folder.root)
    excluded = {each for path in settings.exclude for each in read_ids(path, collector.report)}
    for source, path in files.items():
        for number, entry in enumerate(_entries(path, collector.report), start=1):
            where = f"{path.name}, clip {number}"
            columns = caption_columns(entry) if isinstance(entry, dict) else []
            texts = [entry[column] for column in columns]
            if not texts or "id" not in entry or not all(isinstance(text, str) for text in texts):
                collector.report(where, "has no id or no text under caption")
                continue
            clip = _clip_id(source, str(entry["id"]))
            name = f"{source}/{clip[1]}"
            if clip in excluded or not _is_long_enough(entry, settings):
                collector.excluded.append(name)
            elif not collector.is_repeated(where, name):
                found = _recordings(folder, source, clip[1], single=len(files) == 1)
                collector.add(where, name, found, texts)
    return collector.finish(Path(captions))


def find_json_files(captions: Path) -> dict[str, Path]:
    """The JSON file of each part, in the order of SOURCES.

    In folders fsd_final_2s.json, a part of fsd_final.json, counts only where that is not there.
    """
    if not captions.is_dir():
        source = _source(captions)
        if source is None:
            raise DataError(
                f"{captions}: its name does not say which part of WavCaps it is; put it into a "
                f"folder called {', '.join(SOURCES)}"
            )
        return {source: captions}
    found: dict[str, list[Path]] = {}
    for path in sorted(captions.rglob("*.json")):
        source = _source(path)
        if source is not None:
            found.setdefault(source, []).append(path)
    files: dict[str, Path] = {}
    for source in SOURCES:
        paths = found.get(source, [])
        whole = [path for path in paths if path.stem.endswith("_final")] or paths
        if len(whole) > 1:
            names = ", ".join(str(path) for path in whole)
            raise DataError(f"{captions}: holds several files of {source} ({names}); keep one")
        if whole:
            files[source] = whole[0]
    if not files:
        raise DataError(f"{captions}: holds no JSON files of WavCaps, such as AudioSet_SL.json")
    return files


def _source(path: Path) -> str | None:
    """The part that a JSON file is, by its name or its folder's."""
    for source, prefix in SOURCES.items():
        if path.name.startswith((source, prefix)):
            return source
    return path.parent.name if path.parent.name in SOURCES else None


def _entries(path: Path, report: Report) -> Sequence[Any]:
    content = read_json(path, report)
    entries = content.get("data") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f'{path}: has no list under "data", as the JSON files of WavCaps have it')
    return entries


def _clip_id(source: str, written: str) -> ClipId:
    youtube = _YOUTUBE_ID.fullmatch(written) if source == "AudioSet_SL" else None
    return source, youtube[1] if youtube else written


def _is_long_enough(entry: Mapping[str, Any], settings: WavCapsSettings) -> bool:
    """Whether a clip's length is within the settings; one without a duration counts as such."""
    try:
        seconds = float(entry["duration"])
    except (KeyError, TypeError, ValueError):
        return True
    shortest, longest = settings.shortest_seconds, settings.longest_seconds
    return (shortest is None or seconds >= shortest) and (longest is None or seconds <= longest)


def _recordings(folder: AudioFolder, source: str, number: str, single: bool) -> list[Path]:
    """A clip's recordings. Never another part's: Freesound and SoundBible share numbers."""
    stems = (f"Y{number}", number) if source == "AudioSet_SL" else (number,)
    depth = len(folder.root.parts)

    def lies_in(path: Path, sources: tuple[str, ...]) -> bool:
        return any(part.startswith(sources) for part in path.parts[depth:-1])

    found = folder.find_stem(stems, lambda path: lies_in(path, (source,)))
    if single and not found:
        found = folder.find_stem(stems, lambda path: not lies_in(path, tuple(SOURCES)))
    return found


def read_ids(path: str | Path, report: Report) -> set[ClipId]:
    """The clips that a published list names. Raises DataError where it holds no id."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = read_json(path, report)
        by_part = content if isinstance(content, dict) else {"": content}
        ids = {
            clip
            for part, names in by_part.items()
            if isinstance(names, list)
            for name in names
            for clip in _named_clips(str(part), str(name))
        }
    else:
        ids = {clip for name in _listed(path, report) for clip in _named_clips("", name)}
    if not ids:
        raise DataError(f"{path}: holds no Freesound or YouTube ids, so nothing would be excluded")
    return ids


def _named_clips(part: str, name: str) -> Iterator[ClipId]:
    """The clip that an entry of a list names, if it names one: some are "Not found"."""
    name = name.strip()
    sources = [source for source in SOURCES if part and source.startswith(part)]
    if sources:
        yield _clip_id(sources[0], name)
    elif _FREESOUND_ID.fullmatch(name):
        yield "FreeSound", name
    elif _YOUTUBE_ID.fullmatch(name):
        yield _clip_id("AudioSet_SL", name)


def _listed(path: Path, report: Report) -> Iterator[str]:
    """The cells of a CSV's column of ids; without one of those, of its first column, all lines."""
    records = read_records(path, report)
    _, header = next(records, ("", [""]))
    column = next((header.index(name) for name in ID_COLUMNS if name in header), None)
    if column is None:
        column = 0
        yield header[0]
    for _, row in records:
        if len(row) > column:
            yield row[column]
