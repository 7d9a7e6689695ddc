"""The benchmark of error detectors: how captions are spoilt, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.metrics.fabricated_models import save_error_detector

CAPTIONS = [
    "a dog barks while birds sing",
    "a dog is barking in a yard",
    "rain falling on a roof and a man speaking",
    "a man speaks, then a dog barks",
    "Birds barking",
    "speaking, barking and speaking",
]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    import error_detection
    from common import run_main

    monkeypatch.setattr("sys.argv", ["error_detection.py", *map(str, arguments)])
    run_main(error_detection.main)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f'{i},id{i},0,"{text}"' for i, text in enumerate([*CAPTIONS, "a dog a"])]
    path = tmp_path / "captions.csv"
    path.write_text("audiocap_id,youtube_id,start_time,caption\n" + "\n".join(lines) + "\n")
    return path


def outcomes(way: str, caption: str) -> set[str | None]:
    """What becomes of a caption, over many draws."""
    from error_detection import WAYS, Spoiler

    spoiler = Spoiler([text.lower() for text in CAPTIONS])
    return {WAYS[way](spoiler, caption) for _ in range(300)}


def test_verbs_and_subjects_are_lost() -> None:
    assert outcomes("lost verb", "a dog barks while rain falls") == {"a dog while rain falls"}
    assert outcomes("lost verb", "a dog is barking in a yard") == {"a dog in a yard"}
    assert outcomes("lost verb", "rain falling on a roof") == {"rain on a roof"}
    assert outcomes("lost verb", "dogs bark and bark") == {"dogs and bark"}
    assert outcomes("lost verb", "the barks of a dog") == {None}
    assert outcomes("lost subject", "a man speaks as a dog barks") == {
        "speaks as a dog barks",
        "a man speaks as barks",
    }
    assert outcomes("lost subject", "a dog barking") == {None}


def test_events_and_words_are_repeated() -> None:
    found = outcomes("repeated event", "a dog barks while rain falls")
    assert len(found) == 16  # two events, eight conjunctions
    assert "a dog barks while rain falls followed by a dog barks" in found
    assert "a dog barks while rain falls then rain falls" in found
    assert outcomes("repeated event", "applause") == {None}
    assert outcomes("repeated words", "a dog barks") == {
        *("a a dog barks", "a dog dog barks", "a dog barks barks"),
        *("a dog a dog barks", "a dog barks dog barks", "a dog barks a dog barks"),
    }


def test_captions_break_off() -> None:
    from error_detection import TAILS

    caption = "rain falls on a roof"
    assert outcomes("broken off", caption) == {
        "rain falls on",
        "rain falls on a",
        *(f"{caption} {tail}" for tail in TAILS),
    }


def test_conjunctions_are_lost_and_fragments_added() -> None:
    from error_detection import FRAGMENTS

    assert outcomes("lost conjunction", "a dog barks, and then a man speaks while it rains") == {
        "a dog barks a man speaks while it rains",
        "a dog barks, and then a man speaks it rains",
    }
    assert outcomes("lost conjunction", "cats and dogs, or a cow") == {None}
    assert outcomes("added fragment", "rain falls") == {
        text for part in FRAGMENTS for text in (f"rain {part} falls", f"rain falls {part}")
    }


def report_of(monkeypatch: pytest.MonkeyPatch, table: Path, *options: str | Path) -> Any:
    output = table.with_suffix(".json")
    run(monkeypatch, table, *options, "--output", output)
    assert "dog" not in output.read_text()  # captions are other people's
    return json.loads(output.read_text())


def test_a_row_for_every_file(monkeypatch: pytest.MonkeyPatch, table: Path) -> None:
    from error_detection import WAYS

    (row,) = report_of(monkeypatch, table, "--limit", "5")["table"]
    assert row["captions"] == 7
    assert row["people"] == pytest.approx(1 / 7)
    assert row["errors found in people's captions"]["breaks off"] == pytest.approx(1 / 7)
    assert row["repeated words"] == row["repeated event"] == 1
    assert all(0 < row[f"{way}, captions"] <= 5 for way in WAYS)
    again = report_of(monkeypatch, table, "--limit", "5")["table"]
    assert again == [row]


def test_the_published_detector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: Path
) -> None:
    for bias, share in ((30.0, 1.0), (-30.0, 0.0)):
        save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert", bias)
        options = ["--detector", tmp_path / "checker.ckpt", "--detector-encoder", tmp_path / "bert"]
        (row,) = report_of(monkeypatch, table, *options)["table"]
        assert row["people"] == row["broken off"] == share
        assert "errors found in people's captions" not in row


def test_missing_tables_are_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "no.csv")
    assert "no.csv: cannot be read" in capsys.readouterr().err
