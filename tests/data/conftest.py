"""Labelled recordings whose pitch tells their split; captioned ones and an encoder for caches."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dac_diffusion.data.published.dataset import CaptionDataset
from tests.data.feature_caches import save_encoder, write_dataset

RATE = 32000
PITCHES = {"train": 1000.0, "val": 3000.0}  # Hz
BURSTS = ("dog", "door_wood_knock", "car_horn")  # three occurrences of 0.3 s each
STEADY = ("rain", "wind", "engine")
BURST_STARTS = (0.5, 1.5, 2.5)


def tone(seconds: float, pitch: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)


def bursts(pitch: float) -> np.ndarray:
    waveform = np.zeros(round(3.5 * RATE))
    for start in BURST_STARTS:
        first = round(start * RATE)
        waveform[first : first + round(0.3 * RATE)] = tone(0.3, pitch)
    return waveform


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of six labels in each split: 1 kHz for training, 3 kHz for validation."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["file,label,split"]
    for split, pitch in PITCHES.items():
        for label in (*BURSTS, *STEADY):
            waveform = bursts(pitch) if label in BURSTS else tone(4.0, pitch)
            for number in (1, 2):
                name = f"{split}_{label}_{number}.wav"
                soundfile.write(folder / name, waveform, RATE)
                lines.append(f"{name},{label},{split}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small encoder."""
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def dataset(tmp_path: Path) -> CaptionDataset:
    """A few captioned recordings."""
    return write_dataset(tmp_path / "audio")
