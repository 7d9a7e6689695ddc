"""What the tests of whole trainings from captions alone share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dac_diffusion.configuration import load_config
from dac_diffusion.training.preparation import prepare
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import Prepared
from dac_diffusion.training.surroundings import make_accelerator

CONFIGS = Path(__file__).parents[2] / "configs"


def write_table(path: Path, captions: Sequence[str]) -> Path:
    """A table in AudioCaps' columns, of recordings that are not there."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        for i, caption in enumerate(captions):
            rows.writerow([i, f"clip_{i}", 30, caption])
    return path


def prepared_by(path: Path, overrides: Sequence[str]) -> tuple[TrainingConfig, Prepared]:
    config = load_config(TrainingConfig, path, overrides)
    return config, prepare(config, make_accelerator(), progress=False)


def no_audio(*arguments: object, **settings: object) -> None:
    raise AssertionError("audio was read")
