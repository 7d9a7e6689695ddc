"""Loading a captioner without knowing which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import torch

from dac_diffusion.captioning.pretrained import captioner_class_name, find_checkpoint
from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.captioner import DiffusionCaptioner

Captioner: TypeAlias = Union["DiffusionCaptioner", "AutoregressiveCaptioner"]


def load_captioner(
    name: str | Path,
    torch_dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
    datastore: str | Path | None = None,
) -> Captioner:
    """Load a checkpoint as what its model_index.json says it is.

    name: "builtin", "builtin-autoregressive", a folder or a Hub id; datastore: of captions to look
    up in place of the checkpoint's own (AutoregressiveCaptioner.from_pretrained). The rest and the
    errors are those of DiffusionCaptioner.from_pretrained.
    """
    folder = find_checkpoint(name, revision)
    # Each kind brings libraries that take a second to import and that the other does without.
    if captioner_class_name(folder) == "AutoregressiveCaptioner":
        from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner

        return AutoregressiveCaptioner.from_pretrained(
            name, torch_dtype, device, revision, datastore
        )
    if datastore is not None:
        raise ConfigError(f"datastore={datastore}: {name} looks nothing up; leave it out")
    from dac_diffusion.captioner import DiffusionCaptioner

    return DiffusionCaptioner.from_pretrained(folder, torch_dtype, device)
