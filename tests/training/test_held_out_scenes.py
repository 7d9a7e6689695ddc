"""Scenes that are written as files, for encoders from elsewhere, leave held-out labels out too."""

from __future__ import annotations

import json
from pathlib import Path

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig
from dac_diffusion.data.soundscapes.synthesizers import SYNTHESIZERS
from dac_diffusion.training.recordings import _scenes_as_files
from dac_diffusion.training.settings import TrainingConfig

KEPT = ("rain", "wind", "sea_waves")


def labels_of(folder: Path) -> set[str]:
    lines = (folder / "soundscapes_development.jsonl").read_text().splitlines()
    return {event["label"] for line in lines for event in json.loads(line)["events"]}


def test_beside_scenes_with_all_labels(tmp_path: Path) -> None:
    left_out = tuple(sorted(set(SYNTHESIZERS) - set(KEPT)))
    folders = []
    for held_out in ((), left_out, left_out[1:]):
        config = TrainingConfig(
            cache_dir=str(tmp_path),
            training_scenes=5,
            validation_scenes=1,
            soundscapes=SoundscapeConfig(held_out_labels=held_out),
        )
        (dataset,) = _scenes_as_files(config, progress=False).training
        assert Path(dataset.captions).parent == Path(dataset.audio)
        folders.append(Path(dataset.audio))
    assert folders[0] == tmp_path
    assert len(set(folders)) == 3
    assert labels_of(folders[1]) <= set(KEPT)
    assert not labels_of(folders[0]) <= set(KEPT)
