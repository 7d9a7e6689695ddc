"""AudioCaps' table and the names its recordings go by."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from dac_diffusion.data.published.audiocaps import audio_names, read_audiocaps
from dac_diffusion.errors import DataError
from tests.data.published.conftest import MakeFiles

REAL = Path(__file__).parents[3] / "../shared/data/captions/audiocaps"
HEADER = "audiocap_id,youtube_id,start_time,caption\n"


def test_captions_of_a_clip_are_collected_in_the_order_of_the_table(
    audio: MakeFiles, table: MakeFiles
) -> None:
    path = table(HEADER + '7,b,30,A dog\n8,a,0,"Rain, hard"\n9,b,30,  Dogs  bark \n10,b,30,A dog\n')
    dataset = read_audiocaps(path, audio("Ya.wav", "b.flac"))
    assert [(clip.name, clip.path.name, clip.captions) for clip in dataset.clips] == [
        ("b_30", "b.flac", ("A dog", "Dogs bark", "A dog")),
        ("a_0", "Ya.wav", ("Rain, hard",)),
    ]
    assert dataset.problems == ()


@pytest.mark.parametrize(
    "name",
    [
        *("Y{}.wav", "{}.wav", "{}_30.wav", "Y{}_30.mp3", "{}.flac", "train/{}.ogg", "Y{}.WAV"),
        *("{}_30_40.wav", "Y{}_30000_40000.flac", "{}_30000.wav"),
    ],
)
def test_every_name_of_a_recording(audio: MakeFiles, table: MakeFiles, name: str) -> None:
    file_name = name.format("-Yx_30_3abc")
    (clip,) = read_audiocaps(table(HEADER + "1,-Yx_30_3abc,30,Rain\n"), audio(file_name)).clips
    assert clip.path.as_posix().endswith(f"audio/{file_name}")
    assert clip.name == "-Yx_30_3abc_30"


def test_other_names_are_not_taken(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio(
        "YX.wav", "x_3.wav", "x_300.wav", "x_30.txt", ".x.wav", "x_30.wav.part", "good.wav"
    )
    dataset = read_audiocaps(table(HEADER + "1,x,30,Rain\n2,good,0,Wind\n"), folder)
    assert [clip.name for clip in dataset.clips] == ["good_0"]
    assert dataset.problems == (f"captions.csv, line 2: no recording of 'x_30' in {folder}",)


def test_the_most_exact_name_and_the_first_ending_count(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio("Yx.wav", "x_30.flac", "x_30.ogg", "x.mp3")
    (clip,) = read_audiocaps(table(HEADER + "1,x,30,Rain\n"), folder).clips
    assert clip.path.name == "x_30.flac"
    assert audio_names("x", "30") == [
        *("Yx_30_40", "x_30_40", "Yx_30000_40000", "x_30000_40000"),
        *("Yx_30", "x_30", "Yx_30000", "x_30000", "Yx", "x"),
    ]


def test_a_bare_id_never_stands_for_two_clips_of_a_video(
    audio: MakeFiles, table: MakeFiles
) -> None:
    rows = HEADER + "1,x,30,Rain\n2,x,50,Wind\n"
    dataset = read_audiocaps(table(rows), audio("Yx.wav", "x_50.wav"))
    assert [(clip.name, clip.path.name) for clip in dataset.clips] == [("x_50", "x_50.wav")]
    assert "'x_30'" in dataset.problems[0]


def test_the_same_name_twice_is_left_out(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio("a/x.wav", "b/x.wav", "y.wav")
    dataset = read_audiocaps(table(HEADER + "1,x,30,Rain\n2,y,0,Wind\n"), folder)
    assert [clip.name for clip in dataset.clips] == ["y_0"]
    assert dataset.problems == (
        f"captions.csv, line 2: several recordings fit 'x_30' ({folder}/a/x.wav, {folder}/b/x.wav);"
        " keep one of them",
    )


def test_faulty_rows_are_named_and_left_out(audio: MakeFiles, table: MakeFiles) -> None:
    rows = [
        b"1,a,0,Rain falls",
        b"1,a,0,Rain falls",
        b"2,b",
        b"3,b,10,one, two",
        b"4,b,10,Caf\xe9 noise",
        b'5,b,10,"an open quote',
        b"",
        b"6,,10,Nobody",
        b"7,b,10,...",
        b"8,c,5, ",
        b'9,b,10,"two\r\nlines"',
    ]
    path = table(HEADER.encode() + b"\r\n".join(rows))
    folder = audio("a.wav", "b.wav", "c.wav")
    dataset = read_audiocaps(path, folder)
    assert [(clip.name, clip.captions) for clip in dataset.clips] == [
        ("a_0", ("Rain falls",)),
        ("b_10", ("Café noise", "two lines")),
    ]
    assert dataset.problems == (
        "captions.csv, line 6: is not UTF-8; read as Windows-1252",
        "captions.csv, line 3: 'audiocap_id 1' was already in captions.csv, line 2; "
        "that one is used",
        "captions.csv, line 4: 2 columns where the first line has 4; "
        "put captions with commas in double quotes",
        "captions.csv, line 5: 5 columns where the first line has 4; "
        "put captions with commas in double quotes",
        "captions.csv, line 7: is no CSV (unexpected end of data); check its quotes",
        "captions.csv, line 9: has no youtube_id or no start_time",
        "captions.csv, line 6: 1 of 3 captions of 'b_10' hold no words",
        "captions.csv, line 11: 1 of 1 captions of 'c_5' hold no words",
        "captions.csv, line 11: 'c_5' has no caption, so it is left out",
    )


def test_a_folder_with_one_table_and_one_with_several(audio: MakeFiles, table: MakeFiles) -> None:
    path = table(HEADER + "1,x,30,Rain\n", "train.csv")
    assert len(read_audiocaps(path.parent, audio("x.wav")).clips) == 1
    table(HEADER + "1,x,30,Rain\n", "val.csv")
    with pytest.raises(DataError, match=r"several tables \(train\.csv, val\.csv\); give the file"):
        read_audiocaps(path.parent, audio("x.wav"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("youtube_id,caption\nx,Rain\n", "has no column start_time; found: youtube_id, caption"),
        ("youtube_id;start_time;caption\n", "has no column youtube_id and start_time and caption"),
        (HEADER, "no clip is left$"),
        (HEADER + "1,y,30,Rain\n", "no clip is left, 1 problems, the first: captions.csv, line 2"),
        (HEADER.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ],
)
def test_what_cannot_be_used_at_all_is_an_error(
    audio: MakeFiles, table: MakeFiles, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_audiocaps(table(content), audio("x.wav"))
    assert "captions.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_there(audio: MakeFiles, table: MakeFiles, tmp_path: Path) -> None:
    path = table(HEADER + "1,x,30,Rain\n")
    with pytest.raises(DataError, match=r"nothing: does not exist"):
        read_audiocaps(path, tmp_path / "nothing")
    with pytest.raises(DataError, match=r"x\.wav: is a file; give the folder"):
        read_audiocaps(path, audio("x.wav") / "x.wav")
    with pytest.raises(DataError, match=r"no\.csv: cannot be read \(No such file"):
        read_audiocaps(tmp_path / "no.csv", audio("x.wav"))
    with pytest.raises(DataError, match=r"audio: holds no \*\.csv; give the file"):
        read_audiocaps(audio("x.wav"), audio("x.wav"))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/captions")
@pytest.mark.parametrize(("split", "clips", "each"), [("val", 495, 5), ("test", 975, 5)])
def test_the_published_tables(audio: MakeFiles, split: str, clips: int, each: int) -> None:
    with open(REAL / f"{split}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = Counter(row["youtube_id"] for row in rows)
    names = list(expected)
    folder = audio(*(f"{split}/Y{name}.wav" for name in names[1:]))
    dataset = read_audiocaps(REAL / f"{split}.csv", folder)
    assert len(dataset.clips) == clips - 1
    assert {len(clip.captions) for clip in dataset.clips} == {each}
    assert [clip.path.stem[1:] for clip in dataset.clips] == names[1:]
    assert len(dataset.problems) == 1
    assert names[0] in dataset.problems[0]
    captions = [caption for clip in dataset.clips for caption in clip.captions]
    of_table = [" ".join(r["caption"].split()) for r in rows if r["youtube_id"] != names[0]]
    assert Counter(captions) == Counter(of_table)
