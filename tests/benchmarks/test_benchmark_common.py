"""The parts that the benchmarks share."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dac_diffusion.errors import DacError


def arguments(**changed: object) -> argparse.Namespace:
    options = {"num_captions": 5, "num_candidates": None, "guidance_scale": None, "seed": 0}
    return argparse.Namespace(**{**options, "batch_size": 32, **changed})


def test_derangement_leaves_nobody_in_place() -> None:
    from common import derangement

    for count in (2, 3, 50):
        others = derangement(count, seed=3)
        assert sorted(others) == list(range(count))
        assert all(i != other for i, other in enumerate(others))
    assert derangement(50, 3) == derangement(50, 3) != derangement(50, 4)


def test_markdown_table_formats_and_leaves_missing_cells_empty() -> None:
    from common import markdown_table

    table = markdown_table([{"a": 0.5, "b": None}, {"a": 0.25}], {"a": "share|.1%", "b": "name"})
    assert table.splitlines() == ["| share | name |", "|---|---|", "| 50.0% |  |", "| 25.0% |  |"]


def test_a_report_is_valid_json_and_replaces_the_older_one(tmp_path: Path) -> None:
    from common import report, write_report

    path = tmp_path / "result.json"
    path.write_text("older", encoding="utf-8")
    content = report("x", arguments(), [{"cider_d": 0.5}], {"clips": [{"text": "d\u00fc"}, {}]})
    write_report(path, content)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["raw"]["clips"] == [{"text": "d\u00fc"}, {}]
    assert read["settings"]["seed"] == 0
    assert {"version", "machine", "command", "table"} <= set(read)
    assert list(tmp_path.iterdir()) == [path]
    write_report(tmp_path / "result.json.gz", content)
    assert gzip.decompress((tmp_path / "result.json.gz").read_bytes()) == path.read_bytes()


def test_a_clip_that_failed_stops_the_benchmark() -> None:
    from common import run_captioner

    failed = SimpleNamespace(error="a.wav: is empty", captions=[], candidates=[])
    with pytest.raises(DacError, match=r"a\.wav"):
        run_captioner(lambda *a, **k: [failed], ["a.wav"], 8, arguments())


def test_a_clip_without_captions_counts_as_an_empty_one() -> None:
    from common import run_captioner, texts

    nothing = SimpleNamespace(error=None, captions=[], candidates=[])
    raw = run_captioner(lambda *a, **k: [nothing], ["a.wav"], 8, arguments())
    assert texts(raw[0]) == [""]
    assert raw[0]["candidates"] == [""]


def test_an_unwritable_output_is_refused_before_the_work(tmp_path: Path) -> None:
    from common import check_output

    with pytest.raises(DacError, match="missing"):
        check_output(tmp_path / "missing/result.json")
    check_output(tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "older.json").write_text("older", encoding="utf-8")
    check_output(tmp_path / "older.json")
    assert (tmp_path / "older.json").read_text(encoding="utf-8") == "older"
    check_output(None)


def test_machine_line_is_one_line() -> None:
    from common import machine_line

    assert "torch" in machine_line()
    assert "\n" not in machine_line()
