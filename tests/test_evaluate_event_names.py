"""`dac-diffusion evaluate --event-names`: which sounds predicted captions name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dac_diffusion.cli import main
from tests.helpers import only_error

TABLE = Path(__file__).parents[1] / "benchmarks" / "event_synonyms.yaml"


def test_named_and_foreign_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references, predictions = tmp_path / "references.csv", tmp_path / "predictions.csv"
    references.write_text(
        "file_name,caption_1,caption_2\n"
        "a.wav,a dog barks,a dog barks in the rain\n"
        "b.wav,a cat meows,a cat\n"
        "c.wav,nothing to hear,silence\n"
    )
    predictions.write_text(
        "file_name,caption_predicted\na.wav,a dog\nb.wav,a rooster crows\nc.wav,silence\n"
    )
    target = tmp_path / "scores.json"
    command = ["evaluate", str(predictions), str(references), "--output", str(target)]
    assert main([*command, "--event-names", str(TABLE)]) == 0
    report = json.loads(target.read_text())
    assert report["settings"]["event_names"] == str(TABLE)
    # Of a.wav's dog and rain (one of two references) the dog; not b.wav's cat; c.wav has none.
    assert report["corpus"]["quality"]["events_named"] == pytest.approx((0.5 + 0) / 2)
    assert report["corpus"]["quality"]["foreign_event_share"] == pytest.approx(1 / 3)
    assert [clip["quality"]["events_named"] for clip in report["clips"]] == [0.5, 0.0, None]
    assert "events named" in capsys.readouterr().out

    assert main([*command, "--event-names", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: cannot be read as a synonym table" in only_error(capsys)
