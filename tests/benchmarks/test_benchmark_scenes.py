"""The scene benchmark with a captioner that knows the references, and with a broken one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCENES = 12


def by_sound() -> Callable[[Any], list[str]]:
    """A captioner that looks the references up by the scene's sound."""
    from common import validation_scenes

    dataset = validation_scenes(None, 0)
    examples = [dataset.example(i) for i in range(SCENES)]
    known = {e.waveform.tobytes(): list(e.captions) for e in examples}
    return lambda sound: known[sound[0].tobytes()]


def table_of(path: Path, system: str) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))["table"]
    return [row for row in rows if row["system"] == system]


def test_references_as_captions(
    tmp_path: Path, run_script: Callable[..., Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import common
    import scenes

    monkeypatch.setattr(common, "CLIPS_AT_ONCE", 5)
    output = tmp_path / "scenes.json"
    options = ["--clips", "none", "--limit", str(SCENES), "--steps", "1", "4"]
    run_script(scenes, by_sound(), *options, "--output", str(output))
    quality, form = table_of(output, "ranked")[:2], table_of(output, "ranked")[2:]
    for row in quality:
        assert row["cider_d"] > 2 * row["shuffled_cider_d"]
        assert row["best_cider_d"] >= row["cider_d"]
        assert row["events_named"] > 0.8 > row["shuffled_events_named"]
    for row in form:
        assert row["length_ratio"] == 1.0
        assert row["captions"] == 5 * SCENES
        assert row["empty"] == row["duplicates"] == 0.0
    references = table_of(output, "references")
    assert references[1]["distinct_2_within_clip"] == form[0]["distinct_2_within_clip"]
    raw = json.loads(output.read_text(encoding="utf-8"))["raw"]
    assert [row["scene"] for row in raw["scenes"]] == list(range(SCENES))
    assert len(raw["captions"]) == 2 * SCENES
    assert raw["captions"][0]["candidates"] == raw["scenes"][0]["references"][::-1]
    assert "CIDEr-D first" in capsys.readouterr().out


def test_every_failure_shows(tmp_path: Path, run_script: Callable[..., Any]) -> None:
    import scenes

    broken = ["a dog and a dog and a", "", "rain rain", "a dog barks", "a dog barks"]
    output = tmp_path / "scenes.json"
    options = ["--clips", "none", "--limit", "6", "--steps", "8", "--output", str(output)]
    run_script(scenes, lambda sound: broken, *options)
    quality, form = table_of(output, "ranked")
    assert form["empty"] == form["repeated_bigram"] == form["function_word_ending"] == 0.2
    assert form["doubled_word"] == 0.2
    assert form["duplicates"] == pytest.approx(0.2)
    assert quality["cider_d"] == pytest.approx(quality["shuffled_cider_d"], rel=1.0)
    assert table_of(output, "candidates")[0]["captions"] == 30
