"""The rounding benchmark on a tiny BERT and captions of its words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.text.tiny_masked_bert import write_masked_bert

CAPTIONS = ["a dog barks", "rain falls and then wind blows", "a dog barks and rain falls"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    import rounding
    from common import run_main

    monkeypatch.setattr("sys.argv", ["rounding.py", *map(str, arguments)])
    run_main(rounding.main)


def test_a_row_for_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_masked_bert(tmp_path / "bert", with_head=False, scale=0.1)
    for name in ("train", "val", "test"):
        lines = [f"{i},id{i},0,{text}" for i, text in enumerate(CAPTIONS)]
        table = "audiocap_id,youtube_id,start_time,caption\n" + "\n".join(lines) + "\n"
        (tmp_path / f"{name}.csv").write_text(table)
    output = tmp_path / "rounding.json"
    options = ["--bert", tmp_path / "bert", "--captions", tmp_path, "--split-layers", "2", "4"]
    sizes = ["--max-length", "12", "--head-steps", "200", "--limit", "4", "--attend", "all"]
    run(monkeypatch, *options, *sizes, "--output", output)
    content = json.loads(output.read_text())
    assert [row["split_layer"] for row in content["table"]] == [2, 4]
    whole = content["table"][1]  # nothing above the split that could mix words up
    assert whole["tokens_0.0"] > 0.9 > whole["tokens_0.9"]
    assert "dog" not in output.read_text()  # captions are other people's


def test_missing_tables_are_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--captions", tmp_path)
    assert "train.csv: cannot be read" in capsys.readouterr().err
