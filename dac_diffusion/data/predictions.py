"""Readers of predicted captions, and their pairing with the references of the same recordings."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dac_diffusion.errors import DataError
from dac_diffusion.text.words import tokenize

CSV_COLUMNS = ("file_name", "caption_predicted")
NAMES_IN_ERRORS = 5
_YOUTUBE_CLIP = re.compile(r"([\w-]{11})_\d+", re.ASCII)  # as read_captions names AudioCaps' clips
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")  # "wind 3.5 km.wav" loses .wav and nothing else


@dataclass(frozen=True)
class Predictions:
    """The captions of a prediction file by recording, best first, in the file's order.

    A recording for which no words were found has one empty caption. failed: recordings that could
    not be captioned, with the reason; they have no captions.
    """

    path: Path
    captions: dict[str, list[str]]
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """The captions of one recording, best first, with its references."""

    file_name: str
    reference_name: str
    captions: list[str]
    references: list[str]


@dataclass(frozen=True)
class Pairing:
    """What is scored, in the order of the predictions, and the names that have no counterpart."""

    predictions: Predictions
    clips: list[Clip]
    without_references: list[str]
    without_prediction: list[str]


def read_predictions(path: str | Path) -> Predictions:
    """Read DCASE's CSV (file_name,caption_predicted) or the jsonl that `caption` writes.

    Jsonl: one object per line, {"file_name": ..., "captions": [{"text": ..., "score": ...}, ...]},
    best first; or {"file_name": ..., "error": ...} for a recording that could not be captioned. A
    file that begins with "{" or "[" is taken for jsonl, any other for a CSV. Scores are not used.
    Raises DataError, with the line, for anything else.
    """
    path = Path(path)
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty; it should hold predicted captions")
    is_json = text.lstrip()[0] in "{["
    predictions = (_read_jsonl if is_json else _read_csv)(path, text)
    if not predictions.captions:
        failed = f"; all {len(predictions.failed)} recordings failed" if predictions.failed else ""
        raise DataError(f"{path}: holds no predicted captions{failed}")
    return predictions


def pair(
    predictions: Predictions,
    references: Mapping[str, Sequence[str]],
    allow_missing: bool = False,
) -> Pairing:
    """Find the references of every predicted recording, by the names of the recordings.

    Names are compared exactly; what is left, without folder and extension, where that leaves one
    counterpart. AudioCaps' <youtube_id>_<start_time> is also found under <youtube_id>, both also
    with a leading Y. References without words are left out. Raises DataError where a name fits
    several counterparts, a predicted recording has no reference with words, no clip is left, and,
    unless `allow_missing`, where a prediction or a reference has no counterpart.
    """
    found = _find_references(predictions, references)
    clips = [
        Clip(name, found[name], captions, _with_words(found[name], references[found[name]]))
        for name, captions in predictions.captions.items()
        if name in found
    ]
    without_references = [name for name in predictions.captions if name not in found]
    taken = set(found.values())
    without_prediction = [name for name in references if name not in taken]
    if not clips or not allow_missing:
        _check_complete(predictions, len(clips), without_references, without_prediction)
    return Pairing(predictions, clips, without_references, without_prediction)


def shared_clips(pairings: Sequence[Pairing]) -> list[list[Clip]]:
    """The clips of each pairing whose references all of them have, each in its own order.

    Raises DataError where there are none.
    """
    names = [{clip.reference_name for clip in pairing.clips} for pairing in pairings]
    shared = set.intersection(*names)
    if not shared:
        paths = " and ".join(str(pairing.predictions.path) for pairing in pairings)
        raise DataError(f"{paths}: have no clip in common; give predictions for the same clips")
    return [[c for c in pairing.clips if c.reference_name in shared] for pairing in pairings]


def _find_references(
    predictions: Predictions, references: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The reference's name for each prediction that has one."""
    found = {name: name for name in predictions.captions if name in references}
    by_key: dict[str, list[str]] = {}
    for reference in references:
        if reference not in found:
            for key in _reference_keys(reference):
                by_key.setdefault(key, []).append(reference)
    taken: dict[str, str] = {}  # the reference -> the prediction
    for name in predictions.captions:
        if name in found:
            continue
        fitting = dict.fromkeys(r for key in _keys(name) for r in by_key.get(key, ()))
        if len(fitting) > 1:
            raise DataError(
                f"{predictions.path}: '{name}' fits several references ({_some(list(fitting))}); "
                "name the recording as the references do"
            )
        for reference in fitting:
            if reference in taken:
                raise DataError(
                    f"{predictions.path}: '{taken[reference]}' and '{name}' both fit the reference "
                    f"'{reference}'; name the recordings as the references do"
                )
            taken[reference] = name
            found[name] = reference
    return found


def _keys(name: str) -> list[str]:
    """A name without its folder, and without its extension too."""
    base = re.split(r"[/\\]", name)[-1]
    return list(dict.fromkeys((base, _EXTENSION.sub("", base))))


def _reference_keys(name: str) -> list[str]:
    keys = _keys(name)
    youtube = _YOUTUBE_CLIP.fullmatch(name)
    return [*keys, youtube[1], f"Y{youtube[1]}", f"Y{name}"] if youtube else keys


def _check_complete(
    predictions: Predictions,
    pairs: int,
    without_references: Sequence[str],
    without_prediction: Sequence[str],
) -> None:
    faults = []
    if without_references:
        faults.append(
            f"{len(without_references)} predictions have no references "
            f"({_some(without_references)})"
        )
    if without_prediction:
        failed = f"; {len(predictions.failed)} failed in captioning" if predictions.failed else ""
        faults.append(
            f"{len(without_prediction)} references have no prediction "
            f"({_some(without_prediction)}{failed})"
        )
    if faults:
        way_out = (
            f"or give --allow-missing to score only the {pairs} that have both"
            if pairs
            else "as no name is in both"
        )
        raise DataError(
            f"{predictions.path}: {' and '.join(faults)}; correct the file names, {way_out}"
        )


def _with_words(name: str, references: Sequence[str]) -> list[str]:
    kept = [reference for reference in references if tokenize(reference)]
    if not kept:
        raise DataError(f"the references of '{name}' hold no words; correct or remove this clip")
    return kept


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NAMES_IN_ERRORS else ""
    return ", ".join(names[:NAMES_IN_ERRORS]) + more


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8"
        ) from error


def _read_csv(path: Path, text: str) -> Predictions:
    # Strict, because an open quote would otherwise swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    captions: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    try:
        columns = next(reader)
        missing = [name for name in CSV_COLUMNS if name not in columns]
        if missing:
            raise DataError(
                f"{path}, line 1: no column {' and '.join(missing)}; the columns should be "
                f"{','.join(CSV_COLUMNS)}, found: {', '.join(columns)}"
            )
        name_at, caption_at = (columns.index(name) for name in CSV_COLUMNS)
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} columns where the first line has "
                    f"{len(columns)}; put captions with commas in double quotes"
                )
            _add(path, captions, lines, row[name_at], [row[caption_at]], reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: is no CSV ({error}); check its double quotes"
        ) from error
    return Predictions(path, captions)


def _read_jsonl(path: Path, text: str) -> Predictions:
    captions: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    lines: dict[str, int] = {}
    # Not splitlines: it also cuts at characters that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}: is no JSON ({error}); each line should be one object"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise DataError(f'{where}: should be an object with a text under "file_name"')
        name, error_text = row["file_name"], row.get("error")
        if error_text and not row.get("captions"):
            _add(path, {}, lines, name, [], number)
            failed[name] = str(error_text)
        else:
            _add(path, captions, lines, name, _texts(row, where), number)
    return Predictions(path, captions, failed)


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    entries = row.get("captions")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("text"), str) for entry in entries
    ):
        raise DataError(
            f'{where}: "captions" should be a list of objects with a "text", best first, as '
            "`dac-diffusion caption --format jsonl` writes them"
        )
    return [entry["text"] for entry in entries] or [""]


def _add(
    path: Path,
    captions: dict[str, list[str]],
    lines: dict[str, int],
    name: str,
    texts: list[str],
    line: int,
) -> None:
    """Enter a recording; raises DataError for a name that is empty or was there before."""
    if not name.strip():
        raise DataError(f"{path}, line {line}: the file name is empty")
    if name in lines:
        raise DataError(
            f"{path}, line {line}: '{name}' was already on line {lines[name]}; keep one of them"
        )
    lines[name] = line
    captions[name] = texts
