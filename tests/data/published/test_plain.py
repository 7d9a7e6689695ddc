"""Tables of one's own, and what all readers have in common."""

import json
import os
from pathlib import Path

import pytest

from dac_diffusion.audio import loading as audio_loading
from dac_diffusion.data.published.loading import read_dataset
from dac_diffusion.data.published.plain import read_plain
from dac_diffusion.data.published.wavcaps import WavCapsSettings
from dac_diffusion.errors import ConfigError, DataError
from tests.data.published.conftest import MakeFiles


def found(captions: Path, audio: Path) -> list[tuple[str, tuple[str, ...]]]:
    dataset = read_plain(captions, audio)
    assert dataset.problems == ()
    return [(clip.name, clip.captions) for clip in dataset.clips]


def test_a_row_for_each_caption(audio: MakeFiles, table: MakeFiles) -> None:
    path = table('file_name,caption\nb/x.wav,Rain\na.wav,"One, two"\nb/x.wav,Wind\n')
    expected = [("b/x.wav", ("Rain", "Wind")), ("a.wav", ("One, two",))]
    assert found(path, audio("a.wav", "b/x.wav")) == expected
    assert found(path.parent, audio("a.wav", "b/x.wav")) == expected


def test_a_row_for_each_recording(audio: MakeFiles, table: MakeFiles) -> None:
    path = table("file_name,caption_1,caption_2,note\na.wav,Rain,Wind,x\nb.wav,Hail,,y\n")
    assert found(path, audio("a.wav", "b.wav")) == [
        *(("a.wav", ("Rain", "Wind")), ("b.wav", ("Hail",)))
    ]


def test_json_lines(audio: MakeFiles, table: MakeFiles) -> None:
    rows = [{"file_name": "b.wav", "captions": ["Rain", "W\u2028ind"]}, {}, {}]
    rows[1] = {"file_name": "sub\\a.flac", "captions": ["Hail"]}
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows[:2])
    assert found(table(text, "x.jsonl"), audio("b.wav", "sub/a.flac")) == [
        *(("b.wav", ("Rain", "W ind")), ("sub\\a.flac", ("Hail",)))
    ]


def test_a_recording_is_found_by_its_path_only(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio("sub/a.wav", "b.flac", "c.wav", "c.mp3", "d.ogg", "d.mp3")
    path = table("file_name,caption\na.wav,x\n./b.wav,x\nc.mp3,x\nd.wav,x\n../audio/c.wav,x\n")
    dataset = read_plain(path, folder)
    assert [clip.path for clip in dataset.clips] == [folder / "b.flac", folder / "c.mp3"]
    assert [problem.partition(": ")[2] for problem in dataset.problems] == [
        f"no recording of 'a.wav' in {folder}",
        f"several recordings fit 'd.wav' ({folder}/d.mp3, {folder}/d.ogg); keep one of them",
        f"no recording of '../audio/c.wav' in {folder}",
    ]


def test_faulty_rows(audio: MakeFiles, table: MakeFiles) -> None:
    folder = audio("a.wav", "b.wav")
    path = table("file_name,caption\na.wav,x\na.wav,x\n,y\nb.wav\nb.wav,y\n")
    dataset = read_plain(path, folder)
    assert [(clip.name, clip.captions) for clip in dataset.clips] == [
        *(("a.wav", ("x",)), ("b.wav", ("y",)))
    ]
    assert dataset.problems == (
        "captions.csv, line 3: the same caption of 'a.wav' was there before",
        "captions.csv, line 4: has no file_name",
        "captions.csv, line 5: 1 columns where the first line has 2; "
        "put captions with commas in double quotes",
    )


def test_faulty_json_lines(audio: MakeFiles, table: MakeFiles) -> None:
    lines = [
        b'{"file_name": "a.wav", "captions": ["x \xe9"]}',
        b'{"file_name": "a.wav", "captions": ["y"]}',
        b"{",
        b'{"file_name": "b.wav", "captions": "y"}',
        b'{"file_name": "b.wav", "captions": []}',
    ]
    dataset = read_plain(table(b"\n".join(lines), "x.jsonl"), audio("a.wav", "b.wav"))
    assert [(clip.name, clip.captions) for clip in dataset.clips] == [("a.wav", ("x é",))]
    shape = 'should be {"file_name": "...", "captions": ["...", "..."]}'
    assert [problem for problem in dataset.problems if "no JSON" not in problem] == [
        "x.jsonl, line 1: is not UTF-8; read as Windows-1252",
        "x.jsonl, line 2: 'a.wav' was already in x.jsonl, line 1; that one is used",
        f"x.jsonl, line 4: {shape}",
        "x.jsonl, line 5: 'b.wav' has no caption, so it is left out",
    ]
    assert dataset.problems[2].startswith("x.jsonl, line 3: is no JSON (")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file_name,text\na.wav,x\n",
            "has neither a column caption nor caption_1.*file_name, text",
        ),
        ("name,caption\na.wav,x\n", "has no column file_name; found: name, caption"),
        ('{"file_name": 5}\n', 'no clip is left, 1 problems, the first: .*should be {"file_name"'),
    ],
)
def test_tables_that_cannot_be_used(
    audio: MakeFiles, table: MakeFiles, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_plain(table(text), audio("a.wav"))


def test_a_file_name_with_a_line_break_stays_on_one_line(
    audio: MakeFiles, table: MakeFiles
) -> None:
    dataset = read_plain(table('file_name,caption\na.wav,x\n"b\nc.wav",y\n'), audio("a.wav"))
    assert len(dataset.problems) == 1
    assert "\n" not in dataset.problems[0]


def test_the_order_of_the_file_system_does_not_matter(
    audio: MakeFiles, table: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = audio(*(f"{sub}/{i}.wav" for sub in "ba" for i in range(9)), "c.flac", "c.ogg")
    path = table("file_name,caption\n" + "".join(f"b/{i}.wav,x\n" for i in range(9)) + "c.wav,x\n")
    expected = read_plain(path, folder)
    walk = os.walk

    def backwards(*arguments: object, **options: object) -> object:
        for root, folders, names in walk(*arguments, **options):  # type: ignore[call-overload]
            folders.reverse()
            yield root, folders, sorted(names, reverse=True)

    monkeypatch.setattr(audio_loading.os, "walk", backwards)
    assert read_plain(path, folder) == expected


def test_no_file_is_touched_for_each_recording(
    audio: MakeFiles, table: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = audio(*(f"{i}.wav" for i in range(50)))
    path = table("file_name,caption\n" + "".join(f"{i}.wav,x\n" for i in range(50)))
    touched = []
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, real=real, **k: (touched.append(str(a[0])), real(*a, **k))[1]
        )
    assert len(read_plain(path, folder).clips) == 50
    assert not [name for name in touched if name.endswith(".wav")]


def test_data_sets_by_name(audio: MakeFiles, table: MakeFiles) -> None:
    path = table("file_name,caption\na.wav,x\n")
    assert read_dataset("plain", path, audio("a.wav")) == read_plain(path, audio("a.wav"))
    with pytest.raises(ConfigError, match="dataset='other' is unknown: use one of audiocaps, "):
        read_dataset("other", path, audio("a.wav"))
    with pytest.raises(
        ConfigError, match="plain: excluding ids or lengths is possible for wavcaps"
    ):
        read_dataset("plain", path, audio("a.wav"), WavCapsSettings())
    youtube = table("audiocap_id,youtube_id,start_time,caption\n1,x,30,Rain\n", "audiocaps.csv")
    clotho = table("file_name,caption_1\na.wav,x\n", "clotho.csv")
    macs = table("files: [{filename: a.wav, annotations: [{sentence: x}]}]", "MACS.yaml")
    wavcaps = table('[{"id": "a", "caption": "x"}]', "sb_final.json")
    folder = audio("a.wav", "x.wav")
    for name, captions, clip in (
        ("audiocaps", youtube, "x_30"),
        ("clotho", clotho, "a.wav"),
        ("macs", macs, "a.wav"),
        ("wavcaps", wavcaps, "SoundBible/a"),
    ):
        assert [each.name for each in read_dataset(name, captions, folder).clips] == [clip]
