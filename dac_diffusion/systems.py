"""Loading a captioner without knowing which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import torch

from dac_diffusion.captioning.pretrained import captioner_class_name, find_checkpoint

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.captioner import DiffusionCaptioner

Captioner: TypeAlias = Union["DiffusionCaptioner", "AutoregressiveCaptioner"]


def load_captioner(
    name: str | Path,
    torch_dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
) -> Captioner:
    """Load a checkpoint as what its model_index.json says it is.

    name: "builtin", "builtin-autoregressive", a folder or a Hub id; the rest and the errors are
    those of DiffusionCaptioner.from_pretrained.
    """
    folder = find_checkpoint(name, revision)
    # Each kind brings libraries that take a second to import and that the other does without.
    if captioner_class_name(folder) == "AutoregressiveCaptioner":
        from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner

        return AutoregressiveCaptioner.from_pretrained(folder, torch_dtype, device)
    from dac_diffusion.captioner import DiffusionCaptioner

    return DiffusionCaptioner.from_pretrained(folder, torch_dtype, device)
