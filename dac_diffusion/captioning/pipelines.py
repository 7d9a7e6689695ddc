"""Loading a captioner of a known class; both kinds are diffusers pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DiffusionPipeline

from dac_diffusion.captioning.precision import choose_dtype
from dac_diffusion.captioning.pretrained import INDEX_FILE, find_checkpoint, load_components
from dac_diffusion.errors import CheckpointError

P = TypeVar("P", bound=DiffusionPipeline)


def load_pipeline(
    cls: type[P],
    components: Sequence[str],
    name: str | Path,
    torch_dtype: str | torch.dtype,
    device: str | torch.device | None,
    revision: str | None,
) -> P:
    """Load a captioner of class `cls` with these components; see its `from_pretrained`.

    Raises CheckpointError, also for settings that only a newer version knows.
    """
    target = torch.device(device or "cpu")
    dtype = choose_dtype(torch_dtype, target)
    folder = find_checkpoint(name, revision)
    parts, settings = load_components(folder, dtype, cls.__name__, components)
    if unknown := sorted(settings.keys() - signature(cls).parameters.keys()):
        raise CheckpointError(
            f"{folder / INDEX_FILE}: has settings that this installation does not know "
            f"({', '.join(unknown)}); upgrade dac-diffusion"
        )
    captioner = cls(**parts, **settings)
    captioner.to(target)
    return captioner
