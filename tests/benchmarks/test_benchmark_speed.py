"""The speed benchmark: what it reports, not how fast anything is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.errors import DacError


def test_table_of_a_fake_captioner(
    tmp_path: Path, run_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import speed

    monkeypatch.setattr(speed, "run_process", lambda call, threads: "7 2500000000")
    output = tmp_path / "speed.json"
    options = ["--repetitions", "4", "--clips-in-one-call", "3", "--rounds", "2", "--steps", "8"]
    fake = run_script(speed, lambda file: ["a dog"], *options, "--output", str(output))
    rows = {row["what"]: row for row in json.loads(output.read_text(encoding="utf-8"))["table"]}
    assert rows["5 captions of one 10 s clip"]["repetitions"] == 4
    assert rows["peak memory, 1 clip in one call"]["median"] == 2.5
    assert rows["one by one / one call"]["repetitions"] == 2
    command, one_call = (
        rows[what]["median"]
        for what in ("cold start: dac-diffusion caption one file", "a clip, 3 in one call")
    )
    ratio = rows["one command a clip / one call"]["median"]
    assert ratio == pytest.approx(command / one_call)
    assert "cold start: dac-diffusion --help" in rows
    assert sum(call["inputs"] == 3 for call in fake.calls) == 2
    assert "| s |" in capsys.readouterr().out


def test_clips_are_different_and_ten_seconds_long(tmp_path: Path) -> None:
    import soundfile
    import speed

    files = speed.write_clips(tmp_path, 2, seed=0)
    sounds = [soundfile.read(file) for file in files]
    assert [len(sound) / rate for sound, rate in sounds] == [10.0, 10.0]
    assert (sounds[0][0] != sounds[1][0]).any()


def test_a_failing_command_is_an_error() -> None:
    import speed

    with pytest.raises(DacError, match="no such luck"):
        speed.run_process([sys.executable, "-c", "raise SystemExit('no such luck')"], 1)


def test_summary() -> None:
    import speed

    row = speed.summarise("x", 8, [1.0, 2.0, 9.0], "s")
    assert (row["median"], row["repetitions"]) == (2.0, 3)
    assert row["low"] < row["median"] < row["high"]
