"""The table of several arms, with tiny captioners."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import tiny_captioner


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("arms")
    paths = folder / "first", folder / "second"
    for path, depth in zip(paths, (1, 2), strict=True):
        tiny_captioner(depth=depth).save_pretrained(path)
    return paths


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    import arms
    from common import run_main

    quick = ["--limit", "3", "--clips", "none", "--rounds", "3", "--dtype", "float32"]
    monkeypatch.setattr("sys.argv", ["arms.py", *arguments, *quick])
    run_main(arms.main)


def test_every_arm_at_every_number_of_calls(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "arms.json"
    given = [f"one={models[0]}", f"two={models[1]}", "--steps", "1", "3"]
    options = ["--guidance-scales", "1", "2.5", "--folder", str(tmp_path / "kept")]
    run(monkeypatch, *given, *options, "--output", str(output))
    table = json.loads(output.read_text())["table"]
    assert [(r["system"], r["guidance"], r["steps"]) for r in table] == [
        (name, scale, steps) for name in ("one", "two") for scale in (1.0, 2.5) for steps in (1, 3)
    ]
    for row in table:
        assert row["network_calls"] == row["steps"] * (2 if row["guidance"] == 2.5 else 1)
        assert row["ratio"] > 0
        assert row["cider_d"] is not None
    assert table[0]["ratio"] == 1.0
    assert table[4]["parameters"] > table[0]["parameters"]  # the second is deeper
    kept = (tmp_path / "kept/captions").glob("*.jsonl")
    assert len(list(kept)) == 8
    # A second run takes everything from there.
    monkeypatch.setattr("kept_captions.make_captions", None)
    monkeypatch.setattr("arms.time_group", None)
    run(monkeypatch, *given, *options)


def test_every_arm_at_every_initial_noise(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "arms.json"
    given = [f"one={models[0]}", "--steps", "2", "--folder", str(tmp_path / "kept")]
    run(monkeypatch, *given, "--noise-scales", "0.1", "1", "--output", str(output))
    rows = json.loads(output.read_text())["table"]
    run(monkeypatch, *given, "--output", str(output))
    own = json.loads(output.read_text())["table"]
    assert [row["noise"] for row in [*rows, *own]] == [0.1, 1.0, "own"]
    captions = [
        path.read_text().splitlines()[1:]
        for path in sorted((tmp_path / "kept/captions").glob("*.jsonl"))
    ]
    assert captions[0] == captions[2] != captions[1]  # own, 0.1, 1: its own is 1


@pytest.mark.parametrize("given", [["builtin"], ["a=builtin", "a=other"]])
def test_models_need_names_of_their_own(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, *given)
    assert "give each model as NAME=MODEL, each name once" in capsys.readouterr().err
