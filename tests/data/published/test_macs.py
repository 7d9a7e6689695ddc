"""MACS.yaml."""

from pathlib import Path

import pytest
import yaml

from dac_diffusion.data.published.macs import read_macs
from dac_diffusion.errors import DataError
from tests.data.published.conftest import MakeFiles

NAME = "airport-barcelona-0-0-a.wav"


def content(*files: object) -> str:
    return yaml.safe_dump({"files": list(files)})


def entry(name: str, *sentences: str) -> dict[str, object]:
    annotations = [
        {"annotator_id": i, "sentence": text, "tags": ["footsteps"]}
        for i, text in enumerate(sentences)
    ]
    return {"filename": name, "annotations": annotations}


@pytest.mark.parametrize("folder", ["", "audio/", "TAU-urban-acoustic-scenes-2019/audio/"])
def test_captions_of_all_annotators(audio: MakeFiles, table: MakeFiles, folder: str) -> None:
    path = table(content(entry(NAME, "People talk.", "Steps: many")), "MACS.yaml")
    for given in (path, path.parent):
        dataset = read_macs(given, audio(folder + NAME))
        (clip,) = dataset.clips
        assert (clip.name, clip.captions) == (NAME, ("People talk.", "Steps: many"))
        assert dataset.problems == ()


def test_faulty_entries(audio: MakeFiles, table: MakeFiles) -> None:
    files = (
        entry("a.wav", "one", "two"),
        entry("a.wav", "three"),
        entry("b.wav"),
        {"filename": 5},
        "text",
        {"filename": "c.wav"},
        {"filename": "d.wav", "annotations": [{"sentence": True}, {"sentence": "four"}, None]},
        entry("e.wav", "five"),
    )
    folder = audio("a.wav", "b.wav", "c.wav", "d.wav")
    dataset = read_macs(table(content(*files), "MACS.yaml"), folder)
    assert [(clip.name, clip.captions) for clip in dataset.clips] == [
        *(("a.wav", ("one", "two")), ("d.wav", ("four",)))
    ]
    assert dataset.problems == (
        "MACS.yaml, file 2: 'a.wav' was already in MACS.yaml, file 1; that one is used",
        "MACS.yaml, file 3: 'b.wav' has no caption, so it is left out",
        "MACS.yaml, file 4: has no text under filename",
        "MACS.yaml, file 5: has no text under filename",
        "MACS.yaml, file 6: has no list under annotations",
        "MACS.yaml, file 6: 'c.wav' has no caption, so it is left out",
        "MACS.yaml, file 7: annotation 1 has no text under sentence",
        "MACS.yaml, file 7: annotation 3 has no text under sentence",
        f"MACS.yaml, file 8: no recording of 'e.wav' in {folder}",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files: [", "is no YAML"),
        ("files: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("clips: []", "has no list under files"),
        ("files: []", "no clip is left"),
    ],
)
def test_files_that_cannot_be_used(
    audio: MakeFiles, table: MakeFiles, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_macs(table(text, "MACS.yaml"), audio("a.wav"))
    assert "\n" not in str(caught.value)


def test_a_folder_without_it(audio: MakeFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no macs\.yaml or macs\.yml"):
        read_macs(audio("a.wav"), audio("a.wav"))
