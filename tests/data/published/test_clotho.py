"""Clotho's tables and folders."""

import csv
from pathlib import Path

import pytest

from dac_diffusion.data.published.clotho import read_clotho
from dac_diffusion.errors import DataError
from tests.data.published.conftest import MakeFiles

SHARED = Path(__file__).parents[3] / "../shared/data"
HEADER = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6)) + "\n"
FIVE = "one,two,three,four,five"


def test_five_captions_in_their_order(audio: MakeFiles, table: MakeFiles) -> None:
    swapped = "caption_2,file_name,caption_10,caption_1\r\n"
    path = table(swapped + 'two," a, b.wav",ten,one\r\n', "clotho_captions_development.csv")
    (clip,) = read_clotho(path, audio("a, b.wav")).clips
    assert (clip.name, clip.captions) == ("a, b.wav", ("one", "two", "ten"))


def test_the_folder_of_the_split_counts(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio("development/a.wav", "evaluation/a.wav", "clotho/evaluation/b.wav")
    rows = f"{HEADER}a.wav,{FIVE}\nb.wav,{FIVE}\n"
    for split in ("development", "evaluation"):
        dataset = read_clotho(table(rows, f"clotho_captions_{split}.csv"), folder)
        assert [clip.path.parent.name for clip in dataset.clips] == [split, "evaluation"]
    dataset = read_clotho(table(rows, "captions.csv"), folder)
    assert [clip.name for clip in dataset.clips] == ["b.wav"]
    assert "several recordings fit 'a.wav'" in dataset.problems[0]


def test_converted_recordings_are_found_and_the_original_is_preferred(
    audio: MakeFiles, table: MakeFiles
) -> None:
    folder = audio("a.b.flac", "c.wav", "c.ogg", "Cafe\u0301.wav")  # e and its accent: macOS
    path = table(f"{HEADER}a.b.wav,{FIVE}\nc.wav,{FIVE}\nCaf\u00e9.wav,{FIVE}\n")
    dataset = read_clotho(path, folder)
    assert [clip.path.name for clip in dataset.clips] == ["a.b.flac", "c.wav", "Cafe\u0301.wav"]
    assert dataset.clips[2].name == "Caf\u00e9.wav"


def test_faulty_rows(audio: MakeFiles, table: MakeFiles) -> None:
    rows = [
        f"a.wav,{FIVE}",
        f"a.wav,{FIVE}",
        "b.wav,one,two,,four,five",
        f",{FIVE}",
        "c.wav,one",
        f"d.wav,{FIVE},,",
        f"gone.wav,{FIVE}",
    ]
    folder = audio("a.wav", "b.wav", "c.wav", "d.wav")
    dataset = read_clotho(table(HEADER + "\n".join(rows)), folder)
    assert [(clip.name, len(clip.captions)) for clip in dataset.clips] == [
        *(("a.wav", 5), ("b.wav", 4), ("d.wav", 5))
    ]
    assert dataset.problems == (
        "captions.csv, line 3: 'a.wav' was already in captions.csv, line 2; that one is used",
        "captions.csv, line 4: 1 of 5 captions of 'b.wav' hold no words",
        "captions.csv, line 5: has no file_name",
        "captions.csv, line 6: 2 columns where the first line has 6; "
        "put captions with commas in double quotes",
        f"captions.csv, line 8: no recording of 'gone.wav' in {folder}",
    )


def test_one_row_in_another_encoding(audio: MakeFiles, table: MakeFiles) -> None:
    rows = "é.wav,un été,two,three,four,five\n".encode("latin-1")
    rows += "ü.wav,ein Gerät,„zwei“,drei,vier,fünf\n".encode()
    dataset = read_clotho(table(HEADER.encode() + rows), audio("é.wav", "ü.wav"))
    assert [clip.captions[0] for clip in dataset.clips] == ["un été", "ein Gerät"]
    assert dataset.clips[1].captions[1] == "„zwei“"
    assert dataset.problems == ("captions.csv, line 2: is not UTF-8; read as Windows-1252",)


def test_a_table_without_its_columns(audio: MakeFiles, table: MakeFiles) -> None:
    with pytest.raises(DataError, match="has no column caption_1; found: file_name, caption"):
        read_clotho(table("file_name,caption\na.wav,Rain\n"), audio("a.wav"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_sample() -> None:
    folder = SHARED / "clotho_sample"
    dataset = read_clotho(folder, folder)
    assert dataset.problems == ()
    assert len(dataset.clips) == 5
    assert {len(clip.captions) for clip in dataset.clips} == {5}
    assert all(clip.path.is_file() for clip in dataset.clips)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("split", "clips"), [("development", 2893), ("evaluation", 1045)])
def test_the_published_tables(audio: MakeFiles, split: str, clips: int) -> None:
    path = SHARED / f"captions/clotho/clotho_captions_{split}.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    dataset = read_clotho(path, audio(*(f"{split}/{row[0]}" for row in rows)))
    assert dataset.problems == ()
    assert [(clip.name, *clip.captions) for clip in dataset.clips] == [
        (row[0], *(" ".join(caption.split()) for caption in row[1:])) for row in rows
    ]
    assert len(rows) == clips
