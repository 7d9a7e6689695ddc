"""Which floating-point type a captioner computes in."""

from __future__ import annotations

import torch

from dac_diffusion.errors import ConfigError


def choose_dtype(torch_dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type to compute in; "auto" is bfloat16 where the device is faster in it, else float32.

    Raises ConfigError for another name.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    slow = device.type == "cpu" and not _cpu_computes_in_bfloat16()
    names["auto"] = torch.float32 if slow else torch.bfloat16
    if isinstance(torch_dtype, torch.dtype):
        return torch_dtype
    if torch_dtype not in names:
        raise ConfigError(f"torch_dtype={torch_dtype!r}: must be one of {', '.join(sorted(names))}")
    return names[torch_dtype]


def _cpu_computes_in_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here; False where this torch (< 2.10) cannot say."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask is not None else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
