"""AudioCaps (Kim et al. 2019, NAACL): captions of 10 s clips of YouTube videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dac_diffusion.data.published.audio_folder import AudioFolder
from dac_diffusion.data.published.dataset import CaptionDataset, ClipCollector
from dac_diffusion.data.published.text_files import find_table, read_rows

SECONDS = 10  # of every clip


@dataclass
class _Rows:
    """The rows of one clip, and where the first one is."""

    where: str
    captions: list[str] = field(default_factory=list)


def read_audiocaps(captions: str | Path, audio: str | Path) -> CaptionDataset:
    """A split's CSV: audiocap_id,youtube_id,start_time,caption, one row for each caption.

    A clip is a youtube_id with its start_time, and is named <youtube_id>_<start_time>. Its
    recording may lie anywhere below `audio`, as wav, flac, ogg or mp3, under the names of
    `audio_names`. A caption that two people wrote alike is kept twice; a row whose audiocap_id was
    there before is left out.

    Raises DataError where the table or the folder cannot be read, or no clip is left.
    """
    table = find_table(captions, "*.csv")
    folder = AudioFolder(audio)
    collector = ClipCollector(folder.root)
    clips: dict[tuple[str, str], _Rows] = {}
    starts: dict[str, set[str]] = {}
    for where, row in read_rows(table, collector.report, ("youtube_id", "start_time", "caption")):
        youtube_id, start = row["youtube_id"].strip(), row["start_time"].strip()
        number = row.get("audiocap_id", "").strip()
        if not youtube_id or not start:
            collector.report(where, "has no youtube_id or no start_time")
        elif not (number and collector.is_repeated(where, f"audiocap_id {number}")):
            clips.setdefault((youtube_id, start), _Rows(where)).captions.append(row["caption"])
            starts.setdefault(youtube_id, set()).add(start)
    for (youtube_id, start), rows in clips.items():
        stems = audio_names(youtube_id, start, only_clip=len(starts[youtube_id]) == 1)
        found = folder.find_stem(stems)
        collector.add(rows.where, f"{youtube_id}_{start}", found, rows.captions)
    return collector.finish(table)


def audio_names(youtube_id: str, start: str, only_clip: bool = True) -> list[str]:
    """What a recording may be called, without ending, the most exact name first.

    <id>_<start>_<end>, <id>_<start> and <id>, each also with the letter Y before it, start and end
    in seconds or milliseconds. The bare id only where it has a single clip in the table.
    """
    times = [f"_{start}"]
    if start.isdigit():
        seconds = int(start)
        times = [
            f"_{start}_{seconds + SECONDS}",
            f"_{1000 * seconds}_{1000 * (seconds + SECONDS)}",
            f"_{start}",
            f"_{1000 * seconds}",
        ]
    if only_clip:
        times.append("")
    return [f"{letter}{youtube_id}{time}" for time in times for letter in ("Y", "")]
