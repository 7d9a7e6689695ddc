"""Llamas of the full-size benchmark: weights, memory, and what is computed of one not timed."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks.tiny_full_size import tiny_published


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, which keeps memory")
def test_memory_that_is_no_longer_used_is_given_back() -> None:
    from full_size_llama import release_memory

    pieces = [bytearray(b"x") * 60_000 for _ in range(3000)]  # too small to be given back at once
    last = bytearray(b"x") * 60_000  # behind them, so that the heap cannot shrink from its end
    before = resident_bytes()
    del pieces
    release_memory()
    assert before - resident_bytes() > 100e6
    assert len(last) == 60_000


def small_config() -> LlamaConfig:
    return LlamaConfig(**tiny_published().networks["llama_3b"])


def test_it_computes_what_a_stock_llama_with_its_weights_computes() -> None:
    from full_size_llama import build_llama

    network = build_llama(small_config(), torch.float32, "cpu").eval()
    stock = LlamaForCausalLM(small_config()).eval()
    stock.load_state_dict(network.state_dict())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(network(ids).logits, stock(ids).logits)
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    for name, weight in network.named_parameters():
        assert torch.equal(weight, torch.ones_like(weight)) == ("norm" in name)
        if "norm" not in name:
            assert 0.015 < weight.std() < 0.025


def test_it_is_built_in_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size_llama
    from full_size_llama import build_llama, filled_with

    monkeypatch.setattr(full_size_llama, "BLOCK", 1000)
    network = build_llama(small_config(), torch.bfloat16, "cpu")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    block = torch.arange(7.0)
    filled = filled_with(block, torch.Size((5, 3)))
    assert filled.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6] * 2 + [0]


def test_why_one_cannot_be_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size_llama
    from full_size_llama import memory_bytes, why_not
    from full_size_published import published_full_size

    settings = published_full_size().networks["llama_7b"]
    assert why_not("Big", settings, torch.float32, "cpu", 1) == "Big: in bfloat16 only"
    memory = tmp_path / "meminfo"
    monkeypatch.setattr(full_size_llama, "MEMORY", memory)
    for gigabytes, clips, reason in (
        (16, 1, "Big, 1 clip: not timed, it needs 16.5 GB and 16.0 GB are free"),
        (17, 8, None),
        (17, 32, "Big, 32 clips: not timed, it needs 25.5 GB and 17.0 GB are free"),
        (26, 32, None),
    ):
        kilobytes = gigabytes * 1e9 / 1024
        memory.write_text(f"MemTotal: 24000000 kB\nMemAvailable: {kilobytes:.0f} kB\n")
        assert why_not("Big", settings, torch.bfloat16, "cpu", clips) == reason
    assert memory_bytes("cpu", "total") == 24000000 * 1024
    memory.unlink()
    assert memory_bytes("cpu", "free") is None
    assert why_not("Big", settings, torch.bfloat16, "cpu", 32) is None


def test_memory_on_cuda_is_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from full_size_llama import memory_bytes

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 8))
    assert memory_bytes("cuda:1", "free") == 3
    assert memory_bytes("cuda:1", "total") == 8


def row(model: str, setting: str, generation: float) -> dict[str, Any]:
    aps = 2 / (0.5 + generation + 0.25)
    return {
        "system": "autoregressive", "model": model, "setting": setting, "dtype": "bfloat16",
        "batch_size": 2, "captions_per_clip": 1, "device": "cpu", "network_calls": 12,
        "group": "bfloat16_K1_B2", "beside": "key", "encoding": 0.5, "text": 0.25,
        "generation": generation, "aps": aps, "tps": 12 * aps,
    }  # fmt: skip


def test_a_larger_one_lies_on_the_line_through_two() -> None:
    from full_size_llama import computed_rows

    # Of three sizes the two largest: 1 s and 2 s at 100 and 300, so 5 s at 900.
    of_sizes = {
        100: [row("a", "greedy", 1.0), row("a", "beam 2", 1.5)],
        10: [row("z", "greedy", 9.0)],
        300: [row("b", "beam 2", 2.5), row("b", "greedy", 2.0), row("b", "else", 1.0)],
    }
    references = {"ratio": {"aps": 2.0}, "ratio_few": {"aps": 4.0}}
    beam, greedy = computed_rows("c", 900, of_sizes, references)
    assert (greedy["model"], greedy["setting"]) == ("c", "greedy, computed")
    assert greedy["generation"] == pytest.approx(5.0)
    assert greedy["aps"] == pytest.approx(1 / 5.75)
    assert greedy["tps"] == pytest.approx(12 / 5.75)
    assert greedy["ratio"] == pytest.approx(greedy["aps"] / 2)
    assert greedy["ratio_few"] == pytest.approx(greedy["aps"] / 4)
    assert greedy["rounds"] == "computed"
    assert beam["generation"] == pytest.approx(5.5)
    assert computed_rows("c", 900, {100: of_sizes[100]}, references) == []
