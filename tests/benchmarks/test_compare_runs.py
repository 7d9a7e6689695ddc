import json
import sys
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from dac_diffusion.errors import DacError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import compare_runs


def write_run(folder: Path, scores: dict[int, float]) -> Path:
    """A run whose evaluation at step s came s seconds after its first step."""
    with SummaryWriter(str(folder / "logs")) as writer:
        writer.add_scalar("train/loss", 1.0, 1, walltime=1000.0)
        for step, score in scores.items():
            writer.add_scalar("validation/cider_d", score, step, walltime=1000.0 + step)
    return folder


def test_evaluations_carry_their_minutes(tmp_path: Path) -> None:
    rows = compare_runs.read_evaluations(write_run(tmp_path / "run", {60: 0.25, 180: 0.5}))
    assert [(row["step"], row["minutes"]) for row in rows] == [(60, 1.0), (180, 3.0)]
    assert [row["cider_d"] for row in rows] == [0.25, 0.5]


def test_runs_are_compared_at_the_shortest_one_s_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = write_run(tmp_path / "long", {60: 0.25, 120: 0.5, 600: 2.0})
    short = write_run(tmp_path / "short", {120: 0.75})
    output = tmp_path / "result.json"
    arguments = ["compare_runs.py", str(long), str(short), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    compare_runs.main()
    assert [row["run"] for row in json.loads(output.read_text())["table"]] == ["long", "short"]
    table = capsys.readouterr().out
    assert "| long | 2.0 | 120 | 0.500 |" in table
    assert "| short | 2.0 | 120 | 0.750 |" in table


def test_a_folder_without_logs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DacError, match="has no logs"):
        compare_runs.read_evaluations(tmp_path)
