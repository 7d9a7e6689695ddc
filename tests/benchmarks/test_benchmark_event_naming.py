"""The event-naming benchmark with captioners whose score is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_diffusion.errors import DataError


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    rows = [("dog", "val"), ("cat", "val"), ("rain", "train"), ("rooster", "val"), ("cow", "val")]
    with (tmp_path / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "split"])
        writer.writerows([f"{label}.ogg", label, split] for label, split in rows)
    return tmp_path


def describe(sound: Any) -> list[str]:
    """Right for dog; second caption right for cat; the crow is no rooster; silent on scenes."""
    known = {
        "dog": ["a dog barks", "a hound woofs"],
        "cat": ["a dog barks", "a cat meows"],
        "rooster": ["a crow caws", "a bird sings"],
        "cow": ["", "the mooing of a cow"],
    }
    return known[sound.stem] if isinstance(sound, Path) else ["something sounds"]


def test_counts_and_output(
    clip_folder: Path, tmp_path: Path, run_script: Callable[..., Any], capsys: Any
) -> None:
    import event_naming

    output = tmp_path / "out.json"
    options = ["--clips", str(clip_folder), "--scenes", "3", "--steps", "2", "8"]
    fake = run_script(event_naming, describe, *options, "--output", str(output))
    result = json.loads(output.read_text(encoding="utf-8"))
    recordings = [row for row in result["table"] if row["set"] == "recordings"]
    assert [row["num_steps"] for row in recordings] == [2, 8]
    for row in recordings:
        assert (row["clips"], row["first"], row["any"]) == (4, 1 / 4, 3 / 4)
        assert row["random"] == 3 / 4  # the fake's first candidate is its last caption
        assert row["foreign"] == 2 / 4
    scenes = [row for row in result["table"] if row["set"] == "procedural"]
    assert [row["system"] for row in scenes] == ["ranked", "ranked", "references"]
    assert scenes[0]["first"] == scenes[0]["any"] == 0.0
    assert scenes[2]["any"] > 0.9
    assert len(result["raw"]["recordings"]) == 8
    assert result["raw"]["recordings"][0]["captions"][0]["text"] == "a dog barks"
    assert {call["num_steps"] for call in fake.calls} == {2, 8}
    printed = capsys.readouterr().out
    assert "| recordings | ranked | 8 |" in printed
    assert "rooster 1 of 1" in printed


def test_without_recordings(run_script: Callable[..., Any], capsys: Any) -> None:
    import event_naming

    run_script(event_naming, describe, "--clips", "none", "--scenes", "2", "--steps", "1")
    assert "recordings" not in capsys.readouterr().out


def test_missing_clip_table(tmp_path: Path) -> None:
    import event_naming

    with pytest.raises(DataError, match=r"clips\.csv"):
        event_naming.read_val_clips(tmp_path)


def test_wilson_interval_against_published_values() -> None:
    """Newcombe 1998, table I, method 3: 81 of 263, and 0 of 20."""
    from event_naming import wilson_interval

    assert np.round(wilson_interval(81 / 263, 263), 4).tolist() == [0.2553, 0.3662]
    assert np.round(wilson_interval(0.0, 20), 4).tolist() == [0.0, 0.1611]
