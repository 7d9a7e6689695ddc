"""What `dac-diffusion caption` writes: text, jsonl, or DCASE's table."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from dac_diffusion.captioner import Caption, ClipCaptions

Writer = Callable[["ClipCaptions"], None]


def _text_writer(file: IO[str]) -> Writer:
    def write(clip: ClipCaptions) -> None:
        file.write(f"{_printable(clip.file_name)}  ({clip.duration_seconds:.1f} s)\n")
        for caption in clip.captions:
            file.write(f"  {caption.score:6.3f}  {caption.text}\n")
        if not clip.captions:
            file.write("  (the model found no words)\n")
        if clip.repeats_removed:
            file.write(f"  ({clip.repeats_removed} repeated words taken out of the candidates)\n")
        file.flush()

    return write


def _jsonl_writer(file: IO[str]) -> Writer:
    def write(clip: ClipCaptions) -> None:
        row: dict[str, object] = {
            "file_name": _printable(clip.file_name),
            "duration_seconds": round(clip.duration_seconds, 3),
            "captions": [_json_caption(caption) for caption in clip.captions],
        }
        if clip.repeats_removed:
            row["repeats_removed"] = clip.repeats_removed
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()

    return write


def _json_caption(caption: Caption) -> dict[str, object]:
    """Text, score, and the parts of the score that counted or are known."""
    row: dict[str, object] = {"text": caption.text, "score": round(caption.score, 4)}
    if caption.parts is not None:
        parts = vars(caption.parts).items()
        row["scores"] = {name: round(value, 4) for name, value in parts if value is not None}
    return row


def _csv_writer(file: IO[str]) -> Writer:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["file_name", "caption_predicted"])  # the DCASE columns

    def write(clip: ClipCaptions) -> None:
        best = clip.captions[0].text if clip.captions else ""
        rows.writerow([_printable(clip.file_name), best])
        file.flush()

    return write


def _printable(file_name: str) -> str:
    """A file name as UTF-8 text; bytes that are none become a replacement character."""
    return file_name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


WRITERS: dict[str, Callable[[IO[str]], Writer]] = {
    "text": _text_writer,
    "jsonl": _jsonl_writer,
    "csv": _csv_writer,
}
