"""The datastore of captions: search, own clips, duplicates, and its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.errors import DacError, DataError, MissingExtraError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.retrieval.caption_lines import CaptionLines
from dac_diffusion.retrieval.datastore import CaptionDatastore, Retrieved, space_fingerprint

SIZE, DIMENSION, SPACE = 400, 24, "of these tests"
Files = dict[str, bytes]


def unit_vectors(count: int, seed: int, dimension: int = DIMENSION) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


def random_store() -> CaptionDatastore:
    captions = [f"caption number {i}" for i in range(SIZE)]
    clips = [f"clip {i // 5}" for i in range(SIZE)]
    return CaptionDatastore.build(captions, clips, unit_vectors(SIZE, 0), SPACE)


def line_store(texts: str, clips: str | None = None) -> CaptionDatastore:
    """One-letter captions, the first the nearest to the query (1, 0), and so on, 1 degree apart."""
    angles = torch.arange(len(texts)) * torch.pi / 180
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    return CaptionDatastore.build(list(texts), list(clips or "x" * len(texts)), vectors, SPACE)


def found(store: CaptionDatastore, k: int, own: str | None = None, width: int = 15) -> str:
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), k, [own], width)
    return "".join(result.captions)


def brute_force(query: Tensor, own: str, k: int) -> list[int]:
    """Places in the random store, nearest first, by numpy alone."""
    scores = unit_vectors(SIZE, 0).numpy().astype(np.float64) @ query.numpy().astype(np.float64)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if f"clip {i // 5}" != own]
    return order[:k]


def test_search_is_exact() -> None:
    store, queries = random_store(), unit_vectors(40, 1)
    own = [f"clip {i}" for i in range(40)]
    for k, width in ((1, 1), (3, 15), (50, 15), (SIZE, 15)):
        results = store.search(queries, k, own, width)
        for query, name, result in zip(queries, own, results, strict=True):
            expected = brute_force(query, name, k)
            assert list(result.places) == expected
            assert list(result.captions) == [f"caption number {i}" for i in expected]
            cosines = (unit_vectors(SIZE, 0)[expected].double() @ query.double()).tolist()
            assert result.scores == pytest.approx(cosines, abs=1e-7)


def test_alone_or_in_a_batch_bit_for_bit() -> None:
    store, queries = random_store(), unit_vectors(64, 2)
    together = store.search(queries, 4, width=1)
    assert together == [store.search(query[None], 4, width=1)[0] for query in queries]
    assert together == store.search(queries, 4, width=100)
    assert store.search(queries.flip(0), 4)[::-1] == together


def test_the_length_of_a_query_is_of_no_account() -> None:
    store, queries = random_store(), unit_vectors(5, 3)
    (whole, scaled) = (store.search(v, 5) for v in (queries, queries * 16))
    assert [r.places for r in whole] == [r.places for r in scaled]
    for a, b in zip(whole, scaled, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-6)


def test_ties_go_to_the_earlier_caption_whatever_the_width() -> None:
    vector = unit_vectors(1, 4)
    captions = [f"word {i}" for i in range(300)]
    store = CaptionDatastore.build(captions, captions, vector.expand(300, -1), SPACE)
    for width in (1, 2, 15, 300):
        results = store.search(vector.expand(30, -1), 4, width=width)
        assert all(result.places == (0, 1, 2, 3) for result in results)


def test_own_captions_are_left_out() -> None:
    store = line_store("abcdef", "xyxyzz")
    assert found(store, 3) == "abc"
    assert found(store, 3, "x") == "bde"
    assert found(store, 3, "y") == "ace"
    assert found(store, 3, "another") == "abc"


def test_texts_that_read_alike_come_once() -> None:
    angles = torch.arange(5) * 0.01
    captions = ["A dog barks.", "a dog  barks", "Rain!", "a dog barks in rain", "rain"]
    store = CaptionDatastore.build(
        captions, list("abcde"), torch.stack([angles.cos(), angles.sin()], dim=1), SPACE
    )
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), 4)
    assert result.captions == ("A dog barks.", "Rain!", "a dog barks in rain")
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), 4, ["a"])
    assert result.captions == ("a dog  barks", "Rain!", "a dog barks in rain")


def test_texts_without_letters_are_compared_as_they_are() -> None:
    assert found(line_store("!??a"), 4) == "!?a"


def test_it_widens_until_enough_is_found() -> None:
    store = line_store("a" * 40 + "bbcd", "x" * 20 + "y" * 20 + "zzzz")
    assert found(store, 3, width=1) == "abc"
    assert found(store, 3, "y", width=2) == "abc"
    assert found(store, 3, "z", width=2) == "a"


def test_fewer_or_none_where_there_are_no_more() -> None:
    store = line_store("abab", "xyxy")
    assert found(store, 3) == "ab"
    assert found(store, 3, "x") == "b"
    assert store.search(torch.tensor([[1.0, 0.0]]), 3, ["q"])[0].places == (0, 1)
    alone = line_store("abc", "xxx")
    assert alone.search(torch.tensor([[1.0, 0.0]]), 3, ["x"]) == [Retrieved((), (), ())]


def test_no_queries_no_results() -> None:
    assert line_store("ab").search(torch.zeros(0, 2)) == []


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
    import hashlib

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


def test_vectors_that_make_no_sense() -> None:
    store = line_store("abc")
    with pytest.raises(DataError, match="holds vectors of 2 numbers, but this model's have 3"):
        store.search(torch.zeros(1, 3))
    for bad, length in ((0.0, "0"), (float("nan"), "nan"), (float("inf"), "inf")):
        queries = torch.tensor([[1.0, 0.0], [bad, 0.0]])
        with pytest.raises(DataError, match=f"clip 2 of 2 has length {length}, so no captions"):
            store.search(queries)
    for bad in (0.9, 0.0, float("nan")):
        with pytest.raises(DataError, match="the vector of the caption 'b' has length"):
            CaptionDatastore.build(["a", "b"], ["x", "y"], torch.tensor([[1.0], [bad]]), SPACE)


def test_arguments_that_make_no_sense() -> None:
    store = line_store("abc")
    with pytest.raises(ValueError, match="must be at least 1"):
        store.search(torch.ones(1, 2), k=0)
    with pytest.raises(ValueError, match="exclude names 2 clips for 1 queries"):
        store.search(torch.ones(1, 2), exclude=["a", "b"])
    with pytest.raises(ValueError, match="1 captions, 2 clips, 1 vectors"):
        CaptionDatastore.build(["a"], ["x", "y"], torch.ones(1, 1), SPACE)


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


def test_the_fingerprint_is_of_the_text_tower() -> None:
    torch.manual_seed(0)
    scorer = AudioTextScorer(40, 8, width=12, depth=1, max_length=6, embedding_dim=8)
    first = space_fingerprint(scorer)
    assert len(first) == 64
    assert space_fingerprint(scorer) == first
    with torch.no_grad():
        scorer.project_audio[0].weight.add_(1)  # type: ignore[operator]
        scorer.logit_scale.add_(1)
    assert space_fingerprint(scorer) == first
    half = AudioTextScorer(40, 8, width=12, depth=1, max_length=6, embedding_dim=8)
    half.load_state_dict(scorer.state_dict())
    assert space_fingerprint(half.to(torch.bfloat16)) == first
    with torch.no_grad():
        scorer.project_text.bias.add_(1)
    assert space_fingerprint(scorer) != first


def test_lines_are_read_by_place() -> None:
    lines = CaptionLines.join(["x", "y"], ["a", "b"])
    assert len(lines) == 2
    assert [lines[0], lines[1]] == [("x", "a"), ("y", "b")]
