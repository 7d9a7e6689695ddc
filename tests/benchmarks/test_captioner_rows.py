"""Rows of the comparison part by part: names, what is counted and timed, marks in the plots."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dac_diffusion.errors import ConfigError
from tests.benchmarks.tiny_systems import tiny_clap_art, tiny_recap
from tests.helpers import RATE, noise, tiny_autoregressive

pytest.importorskip("faiss", reason='needs pip install ".[retrieval]"')


def test_names_keep_their_order_and_case() -> None:
    from systems import further_captioners

    assert list(further_captioners(["b=x=y", "A=z"]).items()) == [("b", "x=y"), ("A", "z")]
    with pytest.raises(ConfigError, match="the tables have a People already"):
        further_captioners(["People=x"])


def test_ranking_counts_where_captions_are_ranked() -> None:
    from systems import Setting
    from timed_group import counted, measured_row

    seconds = {"encoding": 1.0, "generation": 2.0, "text": 3.0, "ranking": 4.0, "call": 11.0}
    call = {**seconds, "tokens": 30, "words": 20, "network_calls": 5, "peak_memory": None}
    plain, ranked = (Setting("s", "n", "m", 1, is_ranked) for is_ranked in (False, True))
    assert (counted(seconds, plain), counted(seconds, ranked)) == (6.0, 10.0)
    row = measured_row(ranked, 20, [call], [6.0])
    assert (row["aps"], row["tps"], row["wps"], row["ratio"]) == (2.0, 3.0, 2.0, 0.6)


def test_what_counts_as_a_parameter() -> None:
    from stopwatch import parameters_by_part

    from dac_diffusion.codecs.code_encoder import CodeEncoder
    from dac_diffusion.codecs.encodec import EncodecCodec

    captioner = tiny_clap_art(num_codebooks=2)
    inner = sum(p.numel() for p in captioner.encoder.codec.encoder.parameters())
    quantizer = 2 * 8 * 32 + 2 * 32  # codebooks, mean and scale
    assert parameters_by_part(captioner)["encoder"] == inner + quantizer
    small = EncodecCodec({"num_filters": 4, "hidden_size": 16})
    captioner.register_modules(encoder=CodeEncoder.from_parts(small))
    network = sum(p.numel() for p in small.parameters())
    codebooks = len(small.quantizer.layers) * 1024 * 16
    assert len(small.quantizer.layers) == 32
    assert parameters_by_part(captioner)["encoder"] == network + codebooks
    recap = tiny_recap()
    counts = parameters_by_part(recap)
    assert counts["retrieval"] == 32 * 256 + 256 + 256 * 256 + 256
    assert set(counts) == {"encoder", "projection", "network", "retrieval"}
    recap.register_to_config(retrieval_space="clap")
    assert "retrieval" not in parameters_by_part(recap)


def test_rows_that_are_not_ranked_need_no_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    from stopwatch import without_likelihood

    from dac_diffusion.autoregressive import drawing

    def fail(*_: Any) -> torch.Tensor:
        raise AssertionError("likelihood computed")

    captioner, sound = tiny_autoregressive(), [(noise(1.0), RATE)]
    captioner.register_to_config(ranking="likelihood", error_threshold=0.5)
    monkeypatch.setattr(drawing, "sequence_log_likelihood", fail)
    with pytest.raises(AssertionError, match="likelihood computed"):
        captioner(sound, progress=False)
    (result,) = without_likelihood(captioner)(sound, progress=False)
    assert result.candidates


def test_in_plots_each_has_its_own_mark_and_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import plots

    class Axes:
        def __init__(self) -> None:
            self.lines: list[Any] = []
            self.marks: dict[str, tuple[str, str, int]] = {}

        def plot(self, across: list[float], *_: Any, **__: Any) -> None:
            self.lines.append(across)

        def scatter(self, across: list[float], *_: Any, **how: Any) -> None:
            self.marks[how["label"]] = how["marker"], how["edgecolors"], len(across)

        def annotate(self, *_: Any, **__: Any) -> None:
            pass

    names = ["diffusion", "autoregressive", "references", *(f"n{i}" for i in range(9))]
    rows = [{"system": name, "setting": "8 steps", "cider_d": 1.0, "aps": 2.0} for name in names]
    rows[1]["setting"] = "nucleus"
    rows.append({"system": "diffusion", "setting": "1 step", "cider_d": 0.5, "aps": 9.0})
    axes = Axes()
    plots._scatter(axes, rows, "aps")
    assert axes.lines == [[2.0, 9.0]]
    assert list(axes.marks) == [name for name in names if name != "references"]
    assert axes.marks.pop("diffusion")[2] == 2
    assert {mark[2] for mark in axes.marks.values()} == {1}
    assert len({axes.marks[name][:2] for name in ["autoregressive", *names[3:11]]}) == 9
