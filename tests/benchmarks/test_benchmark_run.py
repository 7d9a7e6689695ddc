"""The comparison from end to end with tiny captioners: rows, going on, and what is timed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_autoregressive, tiny_captioner

SUMMARY_KEYS = {
    "system", "setting", "parameters", "network_calls", "batch_size", "captions_per_clip", "dtype",
    "device", "aps", "tps", "cider_d", "best_of_5_cider_d", "distinct_2_within_clip", "mbleu_4",
    "mtld", "distinct_1", "data",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    tiny_captioner().save_pretrained(folder / "diffusion")
    tiny_autoregressive().save_pretrained(folder / "autoregressive")
    return str(folder / "diffusion"), str(folder / "autoregressive")


def run(models: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import run as script

    options = ["--model", models[0], "--autoregressive", models[1], "--clips", "none"]
    options += ["--limit", "3", "--steps", "4", "8", "--dtypes", "float32", "--dtype", "float32"]
    options += ["--batch-sizes", "1", "2", "--rounds", "2", "--threads", "1"]
    options += ["--folder", str(folder), "--human-captions", str(folder / "human")]
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    script.main()


def write_human_captions(folder: Path) -> None:
    (folder / "audiocaps").mkdir(parents=True)
    lines = ["audiocap_id,youtube_id,start_time,caption"]
    for clip in range(4):
        lines += [f"{clip}{n},clip{clip},0,a dog barks {clip} {n} times" for n in range(5)]
    (folder / "audiocaps/test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_all_of_it_and_going_on(
    models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason='needs pip install ".[benchmarks]"')
    import kept_captions
    import timing

    write_human_captions(tmp_path / "human")
    run(models, tmp_path, monkeypatch)
    rows = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert all(set(row) >= SUMMARY_KEYS for row in rows)
    systems = {"diffusion", "autoregressive", "references", "people"}
    assert {row["system"] for row in rows} == systems
    timed = [row for row in rows if row["aps"] is not None]
    # Two batch sizes; at K = 1 three decodings and two numbers of steps, at K = 5 the same number.
    assert len(timed) == 2 * (5 + 5)
    for row in timed:
        assert row["aps"] > 0
        assert row["dtype"] == "float32"
        assert row["cider_d"] is not None
        assert (row["best_of_5_cider_d"] is None) == (row["captions_per_clip"] == 1)
        if row["system"] == "diffusion":
            assert row["network_calls"] == int(row["setting"].split()[0])
    for name in ("quality.json", "timing.json", "summary.md"):
        assert (tmp_path / name).stat().st_size > 0
    for name in ("quality_speed.png", "quality_diversity.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    def fail(*_: Any) -> None:
        raise AssertionError("made again")

    # A run that was interrupted before its last setting and group makes these two only.
    before = (tmp_path / "summary.json").read_text(encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(kept_captions, "make_captions", fail)
        patch.setattr(timing, "time_group", fail)
        run(models, tmp_path, patch)
    assert (tmp_path / "summary.json").read_text(encoding="utf-8") == before
    next((tmp_path / "captions").glob("*.jsonl")).unlink()
    monkeypatch.setattr(kept_captions, "make_captions", fail)
    with pytest.raises(AssertionError, match="made again"):
        run(models, tmp_path, monkeypatch)


def test_captions_of_other_weights_are_not_reused(models: tuple[str, str], tmp_path: Path) -> None:
    from kept_captions import fingerprint, read_captions

    path = tmp_path / "kept.jsonl"
    head = {"weights": fingerprint(models[0]), "steps": (1, 2)}
    row = {"set": "scenes", "captions": ["a"]}
    path.write_text(f"{json.dumps(head)}\n{json.dumps(row)}\n", encoding="utf-8")
    assert read_captions(path, head) == [row]
    assert fingerprint(models[0]) != fingerprint(models[1])
    assert read_captions(path, {**head, "weights": fingerprint(models[1])}) is None
    assert read_captions(tmp_path / "other.jsonl", head) is None


def test_settings_ask_for_what_their_names_say() -> None:
    from systems import (
        autoregressive_settings,
        diffusion_settings,
        fixed_length,
        ranked_settings,
    )

    (one,) = diffusion_settings("m", 5, (1,))
    assert (one.name, one.arguments()) == (
        "1 step", {"num_captions": 1, "num_candidates": 5, "num_steps": 1},
    )  # fmt: skip
    assert [s.name for s in autoregressive_settings("m", 1)] == ["greedy", "beam 4", "nucleus"]
    assert [s.name for s in autoregressive_settings("m", 5)] == [
        "nucleus",
        "beam 5",
        "diverse beam",
    ]
    both = [*autoregressive_settings("m", 1), one]
    for setting in fixed_length(both, 14):
        lengths = {"min_length": 14, "max_length": 14}
        expected = lengths if setting.system == "autoregressive" else {}
        assert {k: v for k, v in setting.call.items() if k in lengths} == expected
    assert fixed_length(both, None) == both
    for setting in ranked_settings("a", "b"):
        assert setting.arguments()["num_captions"] == 5
        assert setting.arguments()["num_candidates"] == 10
