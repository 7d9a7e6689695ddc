"""Differences of systems from kept captions: by a folder written by hand, and the committed one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.errors import DataError

GOOD, SPOILT = "a dog barks loudly", "a dog of a and"
RESULTS = Path(__file__).parents[2] / "benchmarks/results"


def write_run(folder: Path, captions: dict[str, list[list[str]]]) -> None:
    """What run.py keeps: the references of three scenes, and each setting's captions."""
    references = [
        ["a dog barks", "a dog barks twice"],
        ["rain falls on a roof", "it rains"],
        ["a bell rings far away", "a distant bell rings"],
    ]
    raw = {"references": [{"references": each} for each in references]}
    (folder / "captions").mkdir()
    (folder / "quality.json").write_text(json.dumps({"raw": raw}))
    for system, of_system in captions.items():
        setting = {"system": system, "name": "greedy", "model": "-", "num_captions": 2}
        rows: list[dict[str, Any]] = [{"setting": setting}]
        for i, texts in enumerate(of_system):
            rows.append({"set": "scenes", "name": f"scene {i}", "captions": texts})
        rows.append({"set": "recordings", "name": "x.wav", "captions": [SPOILT], "label": "dog"})
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "captions" / f"{system}_greedy_K2.jsonl").write_text(lines + "\n")


def test_errors_and_differences_of_a_run_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kept_differences

    right = [["a dog barks", GOOD], ["rain falls on a roof", "it rains"], ["a bell rings", GOOD]]
    wrong = [[SPOILT, GOOD], [SPOILT, SPOILT], [GOOD, SPOILT]]
    write_run(tmp_path, {"one": right, "two": wrong})
    output = tmp_path / "out.json"
    arguments = ["--folder", str(tmp_path), "--settings", "one_greedy_K2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["kept_differences.py", *arguments])

    kept_differences.main()

    one, two = json.loads(output.read_text())["table"]
    assert (one["system"], one["errors_first"], one["errors_further"]) == ("one", 0, 0)
    assert (two["system"], two["errors_first"], two["errors_further"]) == ("two", 2 / 3, 2 / 3)
    assert two["errors_first_difference_numbers"][0] == pytest.approx(-2 / 3)
    estimate, low, high = two["cider_d_numbers"]
    assert estimate > 0  # "one" wrote the references
    assert low <= estimate <= high
    assert two["cider_d"] == f"{estimate:+.3f} ({low:+.3f} to {high:+.3f})"


def test_what_is_missing_or_of_another_run_is_said(tmp_path: Path) -> None:
    import kept_differences

    with pytest.raises(DataError, match=r"quality\.json: missing; benchmarks/run\.py writes it"):
        kept_differences.read_references(tmp_path)
    write_run(tmp_path, {"one": [[GOOD]] * 2})
    references = kept_differences.read_references(tmp_path)
    with pytest.raises(DataError, match=r"captions of 2 scenes, but .*references of 3"):
        kept_differences.read_kept(tmp_path, "one_greedy_K2", references)
    with pytest.raises(DataError, match=r"two\.jsonl: missing; there are one_greedy_K2"):
        kept_differences.read_kept(tmp_path, "two", references)


def test_the_committed_captions_can_be_read_and_swept_settings_are_left_out() -> None:
    import kept_differences

    references = kept_differences.read_references(RESULTS)
    assert len(references) == 500
    chosen = kept_differences.read_kept(RESULTS, kept_differences.SETTINGS[1], references)
    assert chosen.setting.ranked
    others = kept_differences.keys_beside(RESULTS, chosen.setting)
    assert "recap_nucleus_ranked_K5" in others
    assert not [key for key in others if "temperature" in key or "guidance" in key]
    assert chosen.setting.key not in others
