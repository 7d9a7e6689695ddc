"""Batches by step number, prepared in the background, and the random draws of a step."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dac_diffusion.errors import DacError
from dac_diffusion.training.task import Task


def iterate_batches(
    task: Task, steps: range, rank: int, world_size: int, num_workers: int
) -> Iterator[Any]:
    """Yield `task.batch` of every step, in order, prepared ahead by `num_workers` processes.

    Where processes start by "spawn" (macOS, Windows), the task must be picklable, or num_workers 0.
    """
    loader = DataLoader(
        _Batches(task, rank, world_size),
        sampler=steps,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        # A generator of its own, so that the loader draws nothing from the global one.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, DacError):
            raise batch
        yield batch


class _Batches(Dataset[Any]):
    def __init__(self, task: Task, rank: int, world_size: int) -> None:
        self.task, self.rank, self.world_size = task, rank, world_size

    def __getitem__(self, step: int) -> Any:
        try:
            return self.task.batch(step, self.rank, self.world_size)
        except DacError as error:  # returned, because a worker would bury its line in a traceback
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """Seed torch's global generators (for dropout) and return one for the model's own draws.

    Both depend on (seed, step, rank) alone, so that a resumed run draws what the first would have.
    """
    seeds = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32).tolist()
    torch.manual_seed(seeds[0])
    return torch.Generator(device=device).manual_seed(seeds[1])


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors in a (nested) dataclass, mapping, tuple or list to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if is_dataclass(batch) and not isinstance(batch, type):
        moved = {f.name: to_device(getattr(batch, f.name), device) for f in fields(batch) if f.init}
        return replace(batch, **moved)
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
