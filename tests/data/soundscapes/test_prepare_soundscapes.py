import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset
from dac_diffusion.data.soundscapes.prepare import prepare_soundscapes
from dac_diffusion.data.soundscapes.synthesizers import SYNTHESIZERS
from dac_diffusion.data.tables import read_captions
from dac_diffusion.errors import ConfigError, DacError, DataError


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_scenes_are_written_as_clotho_is(tmp_path: Path) -> None:
    table = prepare_soundscapes(tmp_path / "new/set", scenes=2, split="validation", progress=False)
    assert table == tmp_path / "new/set/clotho_captions_validation.csv"
    captions = read_captions(table)
    assert list(captions) == ["scene_00000.wav", "scene_00001.wav"]
    header = table.read_text().splitlines()[0]
    assert header == "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    lines = (table.parent / "soundscapes_validation.jsonl").read_text().splitlines()
    dataset = SoundscapeDataset(SoundscapeConfig(), "validation")
    for index, (name, line) in enumerate(zip(captions, lines, strict=True)):
        example = dataset.example(index)
        waveform, rate = soundfile.read(table.parent / "validation" / name, dtype="float32")
        assert rate == 32000
        np.testing.assert_allclose(waveform, example.waveform, atol=1e-4)
        assert captions[name] == list(example.captions)
        expected = {"file_name": name, **asdict(example.scene)}
        assert json.loads(line) == json.loads(json.dumps(expected))


def test_the_same_seed_gives_the_same_bytes_and_replaces_what_it_made(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 0), ("b", 1)):
        prepare_soundscapes(tmp_path / folder, scenes=2, seed=seed, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 4


def test_the_splits_stand_side_by_side(tmp_path: Path, clip_folder: Path) -> None:
    for split in ("train", "test"):
        prepare_soundscapes(tmp_path, clip_folder, scenes=1, split=split, progress=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"development", "evaluation", "clotho_captions_evaluation.csv"} <= names


def test_recordings_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "development").mkdir()
    (tmp_path / "development" / "mine.wav").write_bytes(b"precious")
    with pytest.raises(DataError, match="development: holds something else"):
        prepare_soundscapes(tmp_path, scenes=1, progress=False)
    assert contents(tmp_path) == {"development/mine.wav": b"precious"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenes": 0}, "scenes=0: at least one scene must be asked for"),
        ({"seed": -1}, "seed=-1: must be 0 or more, and below 2\\^63"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_soundscapes(tmp_path / "new", **settings, progress=False)
    assert not (tmp_path / "new").exists()


def test_an_output_under_a_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DacError, match=r"cannot be created \(Not a directory\)") as caught:
        prepare_soundscapes(tmp_path / "file" / "set", scenes=1, progress=False)
    assert "\n" not in str(caught.value)


def test_a_read_only_output_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:  # whom no permission bits stop

        def refuse(path: Path, *arguments: object, **options: object) -> None:
            if not path.is_dir():
                raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DacError, match=r"Permission denied") as caught:
        prepare_soundscapes(tmp_path, scenes=1, progress=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o755)


def test_held_out_labels_are_in_no_file(tmp_path: Path) -> None:
    left_out = sorted({*SYNTHESIZERS} - {"rain", "wind", "sea_waves"})
    prepare_soundscapes(tmp_path, scenes=6, progress=False, held_out_labels=left_out)
    lines = (tmp_path / "soundscapes_development.jsonl").read_text().splitlines()
    heard = {event["label"] for line in lines for event in json.loads(line)["events"]}
    assert heard
    assert heard <= {"rain", "wind", "sea_waves"}
