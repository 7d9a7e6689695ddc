"""The corrector on and off: which captions it changes, and what of them is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.captioning.correction import Correction
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.text.faults import is_well_formed
from tests.captioning.tiny_chat_model import save_chat_model

LABELS = [["dog"], ["rain"], ["wind"], ["siren"]]
REFERENCES = [["a dog barks"], ["rain falls"], ["wind blows"], ["a siren wails"]]


def test_the_lines_by_hand() -> None:
    from correction import rows
    from judged_scenes import Judge

    corrections = [
        Correction("a dog barks", "a dog barks a dog barks", 1.0, True),
        Correction("rain falls", "rain falls", 0.0, False),
        Correction("the wind and", "the wind and", 1.0, False, "the answer was empty"),
        Correction("a siren wails", "a siren wails", 0.0, False),
    ]
    judge = Judge(LABELS, REFERENCES)
    off, on, flagged_off, flagged_on = rows("x", corrections, judge)
    assert [r["part"] for r in (off, flagged_off)] == ["all", "flagged"]
    assert [r["captions"] for r in (off, on, flagged_off, flagged_on)] == [4, 4, 2, 2]
    assert (on["rewritten"], flagged_on["rewritten"]) == (0.25, 0.5)
    assert "rewritten" not in off
    before = cider_d([c.original for c in corrections], REFERENCES)[1]
    after = cider_d([c.text for c in corrections], REFERENCES)[1]
    assert off["cider_d"] == pytest.approx(sum(before) / 4)
    assert on["cider_d"] == pytest.approx(sum(after) / 4)
    assert flagged_on["cider_d"] == pytest.approx((after[0] + after[2]) / 2)
    assert flagged_on["gain"] == pytest.approx((after[0] - before[0]) / 2) != 0
    assert (flagged_off["errors"], flagged_on["errors"]) == (1.0, 0.5)
    assert (off["faults"], on["faults"]) == (0.5, 0.25)
    assert on["kept_because"] == {"the answer was empty": 1}


def test_nothing_flagged_has_no_numbers() -> None:
    from correction import rows
    from judged_scenes import Judge

    kept = [Correction(of[0], of[0], 0.0, False) for of in REFERENCES]
    off, on, flagged = rows("x", kept, Judge(LABELS, REFERENCES))
    assert on["rewritten"] == 0
    assert on["gain"] == 0
    assert off["cider_d"] == on["cider_d"] > 0
    assert flagged == {"system": "x", "part": "flagged", "captions": 0}


class Mender:
    """Answers with the caption's first two words and an ending that makes sense of them."""

    name, fingerprint, max_new_tokens = "mender", "1", 64

    def __init__(self) -> None:
        self.asked: list[str] = []

    def complete(self, system: str, user: str, stop: Any) -> str:
        self.asked.append(user)
        return f"{' '.join(user.split()[:2])} can be heard in the distance"


def run(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, folder: Path, *options: str) -> Any:
    import correction

    output = folder / "correction.json"
    given = [f"tiny={checkpoint}", "--clips", "none", "--limit", "12", "--dtype", "float32"]
    given += ["--folder", str(folder / "kept"), "--output", str(output), *options]
    monkeypatch.setattr("sys.argv", ["correction.py", *given])
    correction.main()
    return json.loads(output.read_text(encoding="utf-8"))


def test_only_captions_with_errors_are_shown_to_the_model(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mender = Mender()
    monkeypatch.setattr("correction.load_chat_model", lambda folder: mender)
    found = run(monkeypatch, checkpoint, tmp_path, "--llm", "a folder", "--examples", "1")
    originals = [row["original"] for row in found["raw"]["tiny"]]
    flags = RuleBasedErrorDetector().probabilities(originals)
    flagged = {text for text, flag in zip(originals, flags, strict=True) if flag > 0.9}
    assert flagged  # a captioner of random weights writes nonsense
    assert set(mender.asked) <= flagged
    for row in found["raw"]["tiny"]:
        assert row["changed"] == (row["text"] != row["original"])
        assert row["changed"] <= (row["original"] in mender.asked)
    changed = [row["text"] for row in found["raw"]["tiny"] if row["changed"]]
    assert changed
    table = {(r["part"], r.get("corrector")): r for r in found["table"]}
    texts = [row["text"] for row in found["raw"]["tiny"]]
    faults = sum(not is_well_formed(text) for text in texts) / len(texts)
    assert table["all", "on"]["faults"] == pytest.approx(faults)
    assert table["all", "on"]["rewritten"] == pytest.approx(len(changed) / len(texts))
    printed = capsys.readouterr().out
    assert f"==> {changed[0]}" in printed
    assert printed.count("==>") == 1
    # Answers are kept: nothing is asked again.
    asked = len(mender.asked)
    again = run(monkeypatch, checkpoint, tmp_path, "--llm", "a folder")
    assert len(mender.asked) == asked
    assert again["table"] == found["table"]


def test_a_model_of_transformers(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_chat_model(tmp_path / "llm")
    found = run(monkeypatch, checkpoint, tmp_path, "--llm", str(tmp_path / "llm"), "--limit", "4")
    flagged = [row for row in found["raw"]["tiny"] if row["probability"] > 0.9]
    assert flagged
    assert all(row["changed"] or row["note"] for row in flagged)
    answers = (tmp_path / "kept/answers.jsonl").read_text().splitlines()
    assert 0 < len(answers) <= len(flagged)
