"""Loading a captioner of a known class; both kinds are diffusers pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DiffusionPipeline

from dac_diffusion.captioning.precision import choose_dtype
from dac_diffusion.captioning.pretrained import find_checkpoint, load_components

P = TypeVar("P", bound=DiffusionPipeline)


def load_pipeline(
    cls: type[P],
    components: Sequence[str],
    name: str | Path,
    torch_dtype: str | torch.dtype,
    device: str | torch.device | None,
    revision: str | None,
) -> P:
    """Load a captioner of class `cls` with these components; see its `from_pretrained`."""
    target = torch.device(device or "cpu")
    dtype = choose_dtype(torch_dtype, target)
    folder = find_checkpoint(name, revision)
    parts, settings = load_components(folder, dtype, cls.__name__, components)
    captioner = cls(**parts, **settings)
    captioner.to(target)
    return captioner
