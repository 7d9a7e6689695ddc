from pathlib import Path

import pytest

from dac_diffusion.data.tables import read_captions
from dac_diffusion.errors import DataError

ROOT = Path(__file__).parents[2]
REAL_CAPTIONS = ROOT / "../shared/data/captions"


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_clotho(tmp_path: Path) -> None:
    rows = [
        "file_name,caption_1,caption_2",
        '"a, b.wav",  A dog barks. ,',
        'c.wav,Rain,"Hail, hard"',
    ]
    text = "\r\n".join(rows)
    assert read_captions(table(tmp_path, text)) == {
        "a, b.wav": ["A dog barks."],
        "c.wav": ["Rain", "Hail, hard"],
    }


def test_audiocaps(tmp_path: Path) -> None:
    text = "audiocap_id,youtube_id,start_time,caption\n1,x,30,Dogs\n2,y,0,Cats\n3,x,30,A dog\n"
    assert read_captions(table(tmp_path, text)) == {"x_30": ["Dogs", "A dog"], "y_0": ["Cats"]}


def test_rows_may_be_short(tmp_path: Path) -> None:
    assert read_captions(table(tmp_path, "file_name,caption_1,caption_2\na.wav,Rain\n")) == {
        "a.wav": ["Rain"]
    }
    assert read_captions(table(tmp_path, "youtube_id,start_time,caption\nx,30\n")) == {"x_30": [""]}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    text = "file_name,caption_1\na.wav,Café\n".encode("utf-8-sig")
    assert read_captions(table(tmp_path, text)) == {"a.wav": ["Café"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        (b"file_name,caption_1\n\xff\xfe,x\n", "cannot be read"),
        ("", "found: none"),
        ("file_name,text\na,b\n", "found: file_name, text"),
        ("caption_1\nb\n", "found: caption_1"),
    ],
)
def test_other_files_are_errors_of_one_line(
    tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    path = tmp_path / "captions.csv" if text is None else table(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not REAL_CAPTIONS.is_dir(), reason="needs ../shared/data/captions")
def test_the_published_tables() -> None:
    (audiocaps,) = (REAL_CAPTIONS / "audiocaps").glob("val*.csv")
    captions = read_captions(audiocaps)
    assert sum(len(group) for group in captions.values()) == 2475
    (clotho,) = (REAL_CAPTIONS / "clotho").glob("*evaluation*.csv")
    captions = read_captions(clotho)
    assert len(captions) == 1045
    assert {len(group) for group in captions.values()} == {5}
