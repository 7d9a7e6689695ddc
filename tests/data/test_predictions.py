"""Prediction files, good and bad, and their pairing with references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dac_diffusion.data.predictions import (
    Clip,
    Predictions,
    pair,
    read_predictions,
    shared_clips,
)
from dac_diffusion.data.tables import read_captions
from dac_diffusion.errors import DataError

REAL_CAPTIONS = Path(__file__).parents[2] / "../shared/data/captions"


def write(folder: Path, text: str | bytes, name: str = "predictions") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(name: str, *captions: str) -> str:
    entries = [{"text": text, "score": 0.5} for text in captions]
    return json.dumps({"file_name": name, "duration_seconds": 1.0, "captions": entries})


def predicted(*names: str) -> Predictions:
    return Predictions(Path("p.csv"), {name: [f"caption of {name}"] for name in names})


def names_of(predictions: Predictions, references: Sequence[str]) -> list[tuple[str, str]]:
    pairing = pair(predictions, {name: [f"reference of {name}"] for name in references})
    return [(clip.file_name, clip.reference_name) for clip in pairing.clips]


def test_dcase_csv(tmp_path: Path) -> None:
    text = 'file_name,caption_predicted\r\n"a, b.wav","Rain, hard"\r\n\r\nc.wav,\r\n'
    found = read_predictions(write(tmp_path, text))
    assert found.captions == {"a, b.wav": ["Rain, hard"], "c.wav": [""]}
    assert found.failed == {}


def test_csv_with_more_columns_in_another_order_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "score,caption_predicted,file_name\n1,Café,a.wav\n".encode("utf-8-sig")
    assert read_predictions(write(tmp_path, text)).captions == {"a.wav": ["Café"]}


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        line("b.wav", "a dog barks", "rain\u2028falls"),
        "",
        line("a.wav"),
        json.dumps({"file_name": "c.wav", "error": "cannot be decoded"}),
        json.dumps({"file_name": "d.wav", "captions": [], "error": None}),
        json.dumps({"file_name": "e.wav", "captions": [{"text": "wind"}]}, ensure_ascii=False),
    ]
    found = read_predictions(write(tmp_path, "\n".join(rows) + "\n"))
    assert found.captions == {
        "b.wav": ["a dog barks", "rain\u2028falls"],
        "a.wav": [""],
        "d.wav": [""],
        "e.wav": ["wind"],
    }
    assert list(found.captions) == ["b.wav", "a.wav", "d.wav", "e.wav"]
    assert found.failed == {"c.wav": "cannot be decoded"}


HEADER = "file_name,caption_predicted\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("", "is empty"),
        (" \n\n", "is empty"),
        (HEADER, "holds no predicted captions"),
        (b"file_name,caption_predicted\na,b\n\xe9,c\n", ", line 3: is not UTF-8 text; save"),
        ("fname,caption_predicted\na,b\n", ", line 1: no column file_name; the columns should be"),
        ("a,b\n", ", line 1: no column file_name and caption_predicted; "),
        ("a,b\n", "found: a, b"),
        (HEADER + "a.wav,rain, hard\n", ", line 2: 3 columns where the first line has 2; put"),
        (HEADER + "a.wav\n", ", line 2: 1 columns"),
        (HEADER + 'a.wav,"rain\nb.wav,x\n', ", line 3: is no CSV"),
        (HEADER + 'a.wav,"rain" x\n', ", line 2: is no CSV"),
        (HEADER + "a,x\nb,y\na,z\n", ", line 4: 'a' was already on line 2; keep one of them"),
        (HEADER + " ,x\n", ", line 2: the file name is empty"),
        (line("a", "x") + "\n{oops\n", ", line 2: is no JSON"),
        ("[" * 100_000, ", line 1: is no JSON"),
        ("[1]\n", ', line 1: should be an object with a text under "file_name"'),
        ('{"captions": []}', ', line 1: should be an object with a text under "file_name"'),
        ('{"file_name": 3, "captions": []}', "line 1: should be an object"),
        ('{"file_name": "a"}', ', line 1: "captions" should be a list of objects'),
        ('{"file_name": "a", "captions": ["x"]}', 'line 1: "captions" should be a list'),
        ('{"file_name": "a", "captions": [{"text": 1}]}', 'line 1: "captions" should be a list'),
        (line("a", "x") + "\n\n" + line("a", "y"), ", line 3: 'a' was already on line 1"),
        ('{"file_name": "a", "error": "bad"}', "no predicted captions; all 1 recordings failed"),
    ],
)
def test_bad_files_are_errors_of_one_line(
    tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    path = tmp_path / "nothing" if text is None else write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_recording_may_not_come_twice_either(tmp_path: Path) -> None:
    rows = '{"file_name": "a", "error": "bad"}\n' + line("a", "x")
    with pytest.raises(DataError, match="line 2: 'a' was already on line 1"):
        read_predictions(write(tmp_path, rows))


def test_names_are_compared_exactly_first() -> None:
    assert names_of(predicted("x/a.wav", "a.wav"), ["a.wav", "x/a.wav"]) == [
        ("x/a.wav", "x/a.wav"),
        ("a.wav", "a.wav"),
    ]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("below/a.flac", "a.wav"),
        ("C:\\audio\\a.wav", "a.wav"),
        ("a", "a.wav"),
        ("a.wav", "a"),
        ("a.b.wav", "a.b"),
        ("wind 3.5 km.wav", "wind 3.5 km"),
        ("Y7fmOlUlwoNg.wav", "7fmOlUlwoNg_20"),
        ("audio/7fmOlUlwoNg.flac", "7fmOlUlwoNg_20"),
        ("7fmOlUlwoNg_20.wav", "7fmOlUlwoNg_20"),
        ("Y7fmOlUlwoNg_20.wav", "7fmOlUlwoNg_20"),
        ("-_mOlUlwoNg", "-_mOlUlwoNg_0"),
    ],
)
def test_names_without_folder_and_extension(name: str, reference: str) -> None:
    assert names_of(predicted(name), [reference]) == [(name, reference)]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("A.wav", "a.wav"),
        ("7fmOlUlwoNg_30.wav", "7fmOlUlwoNg_20"),
        ("Y7fmOlUlwoN.wav", "7fmOlUlwoN_20"),  # no YouTube id: ten characters
        ("wind 3.7 km", "wind 3"),
    ],
)
def test_other_names_do_not_fit(name: str, reference: str) -> None:
    with pytest.raises(DataError, match="as no name is in both"):
        names_of(predicted(name), [reference])


def test_a_name_that_fits_several_references() -> None:
    with pytest.raises(DataError) as caught:
        names_of(predicted("a.wav"), ["x/a.wav", "y/a.wav"])
    assert str(caught.value) == (
        "p.csv: 'a.wav' fits several references (x/a.wav, y/a.wav); "
        "name the recording as the references do"
    )
    with pytest.raises(DataError, match="fits several references"):
        names_of(predicted("Y7fmOlUlwoNg.wav"), ["7fmOlUlwoNg_20", "7fmOlUlwoNg_90"])


def test_two_names_that_fit_one_reference() -> None:
    with pytest.raises(DataError) as caught:
        names_of(predicted("a.wav", "x/a.wav"), ["a"])
    assert str(caught.value) == (
        "p.csv: 'a.wav' and 'x/a.wav' both fit the reference 'a'; "
        "name the recordings as the references do"
    )


REFERENCES = {name: [f"reference of {name}"] for name in "abcdefgh"}


def test_missing_counterparts_are_an_error_with_names_and_counts() -> None:
    with pytest.raises(DataError) as caught:
        pair(predicted("a", "b", "x"), REFERENCES)
    assert str(caught.value) == (
        "p.csv: 1 predictions have no references (x) and 6 references have no prediction "
        "(c, d, e, f, g, ...); correct the file names, or give --allow-missing to score only the "
        "2 that have both"
    )
    with pytest.raises(DataError, match=r"p\.csv: 1 predictions have no references \(x\); correct"):
        pair(predicted(*REFERENCES, "x"), REFERENCES)


def test_failed_recordings_are_mentioned() -> None:
    some = predicted("a", "b", "c", "d", "e", "f", "g")
    failed = Predictions(some.path, some.captions, {"h": "cannot be decoded"})
    with pytest.raises(DataError, match=r"1 references have no .*\(h; 1 failed in captioning\)"):
        pair(failed, REFERENCES)


def test_missing_counterparts_may_be_allowed() -> None:
    pairing = pair(predicted("b", "x", "a"), REFERENCES, allow_missing=True)
    assert [clip.file_name for clip in pairing.clips] == ["b", "a"]
    assert pairing.clips[0] == Clip("b", "b", ["caption of b"], ["reference of b"])
    assert pairing.without_references == ["x"]
    assert pairing.without_prediction == ["c", "d", "e", "f", "g", "h"]


def test_nothing_in_common_is_an_error_even_where_missing_is_allowed() -> None:
    with pytest.raises(DataError, match="as no name is in both"):
        pair(predicted("x"), REFERENCES, allow_missing=True)
    with pytest.raises(DataError, match="as no name is in both"):
        pair(predicted("x"), {}, allow_missing=True)


def test_references_without_words_are_left_out() -> None:
    pairing = pair(predicted("a"), {"a": ["", "rain", "..."]})
    assert pairing.clips[0].references == ["rain"]
    with pytest.raises(DataError, match="the references of 'a' hold no words; correct or remove"):
        pair(predicted("a"), {"a": ["", "..."]})


def test_shared_clips_are_those_of_all_in_the_order_of_each() -> None:
    first = pair(predicted("a", "b", "c"), REFERENCES, allow_missing=True)
    second = pair(predicted("x/c.wav", "d", "a"), REFERENCES, allow_missing=True)
    ours, theirs = shared_clips([first, second])
    assert [clip.file_name for clip in ours] == ["a", "c"]
    assert [clip.file_name for clip in theirs] == ["x/c.wav", "a"]
    assert shared_clips([first]) == [first.clips]
    third = pair(predicted("d"), REFERENCES, allow_missing=True)
    with pytest.raises(DataError, match=r"p\.csv and p\.csv: have no clip in common"):
        shared_clips([first, third])


@pytest.mark.skipif(not REAL_CAPTIONS.is_dir(), reason="needs ../shared/data/captions")
def test_audio_names_of_audiocaps_find_all_references() -> None:
    references = read_captions(REAL_CAPTIONS / "audiocaps/test.csv")
    for template in ("Y{0}.wav", "{0}.wav", "{0}_{1}.wav", "{0}_{1}", "Y{0}_{1}.flac"):
        names = [template.format(*name.rsplit("_", 1)) for name in references]
        found = pair(predicted(*names), references).clips
        assert [clip.reference_name for clip in found] == list(references)
