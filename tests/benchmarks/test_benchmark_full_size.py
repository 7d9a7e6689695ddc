"""The full-size speed benchmark, with tiny systems: what it reports, not how fast anything is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_diffusion.errors import ConfigError, DacError, MissingExtraError
from tests.benchmarks.tiny_full_size import TOKENS, tiny_published, tiny_sizes
from tests.helpers import noise

REFERENCES = {
    "ratio": ("BART-base size", "greedy"),
    "ratio_guided": ("DAC DiT", "3 steps, guidance 2.5"),
    "ratio_few": ("DAC DiT", "4 steps"),
}
LENGTH = ("--fixed-length", str(TOKENS))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    import full_size
    import full_size_systems

    monkeypatch.setattr(full_size_systems, "REFERENCE_GUIDED_STEPS", 3)  # 17 take their time
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--threads", "1", *arguments])
    full_size.main(tiny_sizes(), tiny_published())


def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of noise in place of rendered scenes."""
    import full_size

    def make(count: int, seed: int, rate: int) -> tuple[list[Any], float]:
        assert rate == 48000
        return [(noise(0.5, seed=i, rate=rate), rate) for i in range(count)], 0.0

    monkeypatch.setattr(full_size, "make_clips", make)


def test_rows_and_what_follows_from_their_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short_clips(monkeypatch)
    output = tmp_path / "full_size.json"
    options = ["--systems", "dac", "bart", "gpt2", "clap_art", "--dtypes", "float32", *LENGTH]
    options += ["--batch-sizes", "1", "2", "--rounds", "2", "--steps", "4", "1"]
    run(monkeypatch, *options, "--guided-steps", "5", "--output", str(output))
    content = json.loads(output.read_text(encoding="utf-8"))
    rows = content["table"]
    own = [("BART-base size", "greedy"), ("BART-base size", "beam 4"),
           ("GPT-2 small size", "greedy"), ("GPT-2 small size", "beam 4")]  # fmt: skip
    for model in ("DAC DiT", "DAC U-ViT"):
        own += [(model, n) for n in ("5 steps, guidance 2.5", "4 steps", "1 step")]
    clap_art = [("CLAP-ART base", "greedy"), ("CLAP-ART base", "beam 4")]
    timed = {
        "dac_bart_gpt2": [REFERENCES["ratio_guided"], *own],
        "clap-art_base": [*REFERENCES.values(), *clap_art],
    }
    assert [(r["beside"], r["batch_size"], (r["model"], r["setting"])) for r in rows] == [
        (beside, size, name) for beside, names in timed.items() for size in (1, 2) for name in names
    ]
    calls = {"greedy": TOKENS, "beam 4": TOKENS, "4 steps": 4, "1 step": 1,
             "3 steps, guidance 2.5": 6}  # fmt: skip
    for row in rows:
        check_row(row, content["raw"])
        # On a CPU the denoiser takes one clip at a time, the decoder all of them.
        together = row["system"] == "autoregressive"
        expected = calls.get(row["setting"], 10) * (1 if together else row["batch_size"])
        assert row["network_calls"] == expected
    markdown = content["markdown"]
    assert markdown in capsys.readouterr().out
    # Each reference once, although it was timed in both groups.
    for model, setting in REFERENCES.values():
        assert markdown.count(f"| {model} | {setting} | float32 | 1 |") == 1
    assert markdown.count("| CLAP-ART base | beam 4 | float32 | 2 |") == 1
    for name in ("DAC DiT", "DAC U-ViT", "BART-base size", "GPT-2 small size", "CLAP-ART base"):
        assert f"\n- {name}: {content['systems'][name]}" in markdown
    assert "- RECAP:" not in markdown
    assert "peak GB" not in markdown
    assert content["settings"]["fixed_length"] == TOKENS
    assert content["notes"] == []
    assert content["command"].startswith("python benchmarks/full_size.py --threads 1")


def check_row(row: dict[str, Any], raw: dict[str, Any]) -> None:
    """APS, TPS, ratios and parts, computed again from the measurements of the row's own group."""

    def measured(model: str, setting: str) -> list[dict[str, float]]:
        key = f"{model} {setting} {row['group']} beside {row['beside']}"
        measurements: list[dict[str, float]] = raw[key][0]["measured"]
        return measurements

    def counted(one: dict[str, float]) -> float:
        return one["encoding"] + one["generation"] + one["text"]

    own = measured(row["model"], row["setting"])
    assert len(own) == row["rounds"] == 2
    assert row["aps"] == pytest.approx(np.median([row["batch_size"] / counted(o) for o in own]))
    assert row["tps"] == pytest.approx(TOKENS * row["aps"])
    assert row["aps_low"] <= row["aps"] <= row["aps_high"]
    for key, reference in REFERENCES.items():
        ratios = [counted(f) / counted(o) for f, o in zip(measured(*reference), own, strict=True)]
        assert row[key] == pytest.approx(np.median(ratios))
        assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]
    for one in own:
        assert 0 < one["features"] < one["encoding"]
        assert counted(one) < one["call"]
    assert row["parameters"] == sum(row["parameters_by_part"].values())
    assert row["peak_memory"] is None


def test_ranking_counts_where_candidates_are_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_clips(monkeypatch)
    output = tmp_path / "full_size.json"
    options = ["--systems", "enclap_plus_plus", "--dtypes", "float32", "--batch-sizes", "1"]
    run(monkeypatch, *options, *LENGTH, "--rounds", "1", "--output", str(output))
    content = json.loads(output.read_text(encoding="utf-8"))
    rows = {row["setting"]: row for row in content["table"] if row["model"] == "EnCLAP++ base"}
    assert set(rows) == {"greedy", "beam 4", "nucleus, best of 30"}
    for name, row in rows.items():
        seconds = row["encoding"] + row["generation"] + row["text"]
        seconds += row["ranking"] if name == "nucleus, best of 30" else 0.0
        assert row["aps"] == pytest.approx(1 / seconds)
        assert row["tps"] == pytest.approx(TOKENS / seconds)
        few = next(
            r for r in content["table"] if (r["model"], r["setting"]) == REFERENCES["ratio_few"]
        )
        assert row["ratio_few"] == pytest.approx(row["aps"] / few["aps"])


def test_a_llama_that_does_not_fit_with_so_many_clips_is_computed_from_two_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size_groups
    from full_size_llama import weights_per_token

    short_clips(monkeypatch)
    plain = full_size_groups.why_not

    def refuse(title: str, *arguments: Any) -> str | None:
        none = "7B" in title and arguments[-1] == 2
        return "CED + Llama 2 7B, 2 clips: no room" if none else plain(title, *arguments)

    monkeypatch.setattr(full_size_groups, "why_not", refuse)
    output = tmp_path / "full_size.json"
    options = ["--systems", "ced_llama", "--batch-sizes", "1", "2", "--rounds", "1", *LENGTH]
    run(monkeypatch, *options, "--output", str(output))
    content = json.loads(output.read_text(encoding="utf-8"))
    llamas = [row for row in content["table"] if "Llama" in row["model"]]
    assert {row["dtype"] for row in llamas} == {"bfloat16"}
    names = ["CED + Llama 1.1B", "CED + Llama 3B", "CED + Llama 2 7B"]
    assert [(r["model"], r["batch_size"]) for r in llamas] == [
        (name, size) for name in names for size in (1, 2) for _ in range(2)
    ]
    assert content["notes"][0] == "CED + Llama 1.1B: in bfloat16 only"
    assert "CED + Llama 2 7B, 2 clips: no room" in content["notes"]
    assert content["notes"][-1].startswith("CED + Llama 2 7B: computed, not measured: ")
    by_name = {(r["model"], r["setting"], r["batch_size"]): r for r in llamas}
    weights = [weights_per_token(tiny_published().networks[f"llama_{n}b"]) for n in (1, 3, 7)]
    assert by_name[names[2], "beam 2", 1]["rounds"] == 1
    low, high = (by_name[name, "beam 2", 2] for name in names[:2])
    computed = by_name[names[2], "beam 2, computed", 2]
    line = np.polyfit(weights[:2], [low["generation"], high["generation"]], 1)
    assert computed["generation"] == pytest.approx(np.polyval(line, weights[2]))
    assert computed["rounds"] == "computed"
    assert "| CED + Llama 2 7B | beam 2, computed | bfloat16 | 2 |" in content["markdown"]


def test_a_group_that_was_kept_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import full_size_groups

    short_clips(monkeypatch)
    options = ["--systems", "gpt2", "recap", "--dtypes", "bfloat16", "--batch-sizes", "1"]
    options += ["--rounds", "1", "--folder", str(tmp_path / "kept")]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    run(monkeypatch, *options, *LENGTH, "--output", str(first))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "gpt2_bfloat16_K1_B1.json",
        "recap_bfloat16_K1_B1.json",
    ]

    def fail(*_: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(full_size_groups, "build_published", fail)
    monkeypatch.setattr(full_size_groups, "time_group", fail)
    run(monkeypatch, *options, *LENGTH, "--output", str(second))
    tables = [json.loads(path.read_text(encoding="utf-8"))["table"] for path in (first, second)]
    assert tables[0] == tables[1]
    assert {row["dtype"] for row in tables[0]} == {"bfloat16"}
    with pytest.raises(AssertionError, match="made again"):
        run(monkeypatch, *options, "--fixed-length", "5")


def test_many_clips_have_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size_groups
    from full_size_groups import Timed, time_beside
    from timed_group import Group

    rounds = []

    def remember(group: Any, settings: Any, captioners: Any, clips: Any, args: Any) -> list[Any]:
        rounds.append(args.rounds)
        return []

    monkeypatch.setattr(full_size_groups, "time_group", remember)
    args = argparse.Namespace(rounds=15, many_rounds=3, device="cpu")
    for size in (1, 8, 9, 32):
        time_beside(Group("float32", 1, size), Timed("key", []), {}, dict, [], args)
    assert rounds == [15, 15, 3, 3]
    assert args.rounds == 15


def test_the_defaults_are_those_of_the_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size

    monkeypatch.setattr(sys, "argv", ["full_size.py"])
    args = full_size.parse_arguments()
    assert (args.dtypes, list(args.batch_sizes)) == (["float32", "bfloat16"], [1, 32])
    assert args.systems == [
        "dac", "bart", "gpt2", "enclap", "enclap_plus_plus", "enclap_plus_plus_large", "clap_art",
        "recap", "ced_bart", "ced_llama",
    ]  # fmt: skip
    assert (args.llama, args.rounds, args.many_rounds) == (["1b", "3b", "7b"], 15, 3)
    assert (args.steps, args.guided_steps, args.guidance_scale) == ([17, 4, 1], [17], 2.5)
    assert (args.fixed_length, args.frequency_pooling) == (12, "none")
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--device", "cuda"])
    assert list(full_size.parse_arguments().batch_sizes) == [1, 8, 32, 128]
    monkeypatch.setattr(sys, "argv", ["full_size.py", "--quick"])
    args = full_size.parse_arguments()
    assert (args.dtypes, args.batch_sizes, args.rounds) == (["float32"], [1], 2)
    assert args.systems == ["dac", "bart", "gpt2"]


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


def test_without_faiss_it_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size

    monkeypatch.setattr(full_size, "time_all", lambda *_: pytest.fail("began"))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match="faiss"):
        run(monkeypatch, "--systems", "recap")


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
