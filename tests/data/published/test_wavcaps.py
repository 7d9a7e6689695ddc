"""WavCaps' four parts, and what is excluded from them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.data.published.wavcaps import WavCapsSettings, find_json_files, read_wavcaps
from dac_diffusion.errors import DataError
from tests.data.published.conftest import MakeFiles

YOUTUBE = "-0x_YabcdeF"  # 11 characters
PARTS: dict[str, list[dict[str, Any]]] = {
    "AudioSet_SL/as_final.json": [
        {"id": f"Y{YOUTUBE}.wav", "caption": "Rain.", "duration": 10.0},
        {"id": "Yaaaaaaaaaaa.wav", "caption": "Wind.", "duration": 10.0},
    ],
    "BBC_Sound_Effects/bbc_final.json": [
        {"id": "NHU05104021", "caption": "Birds.", "duration": 300}
    ],
    "FreeSound/fsd_final.json": [
        {"id": "2219", "caption": "A door.", "duration": 0.5, "tags": []},
        {"id": "77", "caption": "A cat.", "duration": 30.0},
    ],
    "SoundBible/sb_final.json": [{"id": "2219", "caption": "A plane.", "duration": 14.1}],
}
RECORDINGS = (
    *(f"AudioSet_SL_flac/Y{YOUTUBE}.flac", "AudioSet_SL_flac/aaaaaaaaaaa.wav"),
    *("waveforms/BBC_Sound_Effects/NHU05104021.flac", "FreeSound/2219.flac", "FreeSound/77.flac"),
    "SoundBible/2219.flac",
)
NAMES = [
    *(f"AudioSet_SL/{YOUTUBE}", "AudioSet_SL/aaaaaaaaaaa", "BBC_Sound_Effects/NHU05104021"),
    *("FreeSound/2219", "FreeSound/77", "SoundBible/2219"),
]


@pytest.fixture
def parts(table: MakeFiles) -> Path:
    """The four JSON files in their folders, and a blacklist beside them as it is published."""
    for name, data in PARTS.items():
        path = table(json.dumps({"num_captions_per_audio": 1, "data": data}), name)
    table(json.dumps({"AudioSet": [], "FreeSound": ["77"]}), "blacklist/blacklist_all.json")
    return path.parents[1]


def names(folder: Path, audio: Path, exclude: Sequence[Path] = (), **settings: float) -> list[str]:
    dataset = read_wavcaps(folder, audio, WavCapsSettings(tuple(exclude), **settings))
    left_out = set(NAMES) - {clip.name for clip in dataset.clips}
    assert sorted(dataset.excluded) == sorted(left_out)
    assert dataset.problems == ()
    return [clip.name for clip in dataset.clips]


def test_four_parts_in_one_folder(parts: Path, audio: MakeFiles) -> None:
    dataset = read_wavcaps(parts, audio(*RECORDINGS))
    assert [clip.name for clip in dataset.clips] == NAMES
    relative = [clip.path.relative_to(dataset.audio).as_posix() for clip in dataset.clips]
    assert relative == list(RECORDINGS)
    assert [clip.captions for clip in dataset.clips][3:] == [
        ("A door.",),
        ("A cat.",),
        ("A plane.",),
    ]
    assert dataset.problems == dataset.excluded == ()


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ('{"AudioSet": ["Y-0x_YabcdeF.wav"], "FreeSound": ["2219", "Not found"]}', [1, 2, 4, 5]),
        ('["77", "Yaaaaaaaaaaa.wav"]', [0, 2, 3, 5]),
    ],
)
def test_blacklists(
    parts: Path, audio: MakeFiles, table: MakeFiles, content: str, left: list[int]
) -> None:
    path = table(content, "list.json")
    assert names(parts, audio(*RECORDINGS), [path]) == [NAMES[i] for i in left]


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ("sound_id\n77\nNot found\n", [0, 1, 2, 3, 5]),  # DCASE's forbidden Freesound clips
        ("file_name,keywords,sound_id\na.wav,cat;dog,2219\n", [0, 1, 2, 4, 5]),  # Clotho's metadata
        (f"audiocap_id,youtube_id,start_time,caption\n77,{YOUTUBE},30,Rain\n", [1, 2, 3, 4, 5]),
        ("77\n2219\n", [0, 1, 2, 5]),  # one id a line
        ("id\nYaaaaaaaaaaa.wav\n", [0, 2, 3, 4, 5]),
    ],
)
def test_other_lists(
    parts: Path, audio: MakeFiles, table: MakeFiles, content: str, left: list[int]
) -> None:
    path = table(content, "list.csv")
    assert names(parts, audio(*RECORDINGS), [path]) == [NAMES[i] for i in left]


def test_several_lists_and_lengths(parts: Path, audio: MakeFiles, table: MakeFiles) -> None:
    lists = [table("77\n", "one.txt"), table('{"AudioSet": ["Yaaaaaaaaaaa.wav"]}', "two.json")]
    found = names(parts, audio(*RECORDINGS), lists, shortest_seconds=1.0, longest_seconds=30.0)
    assert found == [NAMES[0], NAMES[5]]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("file_name,caption_1\na.wav,Rain\n", "list.csv"),
        ("file_name;keywords;sound_id\na.wav;cat;77\n", "list.csv"),
        ('{"FreeSound": []}', "list.json"),
    ],
)
def test_a_list_without_ids_is_an_error_as_nothing_would_be_excluded(
    parts: Path, audio: MakeFiles, table: MakeFiles, content: str, name: str
) -> None:
    with pytest.raises(DataError, match=rf"{name}: holds no Freesound or YouTube ids"):
        names(parts, audio(*RECORDINGS), [table(content, name)])
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        names(parts, audio(*RECORDINGS), [parts / "gone.csv"])


def test_one_part_with_its_recordings_anywhere(parts: Path, audio: MakeFiles) -> None:
    folder = audio("a/2219.ogg", "77.mp3")
    dataset = read_wavcaps(parts / "FreeSound/fsd_final.json", folder)
    assert [clip.path.name for clip in dataset.clips] == ["2219.ogg", "77.mp3"]


def test_a_part_never_takes_the_recording_of_another(parts: Path, audio: MakeFiles) -> None:
    folder = audio("SoundBible_flac/2219.flac", "77.flac")
    dataset = read_wavcaps(parts / "FreeSound/fsd_final.json", folder)
    assert [clip.name for clip in dataset.clips] == ["FreeSound/77"]
    assert dataset.problems == (
        f"fsd_final.json, clip 1: no recording of 'FreeSound/2219' in {folder}",
    )


def test_the_shorter_list_of_freesound_counts_only_alone(table: MakeFiles) -> None:
    short = table("{}", "FreeSound/fsd_final_2s.json")
    assert find_json_files(short.parents[1]) == {"FreeSound": short}
    whole = table("{}", "FreeSound/fsd_final.json")
    assert find_json_files(short.parents[1]) == {"FreeSound": whole}
    assert find_json_files(short) == {"FreeSound": short}
    table("{}", "old/fsd_final.json")
    with pytest.raises(DataError, match=r"several files of FreeSound \(.*\); keep one"):
        find_json_files(short.parents[1])


@pytest.mark.parametrize("name", ["SoundBible.json", "sb_final.json", "SoundBible/any.json"])
def test_the_part_is_known_by_the_name_of_the_file_or_its_folder(
    table: MakeFiles, audio: MakeFiles, name: str
) -> None:
    # The first version of sb_final.json is a bare list; other data sets in WavCaps' form have
    # several captions.
    rows = [{"id": 5, "caption_2": "two", "caption_1": "one"}]
    (clip,) = read_wavcaps(table(json.dumps(rows), name), audio("SoundBible/5.wav")).clips
    assert (clip.name, clip.captions) == ("SoundBible/5", ("one", "two"))


def test_faulty_entries(table: MakeFiles, audio: MakeFiles) -> None:
    rows = [
        {"id": "1", "caption": "one"},
        {"id": "1", "caption": "again"},
        {"caption": "no id"},
        {"id": "2"},
        {"id": "3", "caption": None},
        {"id": "4", "caption": "!"},
        "text",
    ]
    path = table(json.dumps({"data": rows}), "sb_final.json")
    dataset = read_wavcaps(path, audio(*(f"{i}.wav" for i in range(1, 5))))
    assert [clip.captions for clip in dataset.clips] == [("one",)]
    assert dataset.problems == (
        "sb_final.json, clip 2: 'SoundBible/1' was already in sb_final.json, clip 1; "
        "that one is used",
        *(f"sb_final.json, clip {i}: has no id or no text under caption" for i in (3, 4, 5)),
        "sb_final.json, clip 6: 1 of 1 captions of 'SoundBible/4' hold no words",
        "sb_final.json, clip 6: 'SoundBible/4' has no caption, so it is left out",
        "sb_final.json, clip 7: has no id or no text under caption",
    )


def test_letters_that_are_not_utf_8(table: MakeFiles, audio: MakeFiles) -> None:
    rows = json.dumps([{"id": "1", "caption": "a caf"}])[:-3].encode() + b'\xe9 \xc3\xa9"}]'
    dataset = read_wavcaps(table(rows, "sb_final.json"), audio("1.wav"))
    assert dataset.clips[0].captions == ("a café é",)
    assert dataset.problems == ("sb_final.json, line 1: is not UTF-8; read as Windows-1252",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sb_final.json", '{"data": [', "is no JSON"),
        ("sb_final.json", '{"data": 5}', 'has no list under "data"'),
        (
            "sb_final.json",
            "version https://git-lfs.github.com/spec/v1\n",
            "is a pointer of Git LFS",
        ),
        ("sb_final.json", '{"data": []}', "no clip is left$"),
        ("other.json", '{"data": []}', "does not say which part of WavCaps it is"),
    ],
)
def test_files_that_cannot_be_used(
    table: MakeFiles, audio: MakeFiles, name: str, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_wavcaps(table(content, name), audio("1.wav"))


def test_folders_without_wavcaps_and_exclusion_of_everything(
    parts: Path, table: MakeFiles, audio: MakeFiles, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="holds no JSON files of WavCaps"):
        read_wavcaps(audio("1.wav"), audio("1.wav"))
    settings = WavCapsSettings(longest_seconds=0.1)
    with pytest.raises(DataError, match=r"no clip is left, 6 clips excluded$"):
        read_wavcaps(parts, audio(*RECORDINGS), settings)
