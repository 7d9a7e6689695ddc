"""The rows of the full-size benchmark: what is shown of them."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from tests.benchmarks.tiny_full_size import TOKENS, settings_of
from tests.helpers import noise


def test_on_cuda_the_memory_is_of_the_call_and_its_own_weights(
    captioners: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import timed_group
    from full_size_rows import COLUMNS, shown_columns

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
    row = dict.fromkeys(COLUMNS, 1.0)
    assert shown_columns([row], COLUMNS) == COLUMNS


def test_millions_of_parameters(captioners: dict[str, Any]) -> None:
    from full_size_rows import parameter_rows, parameters_of

    rows = [{"model": m, "parameters_by_part": parameters_of(c)} for m, c in captioners.items()]
    bart, _, dit, _ = parameter_rows([*rows, *rows, {"model": "computed"}])
    assert "latent_space" not in bart
    network = captioners["BART-base size"].network
    assert bart["network"] == sum(p.numel() for p in network.parameters()) / 1e6
    parts = (dit["encoder"], dit["network"], dit["latent_space"])
    assert dit["total"] == pytest.approx(sum(parts))
    assert dit["encoder"] == bart["encoder"]


def test_the_table_is_in_order_and_has_each_reference_once() -> None:
    from full_size_rows import in_order, notes_of
    from systems import Setting

    def row(dtype: str, size: int, model: str, beside: str) -> dict[str, Any]:
        return {"dtype": dtype, "batch_size": size, "model": model, "setting": "greedy",
                "beside": beside}  # fmt: skip

    rows = [
        row(dtype, size, model, beside)
        for dtype in ("float32", "bfloat16")
        for beside in ("first", "second")
        for size in (1, 32)
        for model in ("reference", beside)
    ]
    notes = [{"note": "a"}, {"note": "b"}, {"note": "a"}]
    found = in_order(rows + notes, ["float32", "bfloat16"], [Setting("", "greedy", "reference")])
    assert [(r["dtype"], r["batch_size"], r["model"], r["beside"]) for r in found] == [
        (dtype, size, *names)
        for dtype in ("float32", "bfloat16")
        for size in (1, 32)
        for names in (("reference", "first"), ("first", "first"), ("second", "second"))
    ]
    assert notes_of(rows + notes) == ["a", "b"]
