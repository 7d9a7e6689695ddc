"""The published captions in ../shared, which tests use where they are and skip where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dac_diffusion.data.tables import read_captions

FOLDER = Path(__file__).parents[2] / "../shared/data/captions"
TABLES = ("audiocaps/test.csv", "audiocaps/val.csv", "clotho/clotho_captions_evaluation.csv")


def real_captions(table: str, clips: int | None = None) -> list[list[str]]:
    """The five captions of each clip; skips the test where the table is absent."""
    path = FOLDER / table
    if not path.exists():
        pytest.skip("needs the shared caption files in ../shared/data/captions")
    return list(read_captions(path).values())[:clips]


def held_out(table: str, clips: int | None = None) -> tuple[list[str], list[list[str]]]:
    """The first caption of each clip, and its other four as references."""
    captions = real_captions(table, clips)
    return [of_clip[0] for of_clip in captions], [of_clip[1:] for of_clip in captions]
