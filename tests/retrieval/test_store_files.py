"""The files of a datastore: what is mapped, and what is wrong with others."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from dac_diffusion.errors import DacError, DataError, MissingExtraError
from dac_diffusion.retrieval.caption_lines import CaptionLines
from dac_diffusion.retrieval.datastore import CaptionDatastore
from tests.retrieval.tiny_stores import (
    DIMENSION,
    SIZE,
    SPACE,
    found,
    line_store,
    random_store,
    unit_vectors,
)


def test_saved_and_opened_again_it_finds_the_same(tmp_path: Path) -> None:
    store, queries = random_store(), unit_vectors(20, 5)
    store.save(tmp_path / "store")
    opened = CaptionDatastore.open(tmp_path / "store", SPACE)
    assert (len(opened), opened.dimension, opened.space) == (SIZE, DIMENSION, SPACE)
    own = ["clip 3"] * 20
    assert opened.search(queries, 4, own) == store.search(queries, 4, own)
    line_store("ab").save(tmp_path / "store")  # in place of the older one, which stays open
    assert len(CaptionDatastore.open(tmp_path / "store")) == 2
    assert opened.search(queries, 4, own) == store.search(queries, 4, own)


def test_faiss_reads_the_vectors_as_they_are(tmp_path: Path) -> None:
    random_store().save(tmp_path / "store")
    index = faiss.read_index(str(tmp_path / "store" / "vectors.faiss"))
    assert type(index) is faiss.IndexFlatIP
    np.testing.assert_array_equal(index.reconstruct_n(0, SIZE), unit_vectors(SIZE, 0).numpy())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped")
def test_the_files_are_mapped(tmp_path: Path) -> None:
    random_store().save(tmp_path / "store")
    opened = CaptionDatastore.open(tmp_path / "store")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    for name in ("vectors.faiss", "captions.jsonl"):
        assert str(tmp_path / "store" / name) in maps
    assert len(opened) == SIZE


def test_captions_of_any_characters(tmp_path: Path) -> None:
    captions = ['a "dog"\nbarks', "дождь\u2028", "\ud800 half", ""]
    clips = ["ä.wav", "b\n", "c", "d"]
    store = CaptionDatastore.build(captions, clips, unit_vectors(4, 6), SPACE)
    store.save(tmp_path / "store")
    opened = CaptionDatastore.open(tmp_path / "store")
    (result,) = opened.search(unit_vectors(1, 7), 4)
    assert {captions[place] for place in result.places} == set(result.captions) == set(captions)
    assert len(opened.search(unit_vectors(1, 7), 4, ["b\n"])[0].places) == 3


# -- what goes wrong


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    line_store("abc").save(tmp_path / "store")
    return tmp_path / "store"


def fails(folder: Path, message: str, space: str | None = None) -> None:
    with pytest.raises(DataError, match=message) as caught:
        CaptionDatastore.open(folder, space)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def rewrite_head(folder: Path, **changes: object) -> None:
    path = folder / "datastore.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sign(folder: Path) -> None:
    """Make the checksums fit whatever the files are now."""
    names = ("vectors.faiss", "captions.jsonl")
    sums = {f"{n}_sha256": hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}
    rewrite_head(folder, **sums)


def test_a_folder_that_is_no_datastore(tmp_path: Path) -> None:
    fails(tmp_path, "is no datastore, it has no datastore.json; make one with")
    fails(tmp_path / "missing", "is no datastore")


def test_a_damaged_head(folder: Path) -> None:
    path = folder / "datastore.json"
    good = path.read_text()
    path.write_text(good[:-10])
    fails(folder, "datastore.json: damaged, no valid JSON")
    path.write_text("[]")
    fails(folder, "is of version None, this installation reads 1; make the datastore again")
    path.write_text(good)
    rewrite_head(folder, version=2)
    fails(folder, "is of version 2")
    path.write_text(good)
    rewrite_head(folder, captions="3")
    fails(folder, "damaged, captions is '3'")


def test_another_space(folder: Path) -> None:
    fails(folder, "another joint audio-text space than this model's; make the datastore", "other")


@pytest.mark.parametrize("name", ["vectors.faiss", "captions.jsonl"])
def test_files_that_are_missing_cut_off_or_swapped(folder: Path, name: str, tmp_path: Path) -> None:
    good = (folder / name).read_bytes()
    changed = good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]
    line_store("abd", "xyz").save(tmp_path / "other")
    random_vectors = CaptionDatastore.build(list("abc"), list("xxx"), unit_vectors(3, 0, 2), SPACE)
    random_vectors.save(tmp_path / "other_vectors")
    swapped = tmp_path / ("other" if name == "captions.jsonl" else "other_vectors") / name
    for content in (good[:-1], b"", changed, swapped.read_bytes()):
        (folder / name).write_bytes(content)
        fails(folder, f"{name}: is damaged, cut off, or of another datastore")
    (folder / name).unlink()
    fails(folder, f"{name}: is missing; copy the whole datastore again")


def test_vectors_and_captions_that_do_not_match(folder: Path, tmp_path: Path) -> None:
    line_store("abcd").save(tmp_path / "other")
    (folder / "captions.jsonl").write_bytes((tmp_path / "other/captions.jsonl").read_bytes())
    sign(folder)
    fails(folder, "holds 3 vectors of 2 numbers and 4 captions, but datastore.json says 3 of 2")
    line_store("abc").save(folder)
    rewrite_head(folder, dimension=5)
    fails(folder, "holds 3 vectors of 2 numbers and 3 captions, but datastore.json says 3 of 5")


def test_another_kind_of_index(folder: Path) -> None:
    path = folder / "vectors.faiss"
    for index, message in (
        (faiss.IndexFlatL2(2), "is no IndexFlatIP of faiss but begins with b'IxF2'"),
        (faiss.IndexHNSWFlat(2, 4), "is no IndexFlatIP of faiss but begins with b'IHNf'"),
    ):
        index.add(np.eye(3, 2, dtype=np.float32))
        faiss.write_index(index, str(path))
        sign(folder)
        fails(folder, message)
    path.write_bytes(b"")
    sign(folder)
    fails(folder, "begins with b''")
    path.write_bytes(b"IxFI" + b"\0" * 20)
    sign(folder)
    fails(folder, r"faiss cannot read it \(.+\); make the datastore again")


def test_an_empty_datastore(folder: Path) -> None:
    faiss.write_index(faiss.IndexFlatIP(2), str(folder / "vectors.faiss"))
    (folder / "captions.jsonl").write_bytes(b"")
    sign(folder)
    rewrite_head(folder, captions=0)
    fails(folder, "is empty; make the datastore again .+ from tables that hold captions")
    with pytest.raises(DataError, match="needs captions, and there are none"):
        CaptionDatastore.build([], [], torch.zeros(0, 2), SPACE)


def test_lines_that_are_no_captions(folder: Path) -> None:
    path = folder / "captions.jsonl"
    for content, message in (
        ('{"clip": "x"}\n' * 3, "line 1 is no clip with a caption; make the datastore again"),
        ('{"clip": 1, "caption": "a"}\n' * 3, "line 1 is no clip with a caption"),
        ("nothing\n" * 3, "line 1 is no clip with a caption"),
    ):
        path.write_text(content)
        sign(folder)
        with pytest.raises(DataError, match=message):
            found(CaptionDatastore.open(folder), 1)
    path.write_text('{"clip": "x", "caption": "a"}')
    sign(folder)
    fails(folder, "captions.jsonl: its last line is cut off")


def test_without_faiss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: line_store("abc"), lambda: CaptionDatastore.open(folder)):
        with pytest.raises(MissingExtraError, match=r"pip install 'dac-diffusion\[retrieval\]'"):
            call()


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store = line_store("abc")
    store.save(tmp_path / "store")
    with pytest.raises(DacError, match=r"the folder .+ does not exist; create it first"):
        store.save(tmp_path / "missing" / "store")
    long = CaptionDatastore.build(["long " * 5000], ["x"], unit_vectors(1, 0, 1000), SPACE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (1000, 10000):  # stops the vectors, then the captions
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(DacError, match=r"store: cannot be written \(File too large"):
                long.save(tmp_path / "store")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(CaptionDatastore.open(tmp_path / "store")) == 3


def test_lines_are_read_by_place() -> None:
    lines = CaptionLines.join(["x", "y"], ["a", "b"])
    assert len(lines) == 2
    assert [lines[0], lines[1]] == [("x", "a"), ("y", "b")]
