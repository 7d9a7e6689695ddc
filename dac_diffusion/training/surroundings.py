"""What the loop gets from Accelerate and TensorBoard, which only training needs."""

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

from dac_diffusion.errors import MissingExtraError


def make_accelerator() -> Any:
    """The processes of this run; raises MissingExtraError without the extra `training`."""
    try:
        from accelerate import (
            Accelerator,
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise _missing("accelerate") from error
    # A step may leave weights unused (self-conditioning, the null condition), and the other
    # processes wait while the first evaluates. The precision is set by autocast in
    # `forward_and_backward`, because Accelerate would patch it into the model.
    unused_weights = DistributedDataParallelKwargs(find_unused_parameters=True)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[unused_weights, patience])
    launched_for_several = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if accelerator.num_processes == 1 and launched_for_several:
        warnings.warn(
            "`accelerate launch --cpu` has started one process only; for N on the CPU use "
            "`ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N ...`",
            stacklevel=2,
        )
    return accelerator


def make_writer(folder: Path, step: int) -> Any:
    """A TensorBoard log that goes on after `step`; raises MissingExtraError without the extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard") from error
    # What a killed run logged after its last checkpoint is superseded.
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def _missing(library: str) -> MissingExtraError:
    return MissingExtraError(
        f'training needs {library}: pip install "dac-diffusion[training]" brings it'
    )
