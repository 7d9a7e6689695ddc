"""Datastores made of caption tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.data.datastore_preparation import make_datastore, prepare_datastore
from dac_diffusion.errors import DacError, DataError
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.text.tokenizer import train_tokenizer

CLOTHO = "file_name,caption_1,caption_2\na.wav,A dog barks.,A  dog howls.\nb.wav,Rain falls.,\n"
AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n1,xyz,30,Wind blows\n2,xyz,30,Rain falls.\n"
TOKENIZER = train_tokenizer(["a dog barks howls rain falls wind blows"], 100)


class LetterCounts:
    """How often each letter stands in a text, of unit length; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        counts = [[text.lower().count(letter) for letter in "abdfhlnorsw"] for text in texts]
        return F.normalize(torch.tensor(counts, dtype=torch.float32), dim=-1)


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "clotho.csv", tmp_path / "audiocaps.csv"]
    for path, text in zip(paths, (CLOTHO, AUDIOCAPS), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_tables_become_one_datastore(tables: list[Path], tmp_path: Path) -> None:
    embed = LetterCounts()
    prepared = prepare_datastore(
        tables, embed, "letters", tmp_path / "store", TOKENIZER, progress=False
    )
    assert (len(prepared.datastore), prepared.too_long) == (5, 0)
    assert embed.asked == ["A dog barks.", "A dog howls.", "Rain falls.", "Wind blows"]
    store = CaptionDatastore.open(tmp_path / "store", "letters")
    for text, own, expected in (
        ("wind blows", None, "Wind blows"),
        ("wind blows", "xyz_30", "A dog howls."),
        ("rain falls", "xyz_30", "Rain falls."),
        ("a dog barks", "a.wav", "Rain falls."),
    ):
        (result,) = store.search(LetterCounts()([text]), 1, [own])
        assert result.captions == (expected,)


def test_long_captions_are_left_out(tables: list[Path], tmp_path: Path) -> None:
    texts = {"x": ["a dog barks", "rain falls", "wind"], "y": ["rain falls", "??", "wind", "wind"]}
    for longest, kept, too_long in ((3, 5, 0), (2, 4, 1), (1, 2, 3)):
        prepared = make_datastore(texts, LetterCounts(), "", TOKENIZER, longest, progress=False)
        assert (len(prepared.datastore), prepared.too_long) == (kept, too_long)
    with pytest.raises(DataError, match="none of 5 captions has at most 1 tokens; raise that"):
        prepare_datastore(tables, LetterCounts(), "", tmp_path / "s", TOKENIZER, 1, progress=False)
    assert not (tmp_path / "s").exists()


def test_tables_without_captions(tmp_path: Path, tables: list[Path]) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("file_name,caption_1\na.wav,...\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty.csv: no captions; give a table that has some"):
        prepare_datastore([empty], LetterCounts(), "", tmp_path / "s", TOKENIZER)


def test_a_folder_that_cannot_be_written_is_told_at_once(
    tmp_path: Path, tables: list[Path]
) -> None:
    folder, embed = tables[0] / "store", LetterCounts()
    with pytest.raises(DacError, match="cannot be created"):
        prepare_datastore(tables, embed, "", folder, TOKENIZER, progress=False)
    assert embed.asked == []


def test_other_folders_are_not_replaced(tmp_path: Path, tables: list[Path]) -> None:
    embed = LetterCounts()
    with pytest.raises(DataError, match=r"holds something else; choose another output folder"):
        prepare_datastore(tables, embed, "", tmp_path, TOKENIZER, progress=False)
    assert embed.asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audiocaps.csv", "clotho.csv"]
    for texts in (tables[:1], tables):
        made = prepare_datastore(texts, embed, "", tmp_path / "s", TOKENIZER, progress=False)
    assert len(CaptionDatastore.open(tmp_path / "s")) == len(made.datastore) == 5
    with pytest.raises(DataError, match="holds something else"):
        made.datastore.save(tmp_path)
