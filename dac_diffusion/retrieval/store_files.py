"""The three files of a datastore's folder (datastore.py), with checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dac_diffusion.errors import DataError, MissingExtraError
from dac_diffusion.files import check_replaceable
from dac_diffusion.retrieval.caption_lines import CaptionLines

VERSION = 1
VECTORS_FILE, CAPTIONS_FILE, HEAD_FILE = "vectors.faiss", "captions.jsonl", "datastore.json"
FLAT_INNER_PRODUCT = b"IxFI"  # how faiss begins the file of an IndexFlatIP
CHUNK = 1 << 20
AGAIN = "make the datastore again with `dac-diffusion prepare datastore`"


def check_folder(folder: str | Path) -> None:
    """Raise DataError where a datastore written to `folder` would delete anything but another."""
    check_replaceable(folder, (Path(folder) / HEAD_FILE).exists())


def write_files(folder: Path, index: Any, lines: CaptionLines, space: str) -> None:
    """Write the files of a datastore into an empty folder; raises OSError."""
    faiss = import_faiss()
    head = {"version": VERSION, "space": space, "captions": len(lines), "dimension": index.d}
    digest = hashlib.sha256()
    with (folder / VECTORS_FILE).open("wb") as file:

        def write(part: bytes) -> None:
            digest.update(part)
            file.write(part)

        # Through our file: of a disk that is full in the end, faiss's own one says nothing.
        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
    head[f"{VECTORS_FILE}_sha256"] = digest.hexdigest()
    (folder / CAPTIONS_FILE).write_bytes(lines.data)
    head[f"{CAPTIONS_FILE}_sha256"] = hashlib.sha256(lines.data).hexdigest()
    (folder / HEAD_FILE).write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")


def read_files(folder: Path, space: str | None) -> tuple[Any, CaptionLines, str]:
    """Index (mapped), lines and the space's fingerprint; `space` is what that must be.

    Raises DataError, in one line, for everything that CaptionDatastore.open names.
    """
    faiss = import_faiss()
    head = _read_head(folder)
    if space is not None and head["space"] != space:
        raise DataError(
            f"{folder}: its vectors are of another joint audio-text space than this model's; "
            f"{AGAIN} and this model"
        )
    for name in (VECTORS_FILE, CAPTIONS_FILE):
        _check_file(folder / name, head[f"{name}_sha256"])
    index = _read_index(faiss, folder / VECTORS_FILE)
    lines = CaptionLines.open(folder / CAPTIONS_FILE)
    if (index.ntotal, index.d, len(lines)) != (
        head["captions"],
        head["dimension"],
        head["captions"],
    ):
        raise DataError(
            f"{folder}: holds {index.ntotal} vectors of {index.d} numbers and {len(lines)} "
            f"captions, but {HEAD_FILE} says {head['captions']} of {head['dimension']}; {AGAIN}"
        )
    if len(lines) == 0:
        raise DataError(f"{folder}: is empty; {AGAIN} from tables that hold captions")
    return index, lines, head["space"]


def import_faiss() -> Any:
    """The library; raises MissingExtraError."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            "retrieval needs the package faiss-cpu: pip install 'dac-diffusion[retrieval]'"
        ) from error
    return faiss


def _read_head(folder: Path) -> dict[str, Any]:
    path = folder / HEAD_FILE
    if not path.is_file():
        raise DataError(
            f"{folder}: is no datastore, it has no {HEAD_FILE}; make one with "
            "`dac-diffusion prepare datastore`"
        )
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise DataError(f"{path}: damaged, no valid JSON ({error}); {AGAIN}") from error
    version = head.get("version") if isinstance(head, dict) else None
    if version != VERSION:
        raise DataError(
            f"{path}: is of version {version}, this installation reads {VERSION}; {AGAIN}"
        )
    kinds: dict[str, type] = {"space": str, "captions": int, "dimension": int}
    kinds |= {f"{name}_sha256": str for name in (VECTORS_FILE, CAPTIONS_FILE)}
    for name, kind in kinds.items():
        if not isinstance(head.get(name), kind):
            raise DataError(f"{path}: damaged, {name} is {head.get(name)!r}; {AGAIN}")
    return dict(head)


def _check_file(path: Path, checksum: str) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                digest.update(part)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing; copy the whole datastore again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if digest.hexdigest() != checksum:
        raise DataError(
            f"{path}: is damaged, cut off, or of another datastore than {HEAD_FILE} beside it; "
            "copy the whole datastore again"
        )


def _read_index(faiss: Any, path: Path) -> Any:
    """The index, mapped; no other kind of index gets as far as faiss's reader."""
    with path.open("rb") as file:
        kind = file.read(len(FLAT_INNER_PRODUCT))
    if kind != FLAT_INNER_PRODUCT:
        raise DataError(f"{path}: is no IndexFlatIP of faiss but begins with {kind!r}; {AGAIN}")
    try:
        # IO_FLAG_MMAP maps inverted lists only; this one maps flat indexes as well.
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except Exception as error:  # what kind depends on what is wrong, and on SWIG
        reason = " ".join(str(error).split())[-160:]
        raise DataError(f"{path}: faiss cannot read it ({reason}); {AGAIN}") from error
    if type(index) is not faiss.IndexFlatIP:
        raise DataError(f"{path}: is no IndexFlatIP but a {type(index).__name__}; {AGAIN}")
    return index
