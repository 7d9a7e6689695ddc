"""Llamas for full_size.py: built without another copy, or computed from smaller ones."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from common import Row
from torch import nn

BLOCK = 1 << 20  # random numbers that all weights are filled with, over and over
INITIAL_STD = 0.02
# Bytes for the systems beside a Llama, and for what calls need. For 32 clips a 7B went beyond 24 GB
# in all, so more than 9 beside its weights.
ROOM, ROOM_FOR_MANY = 3e9, 12e9
FEW_CLIPS = 8
MEMORY = Path("/proc/meminfo")
COMPUTED = "computed"
FORMULA = (
    "computed, not measured: seconds of generation g(w) = g(b) + (g(b) - g(a)) (w - b) / (b - a), "
    "where a < b < w are the weights that every token reads, all but the input embeddings, in two "
    "measured Llamas and in this one; encoding and text as measured with the larger"
)


def build_llama(config: Any, dtype: torch.dtype, device: str) -> Any:
    """A LlamaForCausalLM of a type, on a device, with no other copy of its weights at any time.

    They are one block of random numbers repeated: as many different bytes as there are weights, as
    reading them takes the time, and drawing each would take minutes.
    """
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    network.model.rotary_emb = type(network.model.rotary_emb)(config=config)
    block = (INITIAL_STD * torch.randn(BLOCK)).to(device, dtype)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            filled = filled_with(block, parameter.shape)
            if parameter.dim() == 1:  # the gains of layer norms
                filled.fill_(1.0)
            setattr(module, name, nn.Parameter(filled, requires_grad=False))
    return network


def filled_with(block: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A tensor of a shape that holds the block again and again."""
    tensor = torch.empty(shape, dtype=block.dtype, device=block.device)
    for part in tensor.view(-1).split(len(block)):
        part.copy_(block[: len(part)])
    return tensor


def num_weights(settings: dict[str, Any]) -> int:
    """Weights of a Llama of these settings of LlamaConfig, none of which is made."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        network = LlamaForCausalLM(LlamaConfig(**settings))
    return sum(parameter.numel() for parameter in network.parameters())


def weights_per_token(settings: dict[str, Any]) -> int:
    """Weights that writing a token reads: of the input embeddings it takes a single row."""
    return num_weights(settings) - settings["vocab_size"] * settings["hidden_size"]


def why_not(
    title: str, settings: dict[str, Any], dtype: torch.dtype, device: str, clips: int
) -> str | None:
    """Why a Llama that is not in memory yet cannot be timed with so many clips; None if it can."""
    if dtype != torch.bfloat16:
        return f"{title}: in bfloat16 only"
    free = memory_bytes(device, "free")
    room = ROOM if clips <= FEW_CLIPS else ROOM_FOR_MANY
    needed = dtype.itemsize * num_weights(settings) + room
    if free is None or needed <= free:
        return None
    return (
        f"{title}, {clips} clip{'s' * (clips > 1)}: not timed, it needs {needed / 1e9:.1f} GB and "
        f"{free / 1e9:.1f} GB are free"
    )


def memory_bytes(device: str, kind: Literal["free", "total"]) -> float | None:
    """Bytes of a device's memory, None where the system does not tell."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return float(free if kind == "free" else total)
    try:
        lines = MEMORY.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    name = {"free": "MemAvailable:", "total": "MemTotal:"}[kind]
    found = [line.split()[1] for line in lines if line.startswith(name)]
    return 1024 * float(found[0]) if found else None


def release_memory() -> None:
    """Give back to the system what is no longer used, or `memory_bytes` counts it as taken."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library that is not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def computed_rows(
    title: str, weights: int, of_sizes: Mapping[int, Sequence[Row]], references: Mapping[str, Row]
) -> list[Row]:
    """Rows of a Llama that was not timed, one for each setting of the two largest that were.

    weights: that it reads for each token. of_sizes: rows of one dtype and number of clips by such a
    number. references: the rows that ratios are to, by the ratio's key. See FORMULA; none where
    fewer than two were timed.
    """
    if len(of_sizes) < 2:
        return []
    (smaller, low), (larger, high) = sorted(of_sizes.items())[-2:]
    rows = []
    for first, second in pairs(low, high):
        slope = (second["generation"] - first["generation"]) / (larger - smaller)
        generation = second["generation"] + slope * (weights - larger)
        aps = 1 / (second["encoding"] + generation + second["text"])
        kept = ("system", "dtype", "batch_size", "captions_per_clip", "device", "encoding", "text")
        rows.append(
            {
                **{key: second[key] for key in (*kept, "network_calls", "group", "beside")},
                "model": title,
                "setting": f"{second['setting']}, {COMPUTED}",
                "generation": generation,
                "aps": aps,
                "tps": aps * second["tps"] / second["aps"],
                **{key: aps / row["aps"] for key, row in references.items()},
                "rounds": COMPUTED,
                "raw": {"from": [first["model"], second["model"]], "formula": FORMULA},
            }
        )
    return rows


def pairs(first: Iterable[Row], second: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Rows of two models with the same setting."""
    by_setting = {row["setting"]: row for row in first}
    return [(by_setting[row["setting"]], row) for row in second if row["setting"] in by_setting]
