"""The full-size speed benchmark, with tiny systems: what it reports, not how fast anything is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_diffusion.errors import ConfigError, DacError
from tests.benchmarks.tiny_full_size import TOKENS, settings_of, tiny_sizes
from tests.helpers import noise


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    import full_size

    monkeypatch.setattr(sys, "argv", ["full_size.py", "--threads", "1", *arguments])
    full_size.main(tiny_sizes())


def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of noise in place of rendered scenes."""
    import full_size

    def make(count: int, seed: int, rate: int) -> tuple[list[Any], float]:
        return [(noise(0.5, seed=i, rate=rate), rate) for i in range(count)], 0.0

    monkeypatch.setattr(full_size, "make_clips", make)


def test_rows_and_what_follows_from_their_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short_clips(monkeypatch)
    output = tmp_path / "full_size.json"
    options = ["--dtypes", "float32", "--batch-sizes", "1", "2", "--rounds", "3"]
    options += ["--steps", "4", "1", "--guided-steps", "5"]
    options += ["--fixed-length", str(TOKENS), "--output", str(output)]
    run(monkeypatch, *options)
    content = json.loads(output.read_text(encoding="utf-8"))
    rows = content["table"]
    names = [("BART-base size", "greedy"), ("BART-base size", "beam 4"),
             ("GPT-2 small size", "greedy"), ("GPT-2 small size", "beam 4")]  # fmt: skip
    for model in ("DAC DiT", "DAC U-ViT"):
        names += [(model, n) for n in ("5 steps, guidance 2.5", "4 steps", "1 step")]
    assert [(r["dtype"], r["batch_size"], r["model"], r["setting"]) for r in rows] == [
        ("float32", size, *name) for size in (1, 2) for name in names
    ]
    calls = {"greedy": TOKENS, "beam 4": TOKENS, "4 steps": 4, "1 step": 1}
    for row in rows:
        check_row(row, content["raw"])
        # On a CPU the denoiser takes one clip at a time, the decoder all of them.
        together = row["system"] == "autoregressive"
        expected = calls.get(row["setting"], 10) * (1 if together else row["batch_size"])
        assert row["network_calls"] == expected
    assert content["markdown"] in capsys.readouterr().out
    assert content["markdown"].count("| 5 steps, guidance 2.5 |") == 4
    assert set(content["systems"]) == {name for name, _ in names}
    assert "peak GB" not in content["markdown"]
    assert content["settings"]["fixed_length"] == TOKENS
    assert content["command"].startswith("python benchmarks/full_size.py --threads 1")


def check_row(row: dict[str, Any], raw: dict[str, Any]) -> None:
    """APS, TPS, ratio and parts, computed again from the measurements of this row and the first."""

    def measured(model: str, setting: str) -> list[dict[str, float]]:
        measurements: list[dict[str, float]] = raw[f"{model} {setting} {row['group']}"][0][
            "measured"
        ]
        return measurements

    def counted(one: dict[str, float]) -> float:
        return one["encoding"] + one["generation"] + one["text"]

    own = measured(row["model"], row["setting"])
    first = measured("BART-base size", "greedy")
    assert len(own) == row["rounds"] == 3
    assert row["aps"] == pytest.approx(np.median([row["batch_size"] / counted(o) for o in own]))
    assert row["tps"] == pytest.approx(TOKENS * row["aps"])
    ratios = [counted(f) / counted(o) for f, o in zip(first, own, strict=True)]
    assert row["ratio"] == pytest.approx(np.median(ratios))
    assert row["aps_low"] <= row["aps"] <= row["aps_high"]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    for one in own:
        assert 0 < one["features"] < one["encoding"]
        assert counted(one) < one["call"]
    assert row["parameters"] == sum(row["parameters_by_part"].values())
    assert row["peak_memory"] is None


def test_a_group_that_was_kept_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    short_clips(monkeypatch)
    options = ["--dtypes", "bfloat16", "--batch-sizes", "1", "--rounds", "1", "--steps", "1"]
    options += ["--guided-steps", "1", "--folder", str(tmp_path / "kept")]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(monkeypatch, *options, "--output", str(first))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["bfloat16_K1_B1.json"]

    def fail(*_: Any) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(full_size, "time_group", fail)
    run(monkeypatch, *options, "--output", str(second))
    tables = [json.loads(path.read_text(encoding="utf-8"))["table"] for path in (first, second)]
    assert tables[0] == tables[1]
    assert {row["dtype"] for row in tables[0]} == {"bfloat16"}
    with pytest.raises(AssertionError, match="timed again"):
        run(monkeypatch, *options, "--fixed-length", "5")


def test_on_cuda_the_memory_is_of_the_call_and_its_own_weights(
    captioners: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size
    import timed_group

    monkeypatch.setattr(timed_group, "peak_memory", lambda device, call: (call(), 5e8))
    setting = settings_of()[0]
    captioner = captioners[setting.model]
    args = argparse.Namespace(seed=0, fixed_length=TOKENS)
    one = timed_group.time_call(captioner, setting, [(noise(0.5, rate=16000), 16000)], args)
    parts = (captioner.encoder, captioner.projection, captioner.network, captioner.scorer)
    weights = sum(4 * t.numel() for p in parts for t in (*p.parameters(), *p.buffers()))
    # The bytes of whole numbers such as indices differ from those of float32.
    assert one["peak_memory"] == pytest.approx(5e8 + weights, abs=20000)
    assert weights > 100000
    row = dict.fromkeys(full_size.COLUMNS, 1.0)
    assert list(full_size.shown_columns([row])) == list(full_size.COLUMNS)


def test_millions_of_parameters(captioners: dict[str, Any]) -> None:
    from full_size import parameter_rows
    from stopwatch import parameters_by_part

    rows = [
        {"model": m, "parameters_by_part": parameters_by_part(c)} for m, c in captioners.items()
    ]
    bart, _, dit, _ = parameter_rows([*rows, *rows])
    assert bart["latent_space"] is None
    both = (captioners["BART-base size"].projection, captioners["BART-base size"].network)
    assert bart["writing"] == sum(p.numel() for part in both for p in part.parameters()) / 1e6
    assert dit["total"] == pytest.approx(dit["encoder"] + dit["writing"] + dit["latent_space"])
    assert dit["encoder"] == bart["encoder"]


def test_the_defaults_are_those_of_the_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size

    monkeypatch.setattr(sys, "argv", ["full_size.py"])
    args = full_size.parse_arguments()
    assert (args.dtypes, list(args.batch_sizes)) == (["float32", "bfloat16"], [1, 8])
    assert (args.steps, args.guided_steps, args.guidance_scale) == ([17, 4, 1], [17], 2.5)
    assert (args.fixed_length, args.frequency_pooling) == (12, "none")
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--device", "cuda"])
    assert list(full_size.parse_arguments().batch_sizes) == [1, 8, 32, 128]
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--quick"])
    args = full_size.parse_arguments()
    assert (args.dtypes, args.batch_sizes, args.rounds) == (["float32"], [1], 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fixed-length", "19"], "--fixed-length 19: the denoiser's positions hold 18 words"),
        (["--steps", "1001"], "at most 1000"),
        (["--guided-steps", "5", "2000"], "at most 1000"),
        (["--device", "abacus"], "--device abacus: cannot be used here"),
        (["--device", "meta"], "--device meta: only cpu and cuda can be timed"),
    ],
)
def test_what_cannot_be_timed_is_said_before_the_work(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    monkeypatch.setattr(full_size, "time_all", lambda *_: pytest.fail("began"))
    with pytest.raises(ConfigError) as error:
        run(monkeypatch, *options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_output_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size

    monkeypatch.setattr(full_size, "time_all", lambda *_: pytest.fail("began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DacError, match="file"):
        run(monkeypatch, "--output", str(tmp_path / "file" / "full_size.json"))


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_numbers_are_whole_and_from_1(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, f"--batch-sizes={value}")
    assert "give a whole number from 1" in capsys.readouterr().err
