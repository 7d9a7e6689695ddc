"""`dac-diffusion prepare soundscapes`: scenes as files, in Clotho's layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import soundfile
from tqdm import tqdm

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset, Split
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import atomic_folder, atomic_write, check_replaceable, make_folder

# Clotho's names of the three splits, so that any reader of Clotho reads this folder.
CLOTHO_SPLITS: dict[Split, str] = {
    "train": "development",
    "validation": "validation",
    "test": "evaluation",
}
NUM_CAPTIONS = 5


def prepare_soundscapes(
    output: str | Path,
    clips: str | Path | None = None,
    scenes: int = 100,
    split: Split = "train",
    seed: int = 0,
    progress: bool = True,
    held_out_labels: Sequence[str] = (),
) -> Path:
    """Write `scenes` scenes of a split and return the path of their caption table.

    In `output`: development|validation|evaluation/scene_00000.wav (16 bit, 32 kHz), the table
    clotho_captions_<split>.csv (file_name,caption_1,...,caption_5), and soundscapes_<split>.jsonl
    with what sounds when in every scene. An earlier result there is replaced, other recordings
    never. Raises ConfigError, DataError, AudioError, DacError.
    """
    if scenes < 1:
        raise ConfigError(f"scenes={scenes}: at least one scene must be asked for")
    config = SoundscapeConfig(
        clips=None if clips is None else str(clips),
        seed=seed,
        held_out_labels=tuple(held_out_labels),
    )
    folder, name = make_folder(output), CLOTHO_SPLITS[split]
    check_replaceable(folder / name, (folder / f"soundscapes_{name}.jsonl").exists())
    dataset = SoundscapeDataset(config, split)
    table: list[list[str]] = []
    plans: list[str] = []
    with atomic_folder(folder / name) as partial:
        for index in tqdm(range(scenes), desc=f"writing {name} scenes", disable=not progress):
            example = dataset.example(index)
            file_name = f"scene_{index:05d}.wav"
            soundfile.write(partial / file_name, example.waveform, example.sampling_rate, "PCM_16")
            table.append([file_name, *example.captions])
            plans.append(json.dumps({"file_name": file_name, **asdict(example.scene)}))
    with atomic_write(folder / f"soundscapes_{name}.jsonl") as file:
        file.write("\n".join(plans) + "\n")
    captions = folder / f"clotho_captions_{name}.csv"
    with atomic_write(captions) as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *(f"caption_{i + 1}" for i in range(NUM_CAPTIONS))])
        writer.writerows(table)
    return captions
