"""The comparison from end to end with tiny captioners: rows, going on, and what is timed."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import noise, tiny_autoregressive, tiny_captioner

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
    options += ["--folder", str(folder), "--captions", str(folder / "captions")]
    options += ["--kept", str(folder / "timing")]
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    script.main()


def test_all_of_it_and_going_on(
    models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason='needs pip install ".[benchmarks]"')
    import kept_captions
    import timing

    run(models, tmp_path, monkeypatch)
    rows = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert all(set(row) >= SUMMARY_KEYS for row in rows)
    assert {row["system"] for row in rows} == {"diffusion", "autoregressive", "references"}
    timed = [row for row in rows if row["aps"] is not None]
    # Two batch sizes; at K = 1 three decodings and two numbers of steps, at K = 5 the same number.
    assert len(timed) == 2 * (5 + 5)
    for row in timed:
        assert row["aps"] > 0
        assert row["dtype"] == "float32"
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


def test_the_stopwatch_tells_the_parts_apart() -> None:
    from stopwatch import Stopwatch

    class Work:
        def outer(self) -> int:
            time.sleep(0.02)
            return self.inner() + 1

        def inner(self) -> int:
            time.sleep(0.05)
            return 1

    work = Work()
    watch = Stopwatch(torch.device("cpu"))
    with watch.watching({"outer": [(work, "outer")], "inner": [(Work, "inner")]}):
        assert work.outer() == 2
        assert work.outer() == 2
    before = dict(watch.seconds)
    assert work.outer() == 2
    assert dict(watch.seconds) == before
    assert before["inner"] == pytest.approx(0.1, abs=0.05)
    assert before["outer"] - before["inner"] == pytest.approx(0.04, abs=0.03)


def test_the_parts_of_a_call_add_up_to_it() -> None:
    from stopwatch import Stopwatch, captioning_parts, count_parameters, network_calls

    for captioner in (tiny_captioner(), tiny_autoregressive()):
        watch = Stopwatch(captioner.device)
        clips = [noise(1.0, seed=i) for i in range(3)]

        def call(captioner: Any = captioner, clips: list[np.ndarray] = clips) -> Any:
            return captioner(clips, sampling_rate=32000, num_captions=2)

        with watch.watching(captioning_parts(captioner)):
            watch.time("call", call)
        seconds = watch.seconds
        parts = sum(seconds[part] for part in ("encoding", "generation", "text", "ranking"))
        assert 0.5 * seconds["call"] < parts <= seconds["call"]
        assert 0 < seconds["features"] < seconds["encoding"]
        scorer = sum(p.numel() for p in captioner.scorer.parameters())
        everything = sum(
            p.numel()
            for component in captioner.components.values()
            if isinstance(component, torch.nn.Module)
            for p in component.parameters()
        )
        assert count_parameters(captioner) == everything - scorer
    diffusion = tiny_captioner()
    assert network_calls(diffusion, lambda: diffusion(noise(1.0), 32000, num_steps=3)) == 3


def test_settings_ask_for_what_their_names_say() -> None:
    from systems import autoregressive_settings, diffusion_settings, ranked_settings

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
    for setting in ranked_settings("a", "b"):
        assert setting.arguments()["num_captions"] == 5
        assert setting.arguments()["num_candidates"] == 10
